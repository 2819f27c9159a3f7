"""The settings of a pretraining run, saved with the checkpoint it made."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ._recipe_checks import OBJECTIVES, check, views_of

_PAIRS = ("subset_share", "restore_genes", "restore_share")


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
    # "coexpression": word embeddings start from the co-occurrence of genes; "coexpression_by_rank":
    # and position embeddings so that a gene weighs less in the mean over a cell the lower it ranks
    # (see `initialise`).
    init: str = "random"

    # Whether ranks enter as positions; False: a cell is a bag of genes (and values).
    positions: bool = True
    # What of the counts the encoder reads beside genes and ranks: "none", or "mlp": a small network
    # of log1p(value_total * count / total of the cell).
    value_input: str = "none"
    # Counts are scaled to this total before the logarithm, in inputs and targets.
    value_total: float = 1e4

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

    # How genes are hidden in place: "mlm": the published 15 % of a batch, as `mask_*` say;
    # "uniform": `mask_share` of each cell, all shown as <mask>; "mam": as many, chosen by learned
    # attention (see `maskers.mam`): "adversarial", what is hard to predict, or as "published".
    masker: str = "mlm"
    mam_mode: str = "adversarial"
    mam_latents: int = 32
    mam_width: int = 64

    # Masked language model: share of genes to predict, and how these are shown.
    mask_share: float = 0.15
    mask_masked: float = 0.8
    mask_replaced: float = 0.1

    # Which genes of the view "part" are visible, where an objective predicts a cell from a part of
    # it: "subset": a share in `subset_share`; "keep_k": `keep_k` genes; "uniform": all but
    # `mask_share`; "nonzero_zero": all but `hide_nonzero`, and `hide_zero` of the zeros are to be
    # predicted too.
    part_masker: str = "subset"
    keep_k: int = 2045
    hide_nonzero: float = 0.3
    hide_zero: float = 0.03
    # Share of a cell's genes in a part, drawn for each cell between these two.
    subset_share: tuple[float, float] = (0.3, 1.0)

    # SimCSE: contrast of the same masked tokens, read twice with different dropout.
    simcse_pool: str = "mean"
    simcse_temperature: float = 0.05
    # Which other cells of the batch a cell is told apart from. "dataset" and "species" give no
    # reward for telling data sets or species apart.
    simcse_negatives: str = "all"

    # Contrast of two random parts of a cell's genes, of which the second has nothing masked.
    subset_contrast_temperature: float = 0.05
    subset_contrast_negatives: str = "all"
    # Chance that the second part is written in the other species' genes (one-to-one orthologues).
    subset_swapped: float = 0.0

    # Orthologue swap: contrast of a cell with itself written in the other species' genes.
    xspecies_temperature: float = 0.1

    # Whole-cell expression decoder: pooled vector of the visible genes, and over which sets of
    # genes errors are averaged: "all", or "split": the visible ones and the others, added.
    wced_pool: str = "mean"
    wced_sets: str = "all"

    # Poisson masked autoencoder: pooled vector, and residual blocks between it and the genes.
    poisson_pool: str = "mean"
    poisson_layers: int = 4

    # Decoder of the objectives "value_autoencoder" and "restore", and bins of their values.
    value_decoder_width: int = 64
    value_decoder_layers: int = 2
    value_decoder_heads: int = 4
    value_bins: int = 100
    # Chance that a cell goes without its values, so that the encoder, as `tl.embed` runs it, can do
    # without; published: 0.
    value_dropout: float = 0.15

    # Value autoencoder: weight of a zero (published: 1; hide_nonzero / hide_zero makes predictions
    # right on average over all genes), most genes of a cell that are asked for, and share of cells
    # whose counts are thinned (scFoundation: 0.5).
    value_autoencoder_zero_weight: float = 1.0
    value_autoencoder_targets: int = 1024
    value_autoencoder_thinning: float = 0.0

    # Restoring: number of genes drawn of a cell and share of these that is hidden, each between
    # two; and drawn from all genes "measured" (published), or those "detected" in the batch.
    restore_genes: tuple[int, int] = (256, 1024)
    restore_share: tuple[float, float] = (0.15, 0.5)
    restore_draw: str = "measured"

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
        for name in _PAIRS:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "objectives", dict(self.objectives))
        check(self)

    @property
    def views(self) -> tuple[str, ...]:
        """Views that the objectives read, each once."""
        return views_of(self.objectives)

    @property
    def needs(self) -> frozenset[str]:
        """What the corpus must hold beside tokens: {"values"} or nothing."""
        reads = self.value_input != "none" or (self.masker, self.mam_mode) == ("mam", "published")
        needs = frozenset({"values"}) if reads else frozenset()
        return needs.union(*(OBJECTIVES[name].needs for name in self.objectives))

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
        return {**asdict(self), **{name: list(getattr(self, name)) for name in _PAIRS}}
