"""Where a shift of the embedding points to in a picture of it."""

import numpy as np
from numpy.typing import NDArray

_MOST_CELLS = 2_000  # more make the direction no clearer


def arrows(
    embedding: NDArray, layout: NDArray, rows: NDArray[np.intp], shifts: NDArray
) -> NDArray[np.float64]:
    """Arrows in the layout for shifts in the embedding (n_shifts, 2), the longest of length 1.

    The direction is the one in the layout along which the cosine between the shift and the way to
    the other cells grows fastest, by least squares over all cells. The constant of the fit takes
    up what every way has in common: from most cells, others lie towards the middle. The length is
    in proportion to that of the shift.

    `embedding` (n_cells, n_dimensions) and `layout` (n_cells, 2) are of all cells, `shifts`
    (n_shifts, n_dimensions) of the cells in `rows`.
    """
    aims = np.unique(np.linspace(0, len(embedding) - 1, _MOST_CELLS).astype(np.intp))
    cosine = _cosines(embedding[rows], embedding[aims], shifts)
    ways = _unit(layout[aims][None] - layout[rows][:, None])
    ways -= ways.mean(axis=1, keepdims=True)
    spread = np.einsum("nki,nkj->nij", ways, ways) + 1e-9 * np.eye(2)
    slope = np.einsum("nki,nk->ni", ways, cosine - cosine.mean(axis=1, keepdims=True))
    direction = _unit(np.linalg.solve(spread, slope[:, :, None])[:, :, 0])
    length = np.linalg.norm(shifts, axis=1)
    return direction * (length / max(length.max(initial=0), np.finfo(float).tiny))[:, None]


def _cosines(cells: NDArray, aims: NDArray, shifts: NDArray) -> NDArray[np.float64]:
    """Cosine of each shift with the way from its cell to each aim (n_shifts, n_aims)."""
    along = shifts @ aims.T - (shifts * cells).sum(axis=1)[:, None]
    squares = (cells**2).sum(axis=1)[:, None] + (aims**2).sum(axis=1) - 2 * cells @ aims.T
    length = np.linalg.norm(shifts, axis=1)[:, None] * np.sqrt(np.maximum(squares, 0))
    return np.divide(along, length, out=np.zeros_like(along), where=length > 1e-9)


def _unit(vectors: NDArray) -> NDArray[np.float64]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
