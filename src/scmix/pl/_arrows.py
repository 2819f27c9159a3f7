"""Where a shift of the embedding points to in a picture of it."""

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

_SHARPNESS = 0.1  # of the softmax over cosines, as in RNA velocity plots


def arrows(
    embedding: NDArray, layout: NDArray, rows: NDArray[np.intp], shifts: NDArray, n_neighbors: int
) -> NDArray[np.float64]:
    """Arrows in the layout for shifts in the embedding (n_shifts, 2), the longest of length 1.

    The direction is the mean of the directions in the layout to the cell's nearest neighbours,
    weighted by how well the shift points to each of them in the embedding, minus their plain mean
    (La Manno et al. 2018, Nature 560:494). The length is in proportion to that of the shift.

    `embedding` (n_cells, n_dimensions) and `layout` (n_cells, 2) are of all cells, `shifts`
    (n_shifts, n_dimensions) of the cells in `rows`; a shift with a NaN gives an arrow of NaN.
    """
    k = min(n_neighbors, len(embedding) - 1)
    finder = NearestNeighbors(n_neighbors=k + 1, metric="cosine").fit(embedding)
    near = finder.kneighbors(embedding[rows], return_distance=False)[:, 1:]
    toward = _unit(embedding[near] - embedding[rows][:, None])
    cosine = np.einsum("nkd,nd->nk", toward, _unit(shifts))
    weight = np.exp((cosine - cosine.max(axis=1, keepdims=True)) / _SHARPNESS)
    weight = weight / weight.sum(axis=1, keepdims=True) - 1 / k
    drawn = _unit(layout[near] - layout[rows][:, None])
    direction = _unit(np.einsum("nk,nkd->nd", weight, drawn))
    length = np.linalg.norm(shifts, axis=1)
    known = length[np.isfinite(length)]
    longest = known.max() if known.size and known.max() > 0 else 1.0
    return direction * (length / longest)[:, None]


def _unit(vectors: NDArray) -> NDArray[np.float64]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
