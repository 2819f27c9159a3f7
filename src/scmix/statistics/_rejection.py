"""Cells of no known type: how far they lie from the known ones, and how well that tells them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from scipy.stats import rankdata

from .._errors import InputError
from ._calibration import Calibration
from ._conformal import upper_quantile


class Detection(NamedTuple):
    """How well a score tells unknown cells from known ones.

    Parameters
    ----------
    auroc
        Chance that an unknown cell has the higher score; 0.5 for a score that says nothing.
    fpr_at_95_tpr
        Share of unknown cells that pass when 95 % of the known ones do.
    """

    auroc: float
    fpr_at_95_tpr: float


def class_centroids(vectors: ArrayLike, labels: ArrayLike, n_classes: int) -> NDArray[np.float32]:
    """Mean vector of each class.

    Parameters
    ----------
    vectors
        Array (n_cells, n_dimensions). Rows of NaN are left out.
    labels
        Class of each cell (n_cells,), 0 to `n_classes` - 1; negative: none.
    n_classes
        Number of classes.

    Returns
    -------
    float32 (n_classes, n_dimensions); NaN for a class without a cell.

    Examples
    --------
    >>> from scmix.statistics import class_centroids
    >>> class_centroids([[0.0, 2.0], [0.0, 4.0], [1.0, 0.0]], [0, 0, 1], 2)
    array([[0., 3.],
           [1., 0.]], dtype=float32)
    """
    points, codes = np.asarray(vectors, dtype=np.float64), np.asarray(labels)
    if points.ndim != 2 or codes.shape != points.shape[:1]:
        raise InputError(
            f"Found vectors of shape {points.shape} and labels of shape {codes.shape}; expected "
            "(n_cells, n_dimensions) and (n_cells,)."
        )
    kept = np.isfinite(points).all(axis=1) & (codes >= 0)
    sums = np.zeros((n_classes, points.shape[1]))
    np.add.at(sums, codes[kept], points[kept])
    sizes = np.bincount(codes[kept], minlength=n_classes).astype(np.float64)
    sizes[sizes == 0] = np.nan
    return (sums / sizes[:, None]).astype(np.float32)


def nearest_centroid(
    vectors: ArrayLike, centroids: ArrayLike
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Nearest class centroid of each cell and the cosine distance to it.

    Parameters
    ----------
    vectors
        Array (n_cells, n_dimensions).
    centroids
        Of :func:`class_centroids`. Rows of NaN are never nearest.

    Returns
    -------
    Class of the nearest centroid (n_cells,) and the distance, float32 between 0 and 2. A cell
    without a vector gets class -1 and NaN.

    Examples
    --------
    >>> from scmix.statistics import nearest_centroid
    >>> nearest_centroid([[9.0, 0.0], [3.0, 4.0]], [[2.0, 0.0], [0.0, 5.0]])
    (array([0, 1]), array([0. , 0.2], dtype=float32))
    """
    points, centres = np.asarray(vectors, np.float64), np.asarray(centroids, np.float64)
    if points.ndim != 2 or centres.ndim != 2 or points.shape[1] != centres.shape[1]:
        raise InputError(
            f"Found vectors of shape {points.shape} and centroids of shape {centres.shape}; "
            "expected the same number of dimensions."
        )
    present = np.isfinite(centres).all(axis=1)
    if not present.any():
        raise InputError("Found no class centroid; expected at least one class with a cell.")
    distances = np.full((len(points), len(centres)), np.inf)
    distances[:, present] = 1 - _unit(points) @ _unit(centres[present]).T
    nearest = distances.argmin(axis=1)
    lowest = np.clip(distances[np.arange(len(points)), nearest], 0, 2).astype(np.float32)
    return np.where(np.isnan(lowest), -1, nearest), lowest


def strangeness(
    calibration: Calibration, logits: ArrayLike, distances: ArrayLike
) -> NDArray[np.float32]:
    """How unlike all known types cells are, by their vectors and their logits together.

    The sum of two scores, each in standard deviations from the mean of the calibration cells: the
    distance to the nearest class centroid, and minus the log-sum-exp of the logits, the energy
    [1]_. A cell of an unknown type is often far in one and not in the other, so that the sum tells
    it better than either. With one type left out at a time (47 types of 8 data sets,
    `benchmarks/bench_confidence.py`) its mean AUROC was 0.74, that of the largest probability 0.66.

    Parameters
    ----------
    calibration
        With `distances`; its cells have a mean of 0.
    logits
        Of the cells to judge (n_cells, n_classes).
    distances
        Of :func:`nearest_centroid` to `calibration.centroids` (n_cells,).

    Returns
    -------
    float32 (n_cells,); NaN for a cell without a vector.

    Raises
    ------
    InputError
        If the calibration has no distances.

    References
    ----------
    .. [1] Liu et al. (2020). Energy-based out-of-distribution detection. NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> from scmix.statistics import Calibration, strangeness
    >>> calibration = Calibration(
    ...     1.0, np.array([[3.0, 0.0], [5.0, 0.0]]), np.array([0, 0]), np.array([0.1, 0.3])
    ... )
    >>> strangeness(calibration, [[4.0, -20.0], [1.0, -20.0]], [0.2, 0.4]).round(1)
    array([0. , 5.1], dtype=float32)
    """
    if calibration.distances is None:
        raise InputError("Found a calibration without distances; expected one with them.")
    known = np.stack([calibration.distances, _energy(calibration.logits)], axis=1)
    asked = np.stack([np.asarray(distances, np.float64), _energy(logits)], axis=1)
    spread = np.maximum(known.std(axis=0), np.finfo(np.float32).tiny)
    total = ((asked - known.mean(axis=0)) / spread).sum(axis=1)
    return total.astype(np.float32)


def distance_threshold(distances: ArrayLike, alpha: float) -> float:
    """Distance beyond which a cell is called unknown.

    A new cell of a known type, drawn like the calibration cells, lies beyond it with a chance of
    at most `alpha`.

    Parameters
    ----------
    distances
        Of calibration cells (n_cells,), or their :func:`strangeness`.
    alpha
        Share of known cells that may be lost, between 0 and 1.

    Returns
    -------
    The threshold; infinite when there are too few cells for this `alpha`.

    Examples
    --------
    >>> from scmix.statistics import distance_threshold
    >>> distance_threshold([0.1, 0.2, 0.3, 0.4], alpha=0.2)
    0.4
    """
    return upper_quantile(np.asarray(distances, dtype=np.float64), alpha)


def unknown_detection(known: ArrayLike, unknown: ArrayLike) -> Detection:
    """How well a score, high for unknown cells, tells them from known ones.

    Parameters
    ----------
    known, unknown
        Scores of cells of known and of unknown types.

    Returns
    -------
    Area under the ROC curve (ties count half) and the share of unknown cells that pass when
    95 % of the known ones do.

    Raises
    ------
    InputError
        If one of them is empty or holds NaN.

    Examples
    --------
    >>> from scmix.statistics import unknown_detection
    >>> unknown_detection(known=[0.1, 0.2, 0.6], unknown=[0.5, 0.9])
    Detection(auroc=0.833..., fpr_at_95_tpr=0.5)
    """
    inside, outside = np.asarray(known, np.float64), np.asarray(unknown, np.float64)
    for name, scores in (("known", inside), ("unknown", outside)):
        if scores.ndim != 1 or not scores.size or np.isnan(scores).any():
            raise InputError(
                f"Found {name} scores of shape {scores.shape} with {np.isnan(scores).sum()} NaN; "
                "expected at least one number for a cell, and no NaN."
            )
    ranks = rankdata(np.concatenate([inside, outside]))[len(inside) :]
    wins = ranks.sum() - len(outside) * (len(outside) + 1) / 2
    kept = np.sort(inside)[int(np.ceil(0.95 * len(inside))) - 1]
    return Detection(float(wins / (len(inside) * len(outside))), float((outside <= kept).mean()))


def _energy(logits: ArrayLike) -> NDArray[np.float64]:
    return -logsumexp(np.asarray(logits, dtype=np.float64), axis=1)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length one; a row of zeros stays, at distance 1 from everything."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths == 0, 1, lengths)
