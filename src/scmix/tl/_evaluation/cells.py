"""The labelled cells of an AnnData, checked and in memory."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from ... import _slots
from ..._errors import InputError, MissingKeyError
from ..._gene_matching import GeneMatch
from ..._warn import warn
from ...classifiers._labels import encode
from ...genes import Vocabulary
from ...pp._match_adata import _missing, match_adata
from .._orthologue_pca import _columns
from .features import log_normalise


@dataclass(frozen=True, eq=False)
class Cells:
    """Labelled cells. Their labels are in `codes` and nowhere else.

    Parameters
    ----------
    adata
        Their raw counts and gene names; `obs` has the columns of groups and species only.
    rows
        Their rows in the object that the user passed.
    names
        Classes, in the order of the categories.
    codes
        Class of each cell.
    groups
        Donor of each cell as a code; None when not known.
    species
        Species code of each cell.
    match
        Gene of every column.
    left_out
        Number of cells of each type that has too few of them.
    """

    adata: AnnData
    rows: NDArray[np.intp]
    names: NDArray[np.str_]
    codes: NDArray[np.intp]
    groups: NDArray[np.intp] | None
    species: NDArray[np.int8]
    match: GeneMatch
    left_out: dict[str, int]

    @property
    def two_species(self) -> bool:
        """Whether there are cells of both species."""
        return len(np.unique(self.species)) == 2

    @cached_property
    def expression(self) -> AnnData:
        """Raw counts of genes that all cells have: orthologues where there are two species."""
        if not self.two_species:
            genes = AnnData(self.adata.X, var=pd.DataFrame(index=self.adata.var_names))
            genes.var_names_make_unique()
            return genes
        vocabulary = Vocabulary.bundled()
        columns = _columns(self.match.tokens, vocabulary, np.unique(self.species))
        tokens = np.sort(np.unique(self.match.tokens[np.diff(columns.indptr) > 0]))
        names = pd.DataFrame(index=np.asarray(vocabulary.token_names())[tokens])
        return AnnData(sp.csr_matrix(self.adata.X @ columns), var=names)

    @cached_property
    def logged(self) -> sp.csr_matrix:
        """Log of 1 + counts per 10,000 of the same genes."""
        return log_normalise(self.expression.X)


def read_cells(
    adata: AnnData,
    label_key: str,
    *,
    groups: str | None,
    layer: str | None,
    allow_noninteger: bool,
    fewest: int,
    **genes: Any,
) -> Cells:
    """Take the labelled cells of all types with at least `fewest` cells, in each species.

    Parameters
    ----------
    adata
        Raw counts, cells by genes.
    label_key, groups
        Columns of `obs`.
    layer, allow_noninteger
        As in `scmix.tl.embed`.
    fewest
        Types with fewer cells are left out, which is said.
    **genes
        `species`, `species_key`, `gene_ids` and `on_duplicate` as in `scmix.pp.map_genes`.
    """
    codes, names = _labels(adata, label_key)
    donors = None if groups is None else _groups(adata, groups, label_key)
    match, species = match_adata(adata, Vocabulary.bundled(), **genes)
    large, left_out = _large_types(codes, names, species, fewest)
    rows = np.flatnonzero((codes >= 0) & large[codes])
    if not adata.obs_names.is_unique:
        warn(
            "Names of cells are not unique. If there are copies of cells, they lie on both sides "
            "of a split and every score is too good; remove them."
        )
    kept = [name for name in (groups, genes.get("species_key")) if name is not None]
    obs = adata.obs[kept].iloc[rows].copy()
    counts = _counts(adata, rows, layer, allow_noninteger)
    return Cells(
        adata=AnnData(counts, obs=obs, var=adata.var.copy()),
        rows=rows,
        names=names[large],
        codes=(np.cumsum(large) - 1)[codes[rows]],
        groups=None if donors is None else np.unique(donors[rows], return_inverse=True)[1],
        species=species[rows],
        match=match,
        left_out=left_out,
    )


def _labels(adata: AnnData, label_key: str) -> tuple[NDArray[np.int32], NDArray[np.str_]]:
    """Class of each cell, -1 for none, and the names of the classes."""
    if label_key not in adata.obs:
        raise MissingKeyError(_missing(label_key, adata.obs, "obs", []))
    labels = encode({label_key: adata.obs[label_key]})
    codes = labels.codes[:, 0]
    n_missing = int((codes < 0).sum())
    if n_missing:
        warn(
            f'{n_missing:,} of {adata.n_obs:,} cells have no label in obs["{label_key}"] and are '
            "left out."
        )
    return codes, labels.classes[label_key]


def _groups(adata: AnnData, groups: str, label_key: str) -> NDArray[np.str_] | None:
    """Donor of each cell; None where there is one donor only."""
    if groups not in adata.obs:
        raise MissingKeyError(_missing(groups, adata.obs, "obs", []))
    if groups == label_key:
        raise InputError(f"Found groups={groups!r}, the labels themselves; expected donors.")
    values = adata.obs[groups]
    if values.isna().any():
        raise InputError(
            f'{int(values.isna().sum()):,} cells have no value in obs["{groups}"]; expected a '
            "donor or batch for each. Remove these cells or fill in the column."
        )
    names = values.astype(str).to_numpy(dtype=str)
    if len(np.unique(names)) > 1:
        return names
    warn(
        f'obs["{groups}"] has one value only: cells are split at random, and scores do not say '
        "what to expect of another donor."
    )
    return None


def _large_types(
    codes: NDArray[np.int32], names: NDArray[np.str_], species: NDArray[np.int8], fewest: int
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Whether each type has enough cells in every species, and cells of those that do not."""
    kinds = np.unique(species[codes >= 0])
    sizes = np.array(
        [np.bincount(codes[(species == s) & (codes >= 0)], minlength=names.size) for s in kinds]
    )
    large = sizes.min(axis=0) >= fewest
    left_out = dict(zip(names[~large].tolist(), sizes[:, ~large].sum(axis=0).tolist(), strict=True))
    two = len(kinds) > 1
    if large.sum() < 2:
        raise InputError(
            f"Found {large.sum()} types with at least {fewest} cells"
            f"{' in each species' if two else ''}; expected two or more. Pass a smaller n_splits, "
            "or merge types."
        )
    if left_out:
        shown = ", ".join(list(left_out)[:5]) + (", ..." if len(left_out) > 5 else "")
        warn(
            f"{len(left_out)} of {names.size} types have fewer than {fewest} cells"
            f"{' in one of the species' if two else ''} and are left out: {shown}."
        )
    return large, left_out


def _counts(
    adata: AnnData, rows: NDArray[np.intp], layer: str | None, allow_noninteger: bool
) -> sp.csr_matrix:
    blocks = _slots.iter_counts(adata, layer=layer, allow_noninteger=allow_noninteger)
    parts = []
    for start, block in blocks:
        first, last = np.searchsorted(rows, [start, start + block.shape[0]])
        parts.append(block[rows[first:last] - start])
    return sp.csr_matrix(sp.vstack(parts, format="csr"))
