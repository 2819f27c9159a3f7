"""From raw counts to a vector per cell."""

from os import PathLike

import numpy as np
from anndata import AnnData

from .. import _slots, checkpoints
from .._errors import InputError
from .._gene_matching import OnDuplicate
from .._opening import opened
from .._warn import warn
from ..pp._match_adata import GeneOptions, match_adata
from ._embedding import embedded
from ._reading import Reader, check_target, layer_read

FEW_GENES = 10


def embed(
    adata: AnnData,
    model: "str | PathLike | checkpoints.Model" = "scmix-mini",
    *,
    layer: str | None = None,
    species: str | None = None,
    species_key: str | None = None,
    gene_ids: str | None = None,
    on_duplicate: OnDuplicate = "error",
    allow_noninteger: bool = False,
    pool: str = "mean",
    hidden_layer: int | None = None,
    n_genes: int | None = None,
    key_added: str = "X_scmix",
    device: str | None = None,
    dtype: str = "auto",
    batch_tokens: int | None = None,
    overwrite: bool = False,
    copy: bool = False,
) -> AnnData | None:
    """Embed cells with a pretrained encoder, from raw counts.

    Genes are matched to the model's vocabulary, ranked within each cell (counts are not needed
    in any normalised form), and read by the encoder; the hidden states of a cell's genes are
    averaged. A cell's vector does not depend on the other cells. Counts are read in blocks of
    cells, so memory grows with the result only.

    Under `torchrun` or `accelerate launch` each process embeds its share of the cells, and all get
    the vectors of all. With a client of `dask.distributed`, a dask array is embedded on the
    workers.

    Hidden layers are counted as a Python index into the hidden states. Other packages count
    differently:

    =========================  ==================  ======================  ====================
    hidden state               `hidden_layer`      Geneformer `emb_layer`  helical `emb_layer`
    =========================  ==================  ======================  ====================
    after the last layer       -1 (or n_layers)    0                       -1
    after the second to last   -2                  -1                      -2
    token embeddings           0                   (not offered)           0
    =========================  ==================  ======================  ====================

    Parameters
    ----------
    adata
        Raw counts, cells by genes: in memory, a view, backed, opened lazily or dask.
    model
        A name of `scmix.models.list()`, the folder of a checkpoint, or a loaded model.
    layer
        Layer with the counts; `.X` by default. `"raw"`: counts and genes of `adata.raw`, where no
        layer has that name.
    species
        `"human"` or `"mouse"`; recognised by the gene names when not given.
    species_key
        Column of `obs` that names each cell's species, needed when there are two.
    gene_ids
        Column of `var` with Ensembl ids or symbols; recognised when not given.
    on_duplicate
        `"error"`, or `"sum"` for genes that occur in several columns.
    allow_noninteger
        Accept fractional counts, such as those corrected for ambient RNA.
    pool
        `"mean"` over the cell's genes; `"first"`: the gene of highest rank; `"cls"`, where the
        vocabulary has one; `"pooler"`, where the model has one.
    hidden_layer
        Which hidden state is pooled, see above. Layers behind it are not run. When not given: the
        second to last, as is Geneformer's default, because the last is busy with predicting
        genes; for the pooler the last, which it was trained on.
    n_genes
        Most genes of a cell that are read, the most distinctive first. As many as the model has
        positions when not given.
    key_added
        Key of `obsm` and `uns`.
    device
        `"auto"`, `"cpu"`, `"cuda"`, ...; `scmix.settings.device` when not given.
    dtype
        `"auto"` (bfloat16 where the processor is fast at it), `"float32"` or `"bfloat16"`.
    batch_tokens
        Most tokens in a batch; chosen by the device when not given. Halved when memory runs out.
    overwrite
        Replace a key that scmix did not write.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    Nothing, or the copy, with:

    `obsm[key_added]` : float32, (n_obs, hidden_size)
        The vectors. Cells without a gene of the vocabulary have a row of NaN.
    `uns[key_added]` : dict
        `params` (scmix version, model and its sha256, options), `coverage` (share of the columns
        that are genes of the model), `n_genes_matched` (their number), `n_empty_cells`, and
        `few_genes` (names of the cells with 1 to 9 genes, whose vectors say little).

    Raises
    ------
    InputError
        If the values are no raw counts, an option does not exist, or no cell has a known gene.
    GeneIdError
        If too few genes are known, or the species is not clear.
    MissingKeyError
        If a layer or column does not exist.
    ResourceError
        If not even one cell fits into memory, or another process of the run failed.

    Examples
    --------
    >>> import scmix
    >>> adata = scmix.datasets.pancreas()[::250].copy()
    >>> scmix.tl.embed(adata, species_key="species")
    >>> adata.obsm["X_scmix"].shape[0]
    4
    """
    if pool == "tokens":
        raise InputError(
            "Found pool='tokens', which gives a vector per token; expected 'mean', 'first', "
            "'cls' or 'pooler'. For genes there is scmix.tl.gene_embeddings."
        )
    cells, cells_layer = opened(adata, layer)
    loaded = checkpoints.load(model)
    check_target(adata, "obsm", key_added, overwrite=overwrite, copy=copy)
    hidden_layer = layer_read(loaded, pool, hidden_layer)
    reader = Reader(loaded, pool, hidden_layer, n_genes, device, dtype, batch_tokens)
    genes = GeneOptions(
        species=species, species_key=species_key, gene_ids=gene_ids, on_duplicate=on_duplicate
    )
    match = match_adata(cells, loaded.vocabulary, **genes)
    found = embedded(
        cells, reader, match, layer=cells_layer, allow_noninteger=allow_noninteger, **genes
    )
    vectors, n_read = found.vectors, found.n_read
    n_empty = int(np.isnan(vectors[:, 0]).sum())
    if n_empty:
        warn(
            f"{n_empty:,} of {adata.n_obs:,} cells have no count of a gene that the model knows; "
            f'their rows of obsm["{key_added}"] are NaN.'
        )
    few = (n_read > 0) & (n_read < FEW_GENES) & (reader.n_genes >= FEW_GENES)
    if few.any():
        warn(
            f"{few.sum():,} of {adata.n_obs:,} cells have fewer than {FEW_GENES} genes that the "
            f'model knows; their vectors say little. uns["{key_added}"]["few_genes"] names them.'
        )
    target = adata.copy() if copy else adata
    made = {
        "params": reader.params(layer=layer, allow_noninteger=allow_noninteger, **genes),
        "coverage": match[0].coverage,
        "n_genes_matched": match[0].n_matched,
        "n_empty_cells": n_empty,
        "few_genes": adata.obs_names[few].to_numpy(dtype=str),
    }
    _slots.write(
        target, {("obsm", key_added): vectors, ("uns", key_added): made}, overwrite=overwrite
    )
    return target if copy else None
