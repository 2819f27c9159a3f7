"""Numbers beside the cells of each category, where they hide little and not each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_SQUARES = 14  # along the longer side of the picture
_LEAST_SHARE = 0.05  # of the category's cells
_MOST_CELLS = 4_000  # that are looked at for a free place
_HEIGHT, _DIGIT = 0.11, 0.075  # inches, of a number and its halo
_ON_A_NUMBER, _A_HEIGHT_AWAY = 2.0, 0.15  # cost, where hiding a clump costs 1


@dataclass(frozen=True, eq=False)
class Tag:
    """A category's name, where its number is written `(2,)`, and the cells it stands for `(2,)`."""

    name: str
    place: np.ndarray
    clump: np.ndarray
    is_away: bool


def tags(
    points: np.ndarray, rows: Mapping[str, np.ndarray], numbers: Mapping[str, str], inches: float
) -> list[Tag]:
    """Tags for every clump of cells of every category.

    Parameters
    ----------
    points
        All cells of the picture `(n, 2)`.
    rows
        Rows of each category's cells.
    numbers
        What is written for each category.
    inches
        The longer side of the picture on paper.
    """
    low, span = points.min(axis=0), float(np.ptp(points, axis=0).max())
    scale = max(span, np.finfo(float).tiny) / inches
    clumps = list(_clumps(points, rows, low, inches * scale / _SQUARES))
    cells, weights = _looked_at(points, [row for _, row in clumps])
    found: list[Tag] = []
    centers, sizes = np.empty((0, 2)), np.empty((0, 2))
    for name, row in clumps:
        clump, size = _middle(points[row]), np.array([_DIGIT * len(numbers[name]), _HEIGHT]) * scale
        tried = np.clip(clump + _around() * _HEIGHT * scale, low, points.max(axis=0))
        away = np.linalg.norm(tried - clump, axis=1) / (_HEIGHT * scale)
        hidden = _inside(cells, tried, size / 2) @ weights
        met = _inside(centers, tried, (size + sizes) / 2).sum(axis=1)
        best = (hidden + _ON_A_NUMBER * met + _A_HEIGHT_AWAY * away).argmin()
        found.append(Tag(name, tried[best], clump, bool(away[best] > 1)))
        centers, sizes = np.vstack([centers, tried[best]]), np.vstack([sizes, size])
    return found


def _clumps(
    points: np.ndarray, rows: Mapping[str, np.ndarray], low: np.ndarray, side: float
) -> Iterator[tuple[str, np.ndarray]]:
    """Rows of each clump of a category: of cells in squares of a grid that touch each other.

    Clumps of less than a twentieth of the category's cells are left out, unless there is no other.
    """
    from scipy.ndimage import label

    for name, row in rows.items():
        squares = tuple(((points[row] - low) / side).astype(int).T)
        taken = np.zeros((_SQUARES + 1, _SQUARES + 1), dtype=bool)
        taken[squares] = True
        number = label(taken, structure=np.ones((3, 3)))[0][squares]
        sizes = np.bincount(number)
        least = min(_LEAST_SHARE * len(row), sizes.max())
        for clump in np.flatnonzero((sizes >= least) & (sizes > 0)):
            yield name, row[number == clump]


def _looked_at(points: np.ndarray, clumps: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Cells that are better not hidden, and for each its share of its clump."""
    step = -(-len(points) // _MOST_CELLS)
    weights = np.zeros(len(points))
    for row in clumps:
        weights[row] = 1 / len(row)
    return points[::step], weights[::step] * step


def _middle(points: np.ndarray) -> np.ndarray:
    """The point next to the median."""
    return points[np.linalg.norm(points - np.median(points, axis=0), axis=1).argmin()]


def _around() -> np.ndarray:
    """Places to try `(n, 2)`, in heights of a number."""
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return np.vstack([np.zeros((1, 2)), *(radius * ring for radius in (1, 1.5, 2, 2.7, 3.5, 4.5))])


def _inside(points: np.ndarray, centers: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Whether each point lies in the box around each center `(n_centers, n_points)`."""
    return (np.abs(points[None] - centers[:, None]) < half).all(axis=2)
