"""`pp.map_genes`: the columns of an AnnData matched to the genes of a vocabulary."""

import os
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from .. import _slots
from .._errors import InputError
from .._gene_matching import GeneMatch, OnDuplicate
from .._gene_names import SeenNames
from .._opening import check_adata
from .._warn import warn
from .._writer import is_ours
from ..genes import SPECIES, Vocabulary
from ._match_adata import match_adata, names_of

if TYPE_CHECKING:
    from ..checkpoints import Model

_DOUBLET_SHARE = 0.1  # of a cell's counts in genes of the other species
_CONTRADICTED = 0.1  # of the matched genes, above which a column of ids is about other genes


def map_genes(
    adata: AnnData,
    *,
    model: "str | os.PathLike[str] | Model | Vocabulary | None" = None,
    species: str | None = None,
    species_key: str | None = None,
    gene_ids: str | None = None,
    on_duplicate: OnDuplicate = "error",
    overwrite: bool = False,
    copy: bool = False,
) -> AnnData | None:
    """Match the genes of `adata` to the tokens of a model.

    Takes symbols, aliases and Ensembl ids (with or without version) of human and mouse genes, and
    recognises which they are. Says in one line how many match; warns below 50 % and refuses below
    10 %, unless the columns hold most of the vocabulary beside other things. The other functions
    do the same on the fly: call this to look at the result.

    Parameters
    ----------
    adata
        Cells by genes.
    model
        Whose vocabulary to match to: a name or folder as in `scmix.models.load`, a `Vocabulary`,
        or None for the one that ships with scmix.
    species
        Species of all cells, `"human"` or `"mouse"`. Recognised from the genes by default.
    species_key
        Column of `.obs` with the species of each cell, needed when there are two.
    gene_ids
        Column of `.var` with the names of the genes. By default `.var_names`, or a column such as
        `ensembl_id`, `gene_ids` or `feature_id` where that matches more.
    on_duplicate
        Names that occur twice: `"error"`, or `"sum"` the columns.
    overwrite
        Replace columns of the same names that scmix did not write. A column `ensembl_id` that
        agrees with the match needs no such permission.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Sets:

        - `.var["ensembl_id"]`: Ensembl id of each gene. Where there is no match, what the column
          held before stays, else `""`.
        - `.var["scmix_token"]`: int32 token, -1 for a gene that the vocabulary lacks.
        - `.uns["scmix_genes"]["params"]`: options, species, vocabulary and coverage.

    Raises
    ------
    GeneIdError
        When names are not text or occur twice, or the genes are of another species, of two, or
        unknown.
    InputError
        When cells have no known species, `.var["ensembl_id"]` names other genes than those
        matched (more than 10 % of them), or scmix did not write what it would replace.

    Examples
    --------
    >>> import scmix
    >>> adata = scmix.datasets.pbmc3k()
    >>> scmix.pp.map_genes(adata)
    >>> adata.var.loc[["CD3E", "MS4A1"], "ensembl_id"].tolist()
    ['ENSG00000198851', 'ENSG00000156738']
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
    _warn_doublets(adata, found, codes, vocabulary)
    ids = found.ensembl_id.astype(object) if overwrite else _ids(adata, found, vocabulary)
    params = _slots.params(
        species=[SPECIES[code] for code in np.unique(codes)],
        species_key=species_key,
        gene_ids=gene_ids,
        on_duplicate=on_duplicate,
        gene_species=found.species,
        id_type=found.id_type,
        n_matched=found.n_matched,
        coverage=found.coverage,
        vocabulary_sha256=vocabulary.sha256,
        vocabulary_mode=vocabulary.mode,
    )
    updates = {
        ("var", "ensembl_id"): ids,
        ("var", "scmix_token"): found.tokens,
        ("uns", "scmix_genes"): {"params": params},
    }
    _slots.write(adata, updates, overwrite, replaceable=[("var", "ensembl_id")])
    return adata if copy else None


def _vocabulary(model: "str | os.PathLike[str] | Model | Vocabulary | None") -> Vocabulary:
    if model is None:
        return Vocabulary.bundled()
    if isinstance(model, Vocabulary):
        return model
    from ..models import vocabulary

    return vocabulary(model)


def _ids(adata: AnnData, found: GeneMatch, vocabulary: Vocabulary) -> np.ndarray:
    """Ids of the matched genes beside those that the others had; refuse ids of other genes."""
    if "ensembl_id" not in adata.var:
        return found.ensembl_id.astype(object)
    theirs, matched = names_of(adata, "ensembl_id"), found.tokens >= 0
    other = _names_another(theirs, found, vocabulary)
    if other.sum() <= _CONTRADICTED * matched.sum():
        return np.where(matched, found.ensembl_id, theirs.to_numpy(object)).astype(object)
    if is_ours(adata.uns.get("scmix_genes")):
        return found.ensembl_id.astype(object)
    first = int(np.argmax(other))
    raise InputError(
        f'var["ensembl_id"] exists already and names other genes for {other.sum():,} of '
        f"{matched.sum():,} matched columns (first: {theirs.iloc[first]!r}, matched: "
        f"{str(found.ensembl_id[first])!r}). Pass overwrite=True to replace it, or "
        "gene_ids='ensembl_id' to go by it."
    )


def _names_another(theirs: pd.Series, found: GeneMatch, vocabulary: Vocabulary) -> np.ndarray:
    """Which matched columns have an id, but not of their gene (any version, current or retired)."""
    seen = SeenNames.of(theirs, vocabulary)
    same = (seen.rows >= 0) & (vocabulary._ids[seen.rows] == found.ensembl_id)
    return (found.tokens >= 0) & (theirs != "").to_numpy() & ~same.any(axis=0)


def _warn_doublets(
    adata: AnnData, found: GeneMatch, codes: np.ndarray, vocabulary: Vocabulary
) -> None:
    """Count the cells of a two-species experiment that hold both species' transcripts."""
    if found.species != "both" or not isinstance(
        adata.X, np.ndarray | sp.csr_matrix | sp.csc_matrix
    ):
        return
    species = pd.Series(found.ensembl_id).map(vocabulary.genes.set_index("ensembl_id").species)
    columns = np.stack([(species == name).to_numpy(np.float32) for name in SPECIES], axis=1)
    counts = np.asarray(adata.X @ columns)
    other = counts[np.arange(len(codes)), 1 - codes]
    n = int((other > _DOUBLET_SHARE * counts.sum(axis=1)).sum())
    if n:
        warn(
            f"{n:,} cells have more than {_DOUBLET_SHARE:.0%} of their counts in genes of the "
            "other species: doublets, or a wrong species_key."
        )
