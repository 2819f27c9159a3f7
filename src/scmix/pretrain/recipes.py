"""Recipes by name: what the papers did, and what scmix does."""

from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from .._errors import InputError
from ._recipe import Recipe

__all__ = ["RECIPES", "Recipe", "recipe"]

# BERT's base size, on genes as a bag: WCED and scFoundation.
_BASE: dict[str, Any] = {
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "positions": False,
}
# Small enough for two processor cores.
_MINI: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "intermediate_size": 256,
    "init": "coexpression",
    "max_length": 512,
    "length_multiple": 64,
    "tokens_per_step": 12_288,
    "steps": 1_000,
}
# Ten epochs of 50 million cells at 8 cells of 2,048 genes on each of 8 processes, and a warm-up of
# 10,000 steps.
_TEN_EPOCHS: dict[str, Any] = {"warmup": 0.00128, "steps": 7_812_500}
_ON_RANKS: dict[str, Any] = {
    "subset_share": (0.5, 0.5),
    "tokens_per_step": 131_072,
    "steps": 50_000,
}
_MASKED_VALUES: dict[str, Any] = {
    "objectives": {"masked_values": 1.0},
    "positions": False,
    "masker": "mam",
    "mask_share": 0.3,
    "learning_rate": 1e-4,
    "steps": 50_000,
}

RECIPES = {
    # The published settings (paper and its code): human and mouse genes have separate tokens and
    # there is no species token; the contrast reads the first token through BERT's pooler. Learning
    # rate, warm-up and decay are those of the code of the time of the paper.
    "mix-geneformer": Recipe(
        name="mix-geneformer",
        vocabulary="separate",
        objectives={"mlm": 1.0, "simcse": 1.0},
        attention_probs_dropout_prob=0.1,
        species_token_dropout=0.0,
        simcse_pool="first",
        **_TEN_EPOCHS,
    ),
    # One token for one-to-one orthologues, a species token, mean pooling, and the contrast between
    # a cell and its swapped self with gradient (in the released code it has none).
    "mix-geneformer-x": Recipe(
        name="mix-geneformer-x",
        objectives={"mlm": 1.0, "subset_contrast": 1.0, "xspecies": 0.3},
        **_TEN_EPOCHS,
    ),
    # As `mix-geneformer-x` without the swap: the contrast of random parts of a cell instead of
    # dropout, with the temperature and the batch (128 cells of 2,048 genes) that contrast needs.
    "subset-contrast": Recipe(
        name="subset-contrast",
        objectives={"mlm": 1.0, "subset_contrast": 1.0},
        subset_share=(0.5, 0.5),
        subset_contrast_temperature=0.1,
        tokens_per_step=262_144,
        warmup=0.00128,
        steps=488_000,
    ),
    # BMFM-RNA's whole-cell expression decoder, first version: genes and values, no ranks, at most
    # 1,024 genes visible; sizes, rate and batch as published (4 processes x 40 cells), 20 epochs of
    # about half a million cells. Published with a CLS token, which our vocabularies do not have
    # (mean pooling instead), and with some zeros among the visible genes.
    "wced": Recipe(
        name="wced",
        objectives={"wced": 1.0},
        **_BASE,
        value_input="mlp",
        part_masker="keep_k",
        keep_k=1024,
        wced_sets="split",
        tokens_per_step=40 * 1026,
        max_length=1028,
        learning_rate=1e-4,
        steps=62_500,
    ),
    # TxFM, the smallest published size: 2,048 visible genes with values scaled to 100,000, no
    # ranks, four residual blocks, all genes predicted; 200 epochs of 1.4 million cells in batches
    # of 1,536 (8 processes x 192). Published with a CLS token, layer norms before instead of after
    # each block, layer scale and stochastic depth, which our encoder does not have.
    "txfm": Recipe(
        name="txfm",
        objectives={"poisson": 1.0},
        num_hidden_layers=6,
        hidden_size=384,
        num_attention_heads=6,
        intermediate_size=1536,
        hidden_act="gelu",
        positions=False,
        value_input="mlp",
        value_total=1e5,
        part_masker="keep_k",
        keep_k=2048,
        tokens_per_step=192 * 2050,
        max_length=2052,
        learning_rate=1e-3,
        warmup=0.1,
        weight_decay=0.0054,
        steps=186_757,
    ),
    # Whole-cell decoders on top of ranks: the input is what every scmix model reads, so that
    # `tl.embed` takes the result; only the targets are counts. Ours, not published.
    "wced-rank": Recipe(
        name="wced-rank",
        objectives={"wced": 1.0},
        **_ON_RANKS,
    ),
    "poisson-rank": Recipe(
        name="poisson-rank",
        objectives={"poisson": 1.0},
        value_total=1e5,
        **_ON_RANKS,
    ),
    # scFoundation's 100M model: encoder on visible expressed genes, decoder of 6 layers, 30 % of
    # the expressed genes and 3 % of the zeros hidden, half of the cells thinned; batches of 1,024
    # cells. How long it was trained we do not know: with four passes over its 50 million cells the
    # published warm-up of 9,766 steps is 5 %. What differs is said in `ValueAutoencoder`.
    "scfoundation": Recipe(
        name="scfoundation",
        objectives={"value_autoencoder": 1.0},
        **_BASE,
        value_decoder_width=512,
        value_decoder_layers=6,
        value_decoder_heads=8,
        value_dropout=0.0,
        value_autoencoder_thinning=0.5,
        tokens_per_step=128 * 2048,
        accumulation=8,
        learning_rate=1e-4,
        warmup=0.05,
        weight_decay=0.0,
        steps=195_320,
    ),
    # GexBERT, as far as it is published: subsets of the measured genes, binned values, a part
    # restored by queries. The sizes are a reconstruction.
    "gexbert": Recipe(
        name="gexbert",
        objectives={"restore": 1.0},
        num_hidden_layers=6,
        positions=False,
        value_decoder_width=256,
        value_bins=64,
        value_dropout=0.0,
        tokens_per_step=65_536,
        learning_rate=1e-4,
        steps=100_000,
    ),
    # Both decoders on top of ranks and small enough for two processor cores: the encoder is one
    # that `tl.embed` reads, and `tl.impute` has a decoder. Ours, not published: zeros weigh what
    # makes predictions right on average.
    "value-mini": Recipe(
        name="value-mini",
        objectives={"value_autoencoder": 1.0},
        **_MINI,
        value_autoencoder_zero_weight=10.0,
    ),
    "restore-mini": Recipe(
        name="restore-mini",
        objectives={"restore": 1.0},
        **_MINI,
        restore_genes=(128, 512),
        restore_draw="detected",
        value_bins=64,
    ),
    # Multinomial attention masking: genes are told, their values hidden where learned attention
    # finds them hard. Published on scFoundation's encoder; here on ours. "mam-published" is the
    # released form (128 latents of 256), in which hidden values leak; see `maskers.mam`.
    "mam": Recipe(name="mam", **_MASKED_VALUES),
    "mam-published": Recipe(
        name="mam-published",
        mam_mode="published",
        mam_latents=128,
        mam_width=256,
        **_MASKED_VALUES,
    ),
    # The model that ships with scmix: the published objectives, small enough for two processor
    # cores and few cells, and started from the co-expression of genes.
    "scmix-mini": Recipe(
        name="scmix-mini",
        objectives={"mlm": 1.0, "simcse": 1.0},
        num_hidden_layers=4,
        init="coexpression_by_rank",
        max_length=1024,
        length_multiple=64,
        tokens_per_step=12_288,
        simcse_negatives="dataset",
        datasets_per_step=2,
        learning_rate=5e-5,
        weight_decay=0.01,
        steps=200,
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
