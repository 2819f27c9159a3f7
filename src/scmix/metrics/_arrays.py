"""What the metrics share: checked arrays, codes of labels, neighbours."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.neighbors import NearestNeighbors

from .._errors import InputError

_DISTANCES_AT_ONCE = 1 << 23  # 64 MB and a few times that while they are sorted


def has_vector(embedding: ArrayLike) -> NDArray[np.bool_]:
    """Rows of an embedding that hold a vector.

    Parameters
    ----------
    embedding
        Array (n_cells, n_dimensions).

    Returns
    -------
    Boolean array (n_cells,), False where any dimension is NaN or infinite.

    Examples
    --------
    >>> from scmix.metrics import has_vector
    >>> has_vector([[0.0, 1.0], [float("nan"), 1.0]])
    array([ True, False])
    """
    return np.isfinite(matrix(embedding)).all(axis=1)


def matrix(values: ArrayLike) -> NDArray[np.floating]:
    array = np.asarray(values)
    if array.ndim != 2:
        raise InputError(f"Found an embedding with {array.ndim} dimensions; expected 2.")
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


def categories(labels: Iterable, n_rows: int) -> tuple[NDArray[np.str_], NDArray[np.intp]]:
    names = np.asarray(list(labels), dtype=str)
    if len(names) != n_rows:
        raise InputError(f"Found {len(names)} labels for {n_rows} cells; expected one per cell.")
    unique, codes = np.unique(names, return_inverse=True)
    return unique, codes


def subset(rows: NDArray, size: int, rng: np.random.Generator) -> NDArray:
    return rows if len(rows) <= size else np.sort(rng.choice(rows, size, replace=False))


def neighbours(reference: NDArray, query: NDArray, k: int, metric: str) -> NDArray[np.intp]:
    """Rows of the reference nearest to each query: by distance, then by row."""
    k = min(k, len(reference))
    finder = NearestNeighbors(n_neighbors=k, metric=metric).fit(reference)
    found = np.empty((len(query), k), dtype=np.intp)
    step = max(_DISTANCES_AT_ONCE // len(reference), 1)
    for first in range(0, len(query), step):
        distances, rows = finder.kneighbors(query[first : first + step])
        order = np.lexsort((rows, distances), axis=-1)
        found[first : first + step] = np.take_along_axis(rows, order, axis=1)
    return found


def other_neighbours(points: NDArray, rows: NDArray, k: int, metric: str) -> NDArray[np.intp]:
    """Rows nearest to some of the points, the point itself left out: (n_rows, k) or fewer."""
    k = min(k, len(points) - 1)
    finder = NearestNeighbors(n_neighbors=k + 1, metric=metric).fit(points)
    nearest = finder.kneighbors(points[rows], return_distance=False)
    others = nearest != rows[:, None]
    others[others.all(axis=1), k] = False  # one of many copies of the point: leave out the last
    return nearest[others].reshape(len(rows), k)
