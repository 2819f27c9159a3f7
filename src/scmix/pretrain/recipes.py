"""Recipes: named sets of pretraining settings, each saved with the checkpoint it made."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from .._errors import InputError

_CHOICES = {
    "vocabulary": ("shared", "separate"),
    "simcse_views": ("dropout", "subset"),
    "simcse_pool": ("mean", "discounted", "first"),
    "simcse_negatives": ("all", "species", "dataset"),
    "precision": ("bf16", "fp32"),
    "init": ("random", "coexpression"),
}
_OBJECTIVES = ("mlm", "simcse", "xspecies")


@dataclass(frozen=True)
class Recipe:
    """All settings of a pretraining run.

    Examples
    --------
    >>> from scmix.pretrain import recipe
    >>> recipe("mix-geneformer", steps=1000).num_hidden_layers
    6
    """

    name: str
    # Which mode of the vocabulary the corpus must have been built with.
    vocabulary: str = "shared"
    # Objectives and their weights in the loss. Each distinct view costs one pass of the encoder.
    objectives: Mapping[str, float] = field(default_factory=lambda: {"mlm": 1.0})

    # Encoder, named as in `scmix.encoder.Config`.
    num_hidden_layers: int = 6
    hidden_size: int = 256
    num_attention_heads: int = 4
    intermediate_size: int = 512
    hidden_act: str = "silu"
    hidden_dropout_prob: float = 0.1
    # Above 0 it costs dearly on CPU: attention leaves its fast kernel.
    attention_probs_dropout_prob: float = 0.0
    initializer_range: float = 0.02
    # "coexpression": word embeddings start from the co-occurrence of genes (see `initialise`).
    init: str = "random"

    # Tokens of a cell in training, special tokens included, and most positions of the model.
    max_length: int = 2048
    # Views longer than this are cut to a multiple of it. On CPU cells of equal length attend in one
    # call, so few different lengths make steps fast; on GPU 1 is as good.
    length_multiple: int = 1
    # Tokens of one view in one batch of one process, as nearly as whole cells allow.
    tokens_per_step: int = 16384
    # Data sets that the cells of a step come from, species in turn; 0: all. Cells of one data set
    # are harder to tell apart by contrast, and only by biology.
    datasets_per_step: int = 0
    # Chance that a cell goes without its species token, so that the model can do without.
    species_token_dropout: float = 0.15

    # Masked language model: share of genes to predict, and how these are shown.
    mask_share: float = 0.15
    mask_masked: float = 0.8
    mask_replaced: float = 0.1

    # SimCSE: "dropout" reads the same masked tokens twice; "subset" reads two random parts of the
    # cell's genes, of which the second has nothing masked.
    simcse_views: str = "dropout"
    # "discounted": genes weigh less the lower they rank; then also the default of `tl.embed`.
    simcse_pool: str = "mean"
    simcse_temperature: float = 0.05
    # Which other cells of the batch a cell is told apart from. "dataset" and "species" give no
    # reward for telling data sets or species apart.
    simcse_negatives: str = "all"
    # Share of a cell's genes in a part, drawn for each cell between these two.
    subset_share: tuple[float, float] = (0.3, 1.0)
    # Chance that the second part is written in the other species' genes (one-to-one orthologues).
    subset_swapped: float = 0.0

    # Orthologue swap: contrast of a cell with itself written in the other species' genes.
    xspecies_temperature: float = 0.1

    # Optimisation: AdamW, cosine schedule to zero.
    learning_rate: float = 1e-3
    # Share of the steps in which the learning rate rises.
    warmup: float = 0.05
    weight_decay: float = 0.001
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0
    steps: int = 10_000
    # Batches whose gradients are summed for one step.
    accumulation: int = 1
    # "bf16" computes products in bfloat16 (weights stay float32); "fp32" everything in float32.
    precision: str = "bf16"
    seed: int = 0

    def __post_init__(self) -> None:
        # JSON has no tuples; a recipe read back must equal the one written.
        object.__setattr__(self, "subset_share", tuple(self.subset_share))
        object.__setattr__(self, "objectives", dict(self.objectives))
        _check(self)

    @property
    def config(self) -> dict[str, Any]:
        """Fields of the encoder's configuration, all but the size of the vocabulary."""
        names = (
            "num_hidden_layers",
            "hidden_size",
            "num_attention_heads",
            "intermediate_size",
            "hidden_act",
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "initializer_range",
        )
        values = {name: getattr(self, name) for name in names}
        return {**values, "max_position_embeddings": self.max_length}

    def to_dict(self) -> dict[str, Any]:
        """Every setting, as JSON can hold it."""
        return {**asdict(self), "subset_share": list(self.subset_share)}


def _check(settings: Recipe) -> None:
    for name, choices in _CHOICES.items():
        if getattr(settings, name) not in choices:
            raise InputError(
                f"Found {name}={getattr(settings, name)!r}, expected one of {', '.join(choices)}."
            )
    unknown = set(settings.objectives) - set(_OBJECTIVES)
    if unknown or not settings.objectives:
        raise InputError(
            f"Found objectives {sorted(settings.objectives)}, expected some of "
            f"{', '.join(_OBJECTIVES)}."
        )
    low, high = settings.subset_share
    ranges = {
        "max_length": 4 <= settings.max_length <= settings.tokens_per_step,
        "length_multiple": settings.length_multiple >= 1,
        "steps": settings.steps >= 1,
        "accumulation": settings.accumulation >= 1,
        "warmup": 0 <= settings.warmup < 1,
        "datasets_per_step": settings.datasets_per_step >= 0,
        "subset_share": 0 < low <= high <= 1,
        "subset_swapped": 0 <= settings.subset_swapped <= 1,
        "species_token_dropout": 0 <= settings.species_token_dropout <= 1,
        "learning_rate": settings.learning_rate > 0,
        "simcse_temperature": settings.simcse_temperature > 0,
        "xspecies_temperature": settings.xspecies_temperature > 0,
        "seed": settings.seed >= 0,
    }
    for name, fits in ranges.items():
        if not fits:
            raise InputError(
                f"Found {name}={getattr(settings, name)!r}, which is out of range "
                "(max_length must be at least 4 and at most tokens_per_step)."
            )


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
        objectives={"mlm": 1.0, "simcse": 1.0, "xspecies": 0.3},
        simcse_views="subset",
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
