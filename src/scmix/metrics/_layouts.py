"""How two layouts of the same cells compare."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import orthogonal_procrustes

from .._errors import InputError
from ._arrays import categories, has_vector, matrix


def procrustes(reference: ArrayLike, layout: ArrayLike) -> NDArray[np.floating]:
    """Move, turn, mirror and scale a layout so that it lies on another one as well as it can.

    The least-squares similarity transform is fitted on the rows that have a vector in both.

    Parameters
    ----------
    reference
        Array (n_cells, n_dimensions) that stays.
    layout
        Array of the same shape, same cells in the same order.

    Returns
    -------
    The layout in the coordinates of the reference.

    Raises
    ------
    InputError
        If shapes differ, or fewer than two cells have a vector in both.

    Examples
    --------
    >>> from scmix.metrics import procrustes
    >>> procrustes([[0, 0], [2, 0]], [[5, 5], [5, 6]]).round(6).tolist()
    [[0.0, 0.0], [2.0, 0.0]]
    """
    target, source = matrix(reference), matrix(layout)
    if target.shape != source.shape:
        raise InputError(f"Found shapes {target.shape} and {source.shape}; expected equal shapes.")
    both = has_vector(target) & has_vector(source)
    if both.sum() < 2:
        raise InputError(f"Found {both.sum()} cells with a vector in both; expected at least two.")
    centre, origin = target[both].mean(axis=0), source[both].mean(axis=0)
    rotation, trace = orthogonal_procrustes(source[both] - origin, target[both] - centre)
    size = ((source[both] - origin) ** 2).sum()
    scale = trace / size if size > 0 else 1.0
    return scale * (source - origin) @ rotation + centre


def centroid_distance(reference: ArrayLike, layout: ArrayLike, labels: Iterable) -> float:
    """How far the centroids of labels lie apart in two layouts of the same cells.

    Align the layouts first (`procrustes`): two runs of UMAP differ by an arbitrary motion.

    Parameters
    ----------
    reference, layout
        Arrays of one shape (n_cells, n_dimensions), same cells in the same order.
    labels
        Labels (n_cells,).

    Returns
    -------
    Mean over labels of the Euclidean distance between the two centroids, in the reference's
    units.

    Raises
    ------
    InputError
        If shapes differ or no cell has a vector in both.

    Examples
    --------
    >>> from scmix.metrics import centroid_distance
    >>> centroid_distance([[0, 0], [4, 0]], [[0, 3], [4, 0]], ["a", "b"])
    1.5
    """
    first, second = matrix(reference), matrix(layout)
    if first.shape != second.shape:
        raise InputError(f"Found shapes {first.shape} and {second.shape}; expected equal shapes.")
    _, codes = categories(labels, len(first))
    both = has_vector(first) & has_vector(second)
    if not both.any():
        raise InputError("Found no cell with a vector in both layouts; expected at least one.")
    shifts = [(first - second)[both & (codes == c)].mean(axis=0) for c in np.unique(codes[both])]
    return float(np.linalg.norm(shifts, axis=1).mean())
