"""Expression of genes that a cell shows no count of, as a model with a value decoder expects it."""

from collections.abc import Sequence
from os import PathLike

import numpy as np
from anndata import AnnData

from .. import _slots, checkpoints
from .._device import choose
from .._errors import InputError
from .._gene_matching import OnDuplicate
from .._opening import opened
from .._warn import warn
from ..pp._match_adata import GeneOptions, match_adata
from ..settings import settings
from ._filling import Columns, Filler, decoder_of, gathered
from ._reading import check_target

_BLOCK_ENTRIES = 1 << 23  # cells times genes that are predicted at once: 32 MB
_OBSERVED = ("keep", "predict")


def impute(
    adata: AnnData,
    model: "str | PathLike | checkpoints.Model",
    *,
    genes: Sequence[str] | None = None,
    observed: str = "keep",
    min_value: float = 0.0,
    measured_key: str | None = None,
    depth: float = 1.0,
    layer: str | None = None,
    species: str | None = None,
    species_key: str | None = None,
    gene_ids: str | None = None,
    on_duplicate: OnDuplicate = "error",
    allow_noninteger: bool = False,
    key_added: str = "scmix_imputed",
    device: str | None = None,
    dtype: str = "auto",
    batch_tokens: int | None = None,
    overwrite: bool = False,
    copy: bool = False,
) -> AnnData | None:
    """Fill in the expression of genes without counts, by a model that has a value decoder.

    The layer holds ``log1p(10,000 x count / all counts of the cell)`` (the model's total, if it was
    trained with another) where something was measured, and the model's expectation on the same
    scale where it was not. `.X` is left alone. A cell's values do not depend on other cells.

    Imputed values are predictions: tests between groups of cells take them for measurements and
    find differences that are not there. Simple methods are hard to beat at this; see the guide for
    a comparison with smoothing over neighbours, ridge regression and low rank.

    What becomes of a value:

    ========================================  ===================================================
    gene and cell                             in the layer
    ========================================  ===================================================
    count above zero                          as measured; with `observed="predict"` the prediction
    zero, gene known to the model             the prediction; zero if it is below `min_value`
    gene not measured (see `measured_key`)    the prediction, in every cell
    gene unknown, or not among `genes`        as measured
    gene of the other species than the cell   as measured
    any gene of a cell without known counts   as measured
    ========================================  ===================================================

    Parameters
    ----------
    adata
        Raw counts, cells by genes: in memory, a view, backed or dask.
    model
        The folder of a checkpoint with a value decoder (trained with the objective
        `value_autoencoder` or `restore`), or a loaded model. The bundled model has none.
    genes
        Names of `var` to predict; all that the model knows when not given.
    observed
        `"keep"` counts as they were measured, or `"predict"` those genes as well.
    min_value
        Predictions below this become zero. Above 0, the layer is sparse.
    measured_key
        Column of `var` with False for genes that were not measured, such as those that a join with
        other data filled with zeros. Their zeros say nothing: they are not read and are predicted.
    depth
        How many times deeper than it is a cell is wanted; for models that were trained with
        thinned counts.
    layer
        Layer with the counts; `.X` by default.
    species, species_key, gene_ids, on_duplicate
        As in `scmix.pp.map_genes`. Columns that are summed get the same prediction.
    allow_noninteger
        Accept fractional counts, such as those corrected for ambient RNA.
    key_added
        Key of `layers` and `uns`.
    device, dtype, batch_tokens
        As in `scmix.tl.embed`.
    overwrite
        Replace a key that scmix did not write.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    Nothing, or the copy, with:

    `layers[key_added]` : float32, (n_obs, n_vars)
        Dense, or CSR with `min_value` above 0.
    `uns[key_added]` : dict
        `params` (scmix version, model, the sha256 of its encoder and decoder, options),
        `coverage` (share of the columns that are genes of the model), `n_genes_predicted`, and
        `n_empty_cells` (cells without a count of a known gene).

    Raises
    ------
    InputError
        If the model has no value decoder, an option does not exist, or the values are no counts.
    GeneIdError
        If too few genes are known, or the species is not clear.
    MissingKeyError
        If a layer, column or gene does not exist.

    Examples
    --------
    A model with a decoder that was never trained, to see where the values go:

    >>> import scmix
    >>> from scmix.decoders import Settings, ValueDecoder
    >>> from dataclasses import replace
    >>> model = scmix.models.untrained()
    >>> decoder = ValueDecoder(Settings("value_autoencoder"), model.config)
    >>> model = replace(model, decoder=decoder.eval())
    >>> adata = scmix.datasets.pbmc3k()[:5].copy()
    >>> scmix.tl.impute(adata, model, genes=["CD3E", "MS4A1"])
    >>> adata.layers["scmix_imputed"].shape == adata.shape
    True
    """
    _check_options(observed, min_value)
    cells, cells_layer = opened(adata, layer)
    _check_same_genes(cells, adata)
    loaded = checkpoints.load(model)
    decoder = decoder_of(loaded)
    check_target(adata, "layers", key_added, overwrite=overwrite, copy=copy)
    options = GeneOptions(
        species=species, species_key=species_key, gene_ids=gene_ids, on_duplicate=on_duplicate
    )
    match, codes = match_adata(cells, loaded.vocabulary, **options)
    columns = Columns.of(cells, match, loaded.vocabulary, genes, measured_key)
    on = settings.device if device is None else device
    run = {"depth": depth, "device": on, "dtype": dtype, "batch_tokens": batch_tokens}
    filler = Filler(loaded, columns, codes, observed == "keep", min_value, run)
    blocks = _slots.iter_counts(
        cells,
        layer=cells_layer,
        allow_noninteger=allow_noninteger,
        block_cells=max(_BLOCK_ENTRIES // max(adata.n_vars, 1), 1),
    )
    values = gathered(filler.fill(blocks), adata.shape, sparse=min_value > 0)
    _warn_empty(filler.n_empty, adata.n_obs, key_added)
    used_device, used_dtype = choose(on, dtype)
    made = {
        "params": _slots.params(
            model=loaded.name,
            model_sha256=loaded.sha256,
            decoder_sha256=_decoder_sha256(loaded),
            kind=decoder.settings.kind,
            total=decoder.settings.total,
            observed=observed,
            min_value=min_value,
            measured_key=measured_key,
            depth=depth,
            layer=layer,
            allow_noninteger=allow_noninteger,
            device=used_device.type,
            dtype=str(used_dtype).removeprefix("torch."),
            **options,
        ),
        "coverage": match.coverage,
        "n_genes_predicted": int(columns.wanted.sum()),
        "n_empty_cells": filler.n_empty,
    }
    target = adata.copy() if copy else adata
    _slots.write(
        target, {("layers", key_added): values, ("uns", key_added): made}, overwrite=overwrite
    )
    return target if copy else None


def _warn_empty(n_empty: int, n_cells: int, key: str) -> None:
    if n_empty:
        warn(
            f"{n_empty:,} of {n_cells:,} cells have no count of a gene that the model knows; their "
            f'rows of layers["{key}"] are as measured.'
        )


def _decoder_sha256(model: checkpoints.Model) -> str | None:
    files = model.manifest.get("files", {})
    return files.get("decoder.safetensors", {}).get("sha256")


def _check_options(observed: str, min_value: float) -> None:
    if observed not in _OBSERVED:
        raise InputError(f"Found observed={observed!r}; expected 'keep' or 'predict'.")
    if not 0 <= min_value < np.inf:
        raise InputError(f"Found min_value={min_value}; expected a number that is not negative.")


def _check_same_genes(cells: AnnData, adata: AnnData) -> None:
    if cells.n_vars != adata.n_vars or not cells.var_names.equals(adata.var_names):
        raise InputError(
            'Found layer="raw" with other genes than adata has; a layer must have the same. Pass '
            "adata.raw.to_adata()."
        )
