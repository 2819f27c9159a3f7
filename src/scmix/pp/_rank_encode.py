"""`pp.rank_encode`: counts to ranks, kept as a layer."""

import os
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from .. import _slots
from .._errors import InputError
from .._gene_matching import OnDuplicate
from .._opening import check_adata
from .._warn import warn
from ..genes import SPECIES, GeneMatch, Vocabulary
from ..ranks import n_threads, ranks_to_layer
from ..ranks import rank_encode as rank_counts
from ._map_genes import _vocabulary
from ._match_adata import match_adata

if TYPE_CHECKING:
    from ..checkpoints import Model


def rank_encode(
    adata: AnnData,
    *,
    model: "str | os.PathLike[str] | Model | Vocabulary | None" = None,
    layer: str | None = None,
    species: str | None = None,
    species_key: str | None = None,
    gene_ids: str | None = None,
    on_duplicate: OnDuplicate = "error",
    allow_noninteger: bool = False,
    n_genes: int = 2048,
    key_added: str = "rank",
    overwrite: bool = False,
    copy: bool = False,
) -> AnnData | None:
    """Rank the genes of each cell by `count / median(gene)`, the most distinctive first.

    The median is that of the gene's counts above zero, over many cells of the species. Equal
    scores stand in the order of their tokens, and library size has no influence. This is the
    order in which a model reads a cell (Theodoris et al., Nature 2023). Functions of `scmix.tl`
    rank on the fly: call this to look at ranks, or to use them several times.

    Parameters
    ----------
    adata
        Cells by genes, with raw counts; in memory, a view, backed or dask.
    model
        Whose vocabulary and medians to use: a name or folder as in `scmix.models.load`, a
        `Vocabulary`, or None for the one that ships with scmix.
    layer
        Layer with the counts; `.X` by default, or `layers["counts"]` when `.X` is None.
    species, species_key, gene_ids, on_duplicate
        As in :func:`scmix.pp.map_genes`.
    allow_noninteger
        Accept fractional values, such as counts corrected for ambient RNA or scaled to library
        size.
    n_genes
        How many genes to keep of a cell, at most 65,535.
    key_added
        Key of the results.
    overwrite
        Replace results of the same key that scmix did not write.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Sets:

        - `.layers[key_added]`: CSR uint16, 1 for the cell's most distinctive gene, 0 for genes
          that are not among the first `n_genes`. Of columns that were summed, the first with a
          count carries the rank.
        - `.uns[key_added]["params"]`: options, species, vocabulary and coverage.
        - `.var["scmix_token"]`, and `.var["ensembl_id"]` where there is none: as
          :func:`scmix.pp.map_genes`.

    Raises
    ------
    InputError
        When the values are no raw counts, no cell has a count of a known gene, or a key is taken.
    GeneIdError
        When the genes cannot be matched.

    Warns
    -----
    UserWarning
        When cells have no count of a known gene; their ranks are empty.

    Examples
    --------
    >>> import scmix
    >>> adata = scmix.datasets.pbmc3k()
    >>> scmix.pp.rank_encode(adata, n_genes=512)
    >>> adata.layers["rank"].dtype, int(adata.layers["rank"].max())
    (dtype('uint16'), 512)
    """
    check_adata(adata)
    adata = adata.copy() if copy else adata
    vocabulary = _vocabulary(model)
    found, codes = match_adata(
        adata,
        vocabulary,
        species=species,
        species_key=species_key,
        gene_ids=gene_ids,
        on_duplicate=on_duplicate,
    )
    ranks = _ranks(adata, vocabulary, found, codes, layer, allow_noninteger, n_genes)
    params = _slots.params(
        layer=layer,
        allow_noninteger=allow_noninteger,
        n_genes=n_genes,
        species=[SPECIES[code] for code in np.unique(codes)],
        species_key=species_key,
        gene_ids=gene_ids,
        on_duplicate=on_duplicate,
        coverage=found.coverage,
        vocabulary_sha256=vocabulary.sha256,
        vocabulary_mode=vocabulary.mode,
    )
    updates = {
        ("layers", key_added): ranks,
        ("var", "scmix_token"): found.tokens,
        ("uns", key_added): {"params": params},
    }
    if "ensembl_id" not in adata.var:
        updates["var", "ensembl_id"] = found.ensembl_id.astype(object)
    _slots.write(adata, updates, overwrite)
    return adata if copy else None


def _ranks(
    adata: AnnData,
    vocabulary: Vocabulary,
    found: GeneMatch,
    codes: np.ndarray,
    layer: str | None,
    allow_noninteger: bool,
    n_genes: int,
) -> sp.csr_matrix:
    def rank(start: int, counts: sp.csr_matrix) -> sp.csr_matrix:
        species = codes[start : start + counts.shape[0]]
        cells = rank_counts(counts, found.tokens, vocabulary.medians, species, n_genes=n_genes)
        return ranks_to_layer(cells, found.tokens, counts)

    parts = _slots.map_counts(
        adata, rank, layer=layer, allow_noninteger=allow_noninteger, n_threads=n_threads()
    )
    ranks = sp.csr_matrix(sp.vstack(list(parts), format="csr"))
    n_empty = int((np.diff(ranks.indptr) == 0).sum())
    if n_empty == adata.n_obs:
        raise InputError(_slots.NO_KNOWN_GENE)
    if n_empty:
        warn(
            f"{n_empty:,} of {adata.n_obs:,} cells have no count of a known gene: their ranks are "
            "empty, and their embeddings will be NaN."
        )
    return ranks
