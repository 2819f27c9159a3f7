"""Is a gene unlike other genes that are ranked and detected as it is?"""

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from .._errors import InputError

_FEWEST = 20  # a spread estimated from fewer genes says nothing
_N_BINS = 10
_MAD_TO_SD = 1 / norm.ppf(0.75)


class MatchedNull(NamedTuple):
    """What `matched_null` found: `z`, `p` and `n_matched`, each (n_genes,)."""

    z: NDArray[np.float64]
    p: NDArray[np.float64]
    n_matched: NDArray[np.int64]


def matched_null(
    effects: ArrayLike,
    rank: ArrayLike,
    detection: ArrayLike,
    species: Sequence[Hashable],
    *,
    min_matched: int = 200,
    exclude: Sequence[Hashable] | None = None,
) -> MatchedNull:
    """Compare each gene with genes of like rank, detection and species.

    Highly ranked genes move a cell more than others, and genes seen in few cells have noisy
    effects; a gene is therefore set against its like. Like are the genes of the same species in
    the same tenth by rank and by detection; where these are fewer than `min_matched`, neighbouring
    tenths are added, ring by ring (the first and last tenths have neighbours on one side only, so
    the most highly ranked and the rarest genes are matched less well). The gene itself is left
    out, and so are genes that share its label in `exclude`. With the median m and the scaled
    median absolute deviation s of the like,
    ``z = (effect - m) / s``, which a minority of genes with real effects does not disturb, and p
    is its two-sided normal tail (an empirical null: Efron 2004, JASA 99:96). It says "unlike the
    bulk of its like", not "moves towards this goal", and where effects have heavy tails without
    any cause, more than a share alpha falls below alpha.

    Parameters
    ----------
    effects
        Effect of each gene (n_genes,); NaN takes no part.
    rank
        Mean rank of the gene in the cells that have it (n_genes,).
    detection
        Share or number of cells that have it (n_genes,).
    species
        Species of each gene (n_genes,).
    min_matched
        Fewest genes to compare with; all of the species where it has fewer.
    exclude
        Label of each gene's family, such as its orthologue group (n_genes,); `""` for none.

    Returns
    -------
    `z`, `p` and `n_matched`. `z` and `p` are NaN for a gene with fewer than 20 like it, or whose
    like do not spread.

    Raises
    ------
    InputError
        If lengths differ.

    Examples
    --------
    >>> import numpy as np
    >>> from scmix.statistics import matched_null
    >>> rank = np.arange(400)
    >>> effects = np.random.default_rng(0).normal(scale=1 / (1 + rank))  # high ranks move more
    >>> effects[300] = 0.1
    >>> z, p, n_matched = matched_null(effects, rank, rank, ["mouse"] * 400, min_matched=100)
    >>> bool(p[300] < 1e-6), int(n_matched[300])
    (True, 119)
    """
    values = np.asarray(effects, dtype=np.float64)
    names = np.asarray(list(species), dtype=str)
    family = _families(exclude, len(values))
    if not len(values) == len(names) == len(family) == np.size(rank) == np.size(detection):
        raise InputError(
            f"Found {len(values)} effects, {np.size(rank)} ranks, {np.size(detection)} detections "
            f"and {len(names)} species; expected one of each per gene."
        )
    z, n_matched = np.full(len(values), np.nan), np.zeros(len(values), dtype=np.int64)
    for name in np.unique(names):
        genes = np.flatnonzero((names == name) & np.isfinite(values))
        bins = np.column_stack([_tenths(np.asarray(x)[genes]) for x in (rank, detection)])
        for members, pool in _pools(bins, family[genes], min_matched):
            z[genes[members]], n_matched[genes[members]] = _scores(
                values[genes], family[genes], members, pool
            )
    return MatchedNull(z, 2 * norm.sf(np.abs(z)), n_matched)


def _families(exclude: Sequence[Hashable] | None, n_genes: int) -> NDArray[np.int64]:
    """A number per gene, the same for genes of one family; a gene without is a family of one."""
    if exclude is None:
        return np.arange(n_genes)
    labels = np.asarray(list(exclude), dtype=str)
    codes = np.unique(labels, return_inverse=True)[1]
    return np.where(labels == "", len(labels) + np.arange(len(labels)), codes)


def _tenths(values: NDArray) -> NDArray[np.intp]:
    """Tenth of the genes in which each lies, 0 to 9; equal values share one."""
    if not len(values):
        return np.zeros(0, dtype=np.intp)
    return ((rankdata(values) - 0.5) * _N_BINS / len(values)).astype(np.intp)


def _pools(
    bins: NDArray[np.intp], family: NDArray, min_matched: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Genes of each bin, and the genes they are compared with (themselves still among them)."""
    sizes = np.unique(family, return_inverse=True, return_counts=True)
    relatives = sizes[2][sizes[1]]
    for here in np.unique(bins, axis=0):
        away = np.abs(bins - here).max(axis=1)
        members = np.flatnonzero(away == 0)
        needed = min_matched + relatives[members].max()
        within = np.cumsum(np.bincount(away, minlength=_N_BINS))
        ring = min(int(np.searchsorted(within, needed)), _N_BINS - 1)
        yield members, np.flatnonzero(away <= ring)


def _scores(
    values: NDArray, family: NDArray, members: NDArray, pool: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Robust z of the members of a bin within its pool, and the size of the pool for each."""
    like = family[pool][None] != family[members][:, None]
    n_matched = like.sum(axis=1)
    z = np.full(len(members), np.nan)
    enough = n_matched >= _FEWEST
    if enough.any():
        others = np.where(like[enough], values[pool], np.nan)
        centre = np.nanmedian(others, axis=1)
        spread = _MAD_TO_SD * np.nanmedian(np.abs(others - centre[:, None]), axis=1)
        z[enough] = np.divide(
            values[members[enough]] - centre, spread, out=z[enough], where=spread > 0
        )
    return z, n_matched
