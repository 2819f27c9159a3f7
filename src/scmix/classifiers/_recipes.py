"""Recipes: named sets of fine-tuning settings, each saved with the classifier it made."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from .._errors import InputError

_CHOICES = {
    "pool": ("mean", "pooler"),
    "balance": ("none", "weights", "sampling"),
    "schedule": ("linear", "cosine", "constant"),
    "keep": ("best", "last"),
    "precision": ("auto", "fp32"),
}


@dataclass(frozen=True)
class Recipe:
    """All settings of a fine-tuning run.

    Examples
    --------
    >>> from scmix.classifiers import recipe
    >>> recipe("paper").learning_rate
    5e-05
    """

    name: str
    # What stands for a cell: the mean over its genes, or the pooler on its first token, which is
    # what `transformers.BertForSequenceClassification` computes; and the hidden state it is taken
    # from.
    pool: str = "mean"
    hidden_layer: int = -1
    # A direct linear term besides: each gene votes for each class with its expression.
    gene_votes: bool = False
    # The head (and the votes) start from a regularised logistic regression on the frozen encoder.
    # More cells than this are sampled for it; 0: the head starts at random.
    probe_cells: int = 0
    # Inverse strength of its penalty.
    probe_c: float = 1.0

    # Lowest layers that stay as they are; with any of them the embeddings do too. -1: all layers.
    frozen_layers: int = 0
    # Rank of LoRA adapters in the dense layers that are not frozen, in place of their weights.
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_dropout: float = 0.05

    # Optimisation: AdamW.
    epochs: int = 10
    batch_size: int = 16
    learning_rate: float = 5e-5
    # Of heads and votes; None: as `learning_rate`.
    head_learning_rate: float | None = None
    warmup_steps: int = 0
    schedule: str = "linear"
    weight_decay: float = 0.001
    max_grad_norm: float = 1.0
    dropout: float = 0.1
    # Against imbalance: a loss weighted by 1 / class size, or cells drawn by it.
    balance: str = "none"
    # "auto" computes products in bfloat16 where the processor is fast at it.
    precision: str = "auto"

    # Share of cells (or groups) set aside for early stopping and calibration. 0: none; heads that
    # are fitted and not trained are calibrated by cross-validation.
    validation_share: float = 0.1
    # The epoch kept: the one of the best macro-F1 on the validation cells, or the last.
    keep: str = "best"
    # Epochs without a better one after which training ends; 0: never.
    patience: int = 0
    # Classes with this share of the cells or less are left out.
    rare_share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self)

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON can hold them."""
        return asdict(self)


def _check(recipe: Recipe) -> None:
    for name, allowed in _CHOICES.items():
        if (value := getattr(recipe, name)) not in allowed:
            raise InputError(f"Found {name}={value!r}; expected one of {', '.join(allowed)}.")
    whole = {"epochs": 0, "batch_size": 1, "warmup_steps": 0, "patience": 0, "seed": 0}
    whole |= {"probe_cells": 0, "lora_rank": 0, "frozen_layers": -1}
    for name, lowest in whole.items():
        if type(value := getattr(recipe, name)) is not int or value < lowest:
            raise InputError(f"Found {name}={value!r}; expected a whole number from {lowest}.")
    for name in ("learning_rate", "max_grad_norm", "lora_alpha", "probe_c"):
        if not (value := getattr(recipe, name)) > 0:
            raise InputError(f"Found {name}={value!r}; expected a number above 0.")
    if recipe.head_learning_rate is not None and not recipe.head_learning_rate > 0:
        raise InputError(
            f"Found head_learning_rate={recipe.head_learning_rate!r}; expected a number above 0."
        )
    for name in ("weight_decay", "dropout", "lora_dropout", "rare_share"):
        if not 0 <= (value := getattr(recipe, name)) < 1:
            raise InputError(f"Found {name}={value!r}; expected a number from 0 to below 1.")
    if not 0 <= recipe.validation_share <= 0.5:
        raise InputError(f"Found validation_share={recipe.validation_share}; expected 0 to 0.5.")
    if recipe.validation_share == 0 and (recipe.epochs or not recipe.probe_cells):
        raise InputError(
            f"Found validation_share=0 with epochs={recipe.epochs} and probe_cells="
            f"{recipe.probe_cells}: no cells are left to choose the epoch and to calibrate by. "
            'Start from recipe="tuned" to train layers, or pass a validation_share.'
        )
    if recipe.pool == "pooler" and (recipe.hidden_layer != -1 or recipe.gene_votes):
        raise InputError(
            'Found pool="pooler" with another hidden_layer than -1, or with gene_votes; the '
            "pooler reads the last hidden state, and nothing stands beside it."
        )
    if recipe.lora_rank and recipe.frozen_layers == -1:
        raise InputError(
            "Found lora_rank above 0 and frozen_layers=-1, which leaves it no layer. Start from "
            'recipe="tuned", or pass frozen_layers.'
        )


_FITTED: dict[str, Any] = {  # heads that are fitted, not drawn at random
    "hidden_layer": -2,
    "gene_votes": True,
    "probe_cells": 20_000,
    "balance": "weights",
}
RECIPES: Mapping[str, Recipe] = {
    "fast": Recipe(name="fast", **_FITTED, frozen_layers=-1, epochs=0, validation_share=0.0),
    "tuned": Recipe(
        name="tuned",
        **_FITTED,
        frozen_layers=2,
        epochs=3,
        head_learning_rate=1e-3,
        patience=1,
    ),
    "paper": Recipe(
        name="paper",
        pool="pooler",
        epochs=10,
        batch_size=8,
        learning_rate=5e-5,
        warmup_steps=500,
        schedule="cosine",
        keep="last",
        validation_share=0.2,
        rare_share=0.005,
    ),
}


def recipe(name: "str | Recipe" = "fast", **changes: Any) -> Recipe:
    """Look up a recipe by name, with some settings changed.

    Parameters
    ----------
    name
        "fast", "tuned" or "paper", or a :class:`Recipe`.
    **changes
        Fields of :class:`Recipe`.

    Returns
    -------
    The recipe.

    Raises
    ------
    InputError
        There is no such recipe or setting, or a value is out of range.

    Examples
    --------
    >>> from scmix.classifiers import recipe
    >>> recipe("paper", epochs=3).epochs
    3
    """
    known = [f.name for f in fields(Recipe) if f.name != "name"]
    for change in changes:
        if change not in known:
            close = get_close_matches(change, known, n=2)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise InputError(f"Found {change!r}, which is no setting of a recipe.{hint}")
    if isinstance(name, Recipe):
        return replace(name, **changes)
    if name not in RECIPES:
        raise InputError(f"Found recipe {name!r}; expected one of {', '.join(RECIPES)}.")
    return replace(RECIPES[name], **changes)
