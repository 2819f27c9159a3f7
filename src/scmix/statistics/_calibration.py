"""From logits to probabilities that can be believed: one temperature, fitted on held-out cells."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import softmax

from .._errors import InputError

COLDEST, HOTTEST = 1e-4, 1e4


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a classifier gave for labelled cells that it was not trained on.

    Everything that says how sure a label is comes from these cells: the temperature, the
    thresholds of conformal sets at any level, the distance beyond which a cell is unknown.
    Cells without a vector (NaN logits) do not belong here.

    Parameters
    ----------
    temperature
        Divides logits; see :func:`fit_temperature`.
    logits
        float32 (n_cells, n_classes).
    labels
        int32 (n_cells,): the true class of each cell, as a column of `logits`.
    distances
        float32 (n_cells,): distance of each cell to the nearest class centroid of the training
        cells, by :func:`nearest_centroid`; None where rejection by distance is not offered.
    centroids
        float32 (n_classes, n_dimensions): those centroids, by :func:`class_centroids`; needed
        wherever `distances` is given, to measure new cells.
    groups
        int32 (n_cells,): donor or batch of each cell; None if not known.
    """

    temperature: float
    logits: NDArray[np.float32]
    labels: NDArray[np.int32]
    distances: NDArray[np.float32] | None = None
    centroids: NDArray[np.float32] | None = None
    groups: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        check_labelled(self.logits, self.labels)
        if not 0 < self.temperature < np.inf:
            raise InputError(f"Found temperature={self.temperature}; expected a positive number.")
        n_cells, n_classes = np.shape(self.logits)
        lengths = {"distances": n_cells, "groups": n_cells, "centroids": n_classes}
        for name, length in lengths.items():
            values = getattr(self, name)
            if values is not None and len(values) != length:
                raise InputError(f"Found {len(values)} {name}; expected {length}.")

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.labels)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated probabilities of the cells (n_cells, n_classes)."""
        return probabilities(self.logits, self.temperature)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Find the temperature that makes probabilities of held-out cells most likely.

    Logits divided by it give calibrated probabilities; no label changes. The likelihood is that
    of temperature scaling [1]_ with Platt's targets [2]_: the true class counts for
    (n + 1) / (n + 2), the others share the rest. So a classifier that makes no mistake on a few
    held-out cells does not claim that it never will.

    Parameters
    ----------
    logits
        Array (n_cells, n_classes) of cells that took no part in training.
    labels
        True class of each cell (n_cells,), as a column of `logits`.

    Returns
    -------
    Between 0.0001 and 10,000; above 1 where the classifier was too sure.

    Raises
    ------
    InputError
        If there is no cell, a logit is not finite, or a label is not a column.

    References
    ----------
    .. [1] Guo et al. (2017). On calibration of modern neural networks. ICML.
    .. [2] Platt (1999). Probabilistic outputs for support vector machines.

    Examples
    --------
    >>> from scmix.statistics import fit_temperature
    >>> sure, right = [[4.0, 0.0]] * 4, [0, 0, 0, 1]  # 98 % claimed, three of four correct
    >>> round(fit_temperature(sure, right), 2)
    5.77
    """
    scores, true = check_labelled(logits, labels)
    n_cells, n_classes = scores.shape
    if not np.ptp(scores, axis=1).any():
        return 1.0  # one class, or all alike: any temperature is as good
    missed = 1 / (n_cells + 2)
    at_true = scores[np.arange(n_cells), true]
    others = (scores.sum(axis=1) - at_true) / (n_classes - 1)
    target = ((1 - missed) * at_true + missed * others).mean()

    def slope(log_temperature: float) -> float:
        """Of the negative log-likelihood, which is convex in the inverse temperature."""
        expected = probabilities(scores, np.exp(log_temperature)) * scores
        return float(expected.sum(axis=1).mean() - target)

    coldest, hottest = np.log(COLDEST), np.log(HOTTEST)
    if slope(coldest) <= 0:
        return COLDEST
    if slope(hottest) >= 0:
        return HOTTEST
    return float(np.exp(brentq(slope, coldest, hottest, xtol=1e-10)))


def probabilities(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Softmax of logits divided by a temperature.

    Parameters
    ----------
    logits
        Array (n_cells, n_classes).
    temperature
        Of :func:`fit_temperature`.

    Returns
    -------
    float64 (n_cells, n_classes). Rows of NaN stay NaN.

    Examples
    --------
    >>> from scmix.statistics import probabilities
    >>> probabilities([[2.0, 0.0]], temperature=2.0).round(3)
    array([[0.731, 0.269]])
    """
    return softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)


def check_labelled(
    scores: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Scores of cells (n_cells, n_classes) and their true columns, checked."""
    values, true = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or not values.size:
        raise InputError(
            f"Found an array of shape {values.shape}; expected (n_cells, n_classes), not empty."
        )
    if not np.isfinite(values).all():
        rows = int((~np.isfinite(values)).any(axis=1).sum())
        raise InputError(
            f"Found {rows} of {len(values)} cells with NaN or infinite values; leave out the cells "
            "without a vector."
        )
    if true.shape != values.shape[:1] or not np.issubdtype(true.dtype, np.integer):
        raise InputError(
            f"Found labels of shape {true.shape} and type {true.dtype}; expected "
            f"{len(values)} integers, the true column of each cell."
        )
    if true.min() < 0 or true.max() >= values.shape[1]:
        raise InputError(
            f"Found labels from {true.min()} to {true.max()}; expected 0 to {values.shape[1] - 1}."
        )
    return values, true.astype(np.intp)
