"""Recipes by name: what the papers did, and what scmix does."""

from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from .._errors import InputError
from ._recipe import Recipe

__all__ = ["RECIPES", "Recipe", "recipe"]

RECIPES = {
    # The published settings (paper and its code): human and mouse genes have separate tokens and
    # there is no species token; the contrast reads the first token through BERT's pooler. Learning
    # rate, warm-up (10,000 steps) and decay are those of the code of the time of the paper; steps
    # are 10 epochs of 50 million cells at 8 cells of 2,048 genes on each of 8 processes.
    "mix-geneformer": Recipe(
        name="mix-geneformer",
        vocabulary="separate",
        objectives={"mlm": 1.0, "simcse": 1.0},
        attention_probs_dropout_prob=0.1,
        species_token_dropout=0.0,
        simcse_pool="first",
        warmup=0.00128,
        steps=7_812_500,
    ),
    # One token for one-to-one orthologues, a species token, mean pooling, and the contrast between
    # a cell and its swapped self with gradient (in the released code it has none).
    "mix-geneformer-x": Recipe(
        name="mix-geneformer-x",
        objectives={"mlm": 1.0, "subset_contrast": 1.0, "xspecies": 0.3},
        warmup=0.00128,
        steps=7_812_500,
    ),
    # The model that ships with scmix: the published objectives, small enough for two processor
    # cores and few cells, and started from the co-expression of genes.
    "scmix-mini": Recipe(
        name="scmix-mini",
        objectives={"mlm": 1.0, "simcse": 1.0},
        num_hidden_layers=4,
        init="coexpression",
        max_length=1024,
        length_multiple=64,
        tokens_per_step=12_288,
        simcse_pool="discounted",
        simcse_negatives="dataset",
        datasets_per_step=2,
        learning_rate=5e-5,
        weight_decay=0.01,
        steps=300,
    ),
}


def recipe(name: str | Recipe, **changes: Any) -> Recipe:
    """A named recipe with some settings changed.

    Parameters
    ----------
    name
        One of ``RECIPES``, or a recipe.
    **changes
        Fields of :class:`Recipe`.

    Returns
    -------
    The recipe.

    Examples
    --------
    >>> recipe("scmix-mini", steps=10, objectives={"mlm": 1.0}).steps
    10
    """
    if not isinstance(name, Recipe):
        if name not in RECIPES:
            raise InputError(f"Found recipe {name!r}, expected one of {', '.join(RECIPES)}.")
        name = RECIPES[name]
    known = [item.name for item in fields(Recipe)]
    for change in changes:
        if change not in known:
            close = get_close_matches(change, known, n=3)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise InputError(f"A recipe has no setting {change!r}.{hint}")
    return replace(name, **changes)
