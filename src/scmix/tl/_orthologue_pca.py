"""The baseline between species: principal components of one-to-one orthologues."""

import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData

from .. import _slots
from .._errors import InputError
from .._gene_matching import OnDuplicate
from .._warn import warn
from ..genes import SPECIES, Vocabulary
from ..pp._match_adata import match_adata
from ._reading import check_target

_TARGET_SUM = 10_000.0


def orthologue_pca(
    adata: AnnData,
    *,
    n_comps: int = 50,
    n_top_genes: int = 2000,
    layer: str | None = None,
    species: str | None = None,
    species_key: str | None = None,
    gene_ids: str | None = None,
    on_duplicate: OnDuplicate = "error",
    allow_noninteger: bool = False,
    key_added: str = "X_pca_orthologues",
    seed: int = 0,
    overwrite: bool = False,
    copy: bool = False,
) -> AnnData | None:
    """Embed cells by PCA on one-to-one orthologues: what scmix has to be compared with.

    Columns of the same orthologue group are summed, counts are scaled to 10,000 per cell and
    log-transformed, highly variable genes are chosen (within species, when there are two), and
    principal components are taken by scanpy. With two species, only orthologues seen in both are
    used; with one, all genes that scmix knows. The matrix of these genes is held in memory.

    Parameters
    ----------
    adata
        Raw counts, cells by genes: in memory, a view, backed or dask.
    n_comps
        Number of components; fewer where there are not so many cells or genes.
    n_top_genes
        Number of highly variable genes; all genes where there are not more.
    layer
        Layer with the counts; `.X` by default.
    species, species_key, gene_ids, on_duplicate
        As in `scmix.pp.map_genes`.
    allow_noninteger
        Accept fractional counts.
    key_added
        Key of `obsm` and `uns`.
    seed
        Start of the iterative decomposition.
    overwrite
        Replace a key that scmix did not write.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    Nothing, or the copy, with:

    `obsm[key_added]` : float32, (n_obs, n_comps)
        The components. Cells without a count in the genes used have a row of NaN.
    `uns[key_added]` : dict
        `params`, `variance_ratio` of each component, `n_genes` used and `n_empty_cells`.

    Raises
    ------
    InputError
        If the values are no raw counts, or fewer than three cells or genes can be used.
    GeneIdError
        If too few genes are known, or the species is not clear.
    MissingKeyError
        If a layer or column does not exist.

    Examples
    --------
    >>> import scmix
    >>> adata = scmix.datasets.pancreas()
    >>> scmix.tl.orthologue_pca(adata, species_key="species")
    >>> adata.obsm["X_pca_orthologues"].shape
    (997, 50)
    """
    check_target(adata, "obsm", key_added, overwrite=overwrite, copy=copy)
    _check_sizes(n_comps, n_top_genes)
    vocabulary = Vocabulary.bundled()
    match, codes = match_adata(
        adata,
        vocabulary,
        species=species,
        species_key=species_key,
        gene_ids=gene_ids,
        on_duplicate=on_duplicate,
    )
    columns = _columns(match.tokens, vocabulary, np.unique(codes))
    blocks = _slots.iter_counts(adata, layer=layer, allow_noninteger=allow_noninteger)
    counts = sp.vstack([rows @ columns for _, rows in blocks], format="csr")
    genes = _normalised(counts, codes)
    components, variance_ratio = _pca(genes, n_comps, n_top_genes, seed)
    vectors = np.full((adata.n_obs, components.shape[1]), np.nan, dtype=np.float32)
    vectors[genes.obs["row"].to_numpy()] = components
    made = {
        "params": _slots.params(
            n_comps=n_comps,
            n_top_genes=n_top_genes,
            layer=layer,
            species_key=species_key,
            gene_ids=gene_ids,
            seed=seed,
            vocabulary_sha256=vocabulary.sha256,
        ),
        "variance_ratio": variance_ratio,
        "n_genes": genes.n_vars,
        "n_empty_cells": adata.n_obs - genes.n_obs,
    }
    if genes.n_obs < adata.n_obs:
        warn(
            f"{adata.n_obs - genes.n_obs:,} of {adata.n_obs:,} cells have no count in the genes "
            f'used; their rows of obsm["{key_added}"] are NaN.'
        )
    target = adata.copy() if copy else adata
    _slots.write(
        target, {("obsm", key_added): vectors, ("uns", key_added): made}, overwrite=overwrite
    )
    return target if copy else None


def _check_sizes(n_comps: int, n_top_genes: int) -> None:
    if n_comps < 1 or n_top_genes < 3:
        raise InputError(
            f"Found n_comps={n_comps} and n_top_genes={n_top_genes}; expected at least 1 and 3."
        )


def _columns(tokens: np.ndarray, vocabulary: Vocabulary, codes: np.ndarray) -> sp.csr_matrix:
    """Indicator (n_vars, n_genes): which columns add up to which gene of all species present."""
    common = vocabulary.species_of_token[codes].all(axis=0)
    usable = np.flatnonzero((tokens >= 0) & common[tokens])
    genes, column = np.unique(tokens[usable], return_inverse=True)
    return sp.csr_matrix(
        (np.ones(usable.size, dtype=np.float32), (usable, column)), (tokens.size, genes.size)
    )


def _normalised(counts: sp.csr_matrix, codes: np.ndarray) -> AnnData:
    """Log counts per 10,000 of the cells that have any, for genes seen in every species."""
    kinds = np.unique(codes)
    seen = np.all([counts[codes == code].getnnz(axis=0) > 0 for code in kinds], axis=0)
    counts = counts[:, np.flatnonzero(seen)]
    totals = np.asarray(counts.sum(axis=1)).ravel()
    rows = np.flatnonzero(totals > 0)
    if min(rows.size, counts.shape[1]) < 3:
        raise InputError(
            f"Found {rows.size} cells with counts in {counts.shape[1]} genes of all species; PCA "
            "needs at least three of each."
        )
    scaled = sp.diags_array(_TARGET_SUM / totals[rows]) @ counts[rows]
    names = np.array(SPECIES)[codes[rows]]
    obs = pd.DataFrame({"row": rows, "species": pd.Categorical(names)}, index=rows.astype(str))
    return AnnData(sp.csr_matrix(scaled.log1p().astype(np.float32)), obs=obs)


def _pca(
    genes: AnnData, n_comps: int, n_top_genes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    if n_top_genes < genes.n_vars:
        by = "species" if genes.obs["species"].nunique() > 1 else None
        sc.pp.highly_variable_genes(genes, n_top_genes=n_top_genes, batch_key=by)
        genes = genes[:, genes.var["highly_variable"].to_numpy()].copy()
    n_comps = min(n_comps, min(genes.shape) - 1)
    sc.pp.pca(genes, n_comps=n_comps, svd_solver="arpack", random_state=seed)
    return genes.obsm["X_pca"], np.asarray(genes.uns["pca"]["variance_ratio"], dtype=np.float64)
