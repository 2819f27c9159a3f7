"""How well two species mix within the cell types they share."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom

from .._errors import InputError
from ._arrays import categories, has_vector, matrix, other_neighbours, subset

_MIN_CELLS = 5  # a cell type with fewer cells in a species says nothing about mixing


def species_mixing(
    embedding: ArrayLike,
    species: Iterable,
    labels: Iterable,
    *,
    k: int = 15,
    metric: str = "cosine",
    n_repeats: int = 5,
    seed: int = 0,
) -> float:
    """How well two species mix within the cell types they share: 1 perfectly, 0 not at all.

    Mean over cell types of `species_mixing_by_type`, at most 1.

    Parameters
    ----------
    embedding
        Array (n_cells, n_dimensions).
    species
        Species (n_cells,), two different values.
    labels
        Cell types (n_cells,).
    k
        Number of neighbours.
    metric
        Distance, as scikit-learn names it.
    n_repeats
        Subsamples per cell type.
    seed
        Draws the subsamples.

    Returns
    -------
    Between 0 and 1.

    Raises
    ------
    InputError
        If there are not two species, or no cell type has five cells in each.

    Examples
    --------
    >>> import numpy as np
    >>> from scmix.metrics import species_mixing
    >>> points = np.random.default_rng(0).normal(size=(200, 3))
    >>> species = np.repeat(["human", "mouse"], 100)
    >>> round(species_mixing(points, species, ["T cell"] * 200, metric="euclidean"), 1)
    1.0
    """
    by_type = species_mixing_by_type(
        embedding, species, labels, k=k, metric=metric, n_repeats=n_repeats, seed=seed
    )
    return min(1.0, float(np.mean(list(by_type.values()))))


def species_mixing_by_type(
    embedding: ArrayLike,
    species: Iterable,
    labels: Iterable,
    *,
    k: int = 15,
    metric: str = "cosine",
    n_repeats: int = 5,
    seed: int = 0,
) -> dict[str, float]:
    """Normalised entropy of species among neighbours, for each cell type of both species.

    Within one cell type, equally many cells are drawn from each species (all of the rarer one),
    so that class proportions do not matter. For each of them the entropy of species among its
    k nearest others of that draw is taken, and the mean is divided by the mean under
    species assigned at random (exact, hypergeometric). Perfect mixing is 1 in expectation, and
    single values may be slightly above; species apart give 0.

    Parameters
    ----------
    embedding
        Array (n_cells, n_dimensions).
    species
        Species (n_cells,), two different values.
    labels
        Cell types (n_cells,).
    k
        Number of neighbours; fewer for a cell type with k or fewer cells in a species.
    metric
        Distance, as scikit-learn names it.
    n_repeats
        Subsamples per cell type.
    seed
        Draws the subsamples.

    Returns
    -------
    dict from cell type to mixing, of the types with at least five cells in each species.

    Raises
    ------
    InputError
        If there are not two species, or no cell type has five cells in each.

    Examples
    --------
    >>> from scmix.metrics import species_mixing_by_type
    >>> points = [[1.0, 0.01 * i] for i in range(5)] + [[0.01 * i, 1.0] for i in range(5)]
    >>> species = ["human"] * 5 + ["mouse"] * 5
    >>> species_mixing_by_type(points, species, ["beta"] * 10, k=4)
    {'beta': 0.0}
    """
    points = matrix(embedding)
    kept = has_vector(points)
    _, side = categories(species, len(points))
    names, codes = categories(labels, len(points))
    if len(np.unique(side[kept])) != 2:
        raise InputError(f"Found {len(np.unique(side[kept]))} species; expected two.")
    rng = np.random.default_rng(seed)
    mixing = {}
    for code, name in enumerate(names):
        rows = [np.flatnonzero(kept & (codes == code) & (side == s)) for s in np.unique(side[kept])]
        if min(map(len, rows)) >= _MIN_CELLS:
            mixing[str(name)] = _mixing(points, rows, k, metric, n_repeats, rng)
    if not mixing:
        raise InputError(
            f"Found no cell type with at least {_MIN_CELLS} cells in each species; check that "
            "both species spell their cell types alike."
        )
    return mixing


def _mixing(
    points: NDArray,
    rows: list[NDArray],
    k: int,
    metric: str,
    n_repeats: int,
    rng: np.random.Generator,
) -> float:
    size = min(map(len, rows))
    k = min(k, size - 1)
    side = np.repeat([0, 1], size)
    entropies = []
    for _ in range(n_repeats):
        draw = np.concatenate([subset(r, size, rng) for r in rows])
        nearest = other_neighbours(points[draw], np.arange(2 * size), k, metric)
        entropies.append(_entropy((side[nearest] != side[:, None]).mean(axis=1)).mean())
    others = np.arange(k + 1)
    by_chance = hypergeom(2 * size - 1, size, k).pmf(others) @ _entropy(others / k)
    return float(np.mean(entropies) / by_chance)


def _entropy(share: NDArray) -> NDArray:
    """Entropy of two outcomes in bits."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(p > 0, -p * np.log2(p), 0.0) for p in (share, 1 - share)]
    return terms[0] + terms[1]
