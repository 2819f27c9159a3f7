"""How far confidence can be believed, and what it is worth."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._errors import InputError
from ._calibration import check_labelled


class Reliability(NamedTuple):
    """Cells by their confidence, in bins of equal width.

    Parameters
    ----------
    lower, upper
        Edges of each bin (n_bins,); the upper one belongs to the bin.
    n_cells
        Cells in each bin.
    confidence
        Their mean confidence; NaN in an empty bin.
    accuracy
        Share of them that is correct; NaN in an empty bin.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    n_cells: NDArray[np.intp]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance between the two, weighted by cells."""
        filled = self.n_cells > 0
        gaps = np.abs(self.confidence - self.accuracy)[filled]
        return float(np.average(gaps, weights=self.n_cells[filled]))


def reliability(confidence: ArrayLike, correct: ArrayLike, n_bins: int = 15) -> Reliability:
    """Accuracy of cells by their confidence.

    Parameters
    ----------
    confidence
        Of each cell's label (n_cells,), between 0 and 1.
    correct
        Whether the label is right (n_cells,).
    n_bins
        Bins of equal width between 0 and 1.

    Returns
    -------
    One entry per bin.

    Raises
    ------
    InputError
        If there are no cells, lengths differ, or a confidence is not between 0 and 1.

    Examples
    --------
    >>> from scmix.statistics import reliability
    >>> curve = reliability([0.9, 0.8, 0.3], [True, False, False], n_bins=2)
    >>> curve.accuracy, round(curve.error, 3)
    (array([0. , 0.5]), 0.333)
    """
    sure, right = _check(confidence, correct)
    if sure.min() < 0 or sure.max() > 1 + 1e-6:
        raise InputError(
            f"Found confidence from {sure.min():.3g} to {sure.max():.3g}; expected probabilities "
            "between 0 and 1."
        )
    if n_bins < 1:
        raise InputError(f"Found n_bins={n_bins}; expected at least 1.")
    edges = np.linspace(0, 1, n_bins + 1)
    bins = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, n_bins - 1)
    n_cells = np.bincount(bins, minlength=n_bins)
    filled = np.where(n_cells, n_cells, np.nan)
    means = [np.bincount(bins, weights=w, minlength=n_bins) / filled for w in (sure, right)]
    return Reliability(edges[:-1], edges[1:], n_cells, *means)


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, n_bins: int = 15
) -> float:
    """Mean distance between confidence and accuracy over bins of confidence, weighted by cells.

    Parameters
    ----------
    probabilities
        Array (n_cells, n_classes). The confidence is the largest of a row.
    labels
        True classes (n_cells,), as columns.
    n_bins
        Bins of equal width between 0 and 1.

    Returns
    -------
    Between 0 and 1; 0 is best.

    Examples
    --------
    >>> from scmix.statistics import expected_calibration_error
    >>> expected_calibration_error([[0.75, 0.25]] * 4, [0, 0, 0, 1])
    0.0
    """
    chances, true = check_labelled(probabilities, labels)
    return reliability(chances.max(axis=1), chances.argmax(axis=1) == true, n_bins).error


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Squared distance between the probabilities and the truth, summed over classes.

    Parameters
    ----------
    probabilities
        Array (n_cells, n_classes).
    labels
        True classes (n_cells,), as columns.

    Returns
    -------
    Mean over cells, between 0 (sure and right) and 2 (sure and wrong).

    Examples
    --------
    >>> from scmix.statistics import brier_score
    >>> brier_score([[1.0, 0.0], [0.5, 0.5]], [0, 0])
    0.25
    """
    chances, true = check_labelled(probabilities, labels)
    truth = np.zeros_like(chances)
    truth[np.arange(len(true)), true] = 1
    return float(((chances - truth) ** 2).sum(axis=1).mean())


def risk_coverage(
    confidence: ArrayLike, correct: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Error among the most confident cells, for every share of cells that is labelled.

    Cells of equal confidence cannot be told apart: the error is what is expected when they come
    in random order, so the order of the cells has no part in it.

    Parameters
    ----------
    confidence
        Of each cell's label (n_cells,); any score that is high for sure labels.
    correct
        Whether the label is right (n_cells,).

    Returns
    -------
    Coverage, 1/n to 1, and the share of wrong labels among the cells covered, both (n_cells,).

    Examples
    --------
    >>> from scmix.statistics import risk_coverage
    >>> share, risk = risk_coverage([0.9, 0.8, 0.7, 0.6], [True, True, False, True])
    >>> share.tolist(), risk.round(2).tolist()
    ([0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.33, 0.25])
    """
    sure, right = _check(confidence, correct)
    _, tied, sizes = np.unique(-sure, return_inverse=True, return_counts=True)
    wrong = np.bincount(tied, weights=1 - right) / sizes
    n_covered = np.arange(1, len(sure) + 1)
    return n_covered / len(sure), np.cumsum(np.repeat(wrong, sizes)) / n_covered


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the risk-coverage curve: mean error over all shares of cells labelled.

    Parameters
    ----------
    confidence, correct
        As in :func:`risk_coverage`.

    Returns
    -------
    Between 0 (no error) and 1; the error rate itself for a confidence that says nothing.

    Examples
    --------
    >>> from scmix.statistics import aurc
    >>> aurc([0.9, 0.1], [True, False]), aurc([0.5, 0.5], [True, False])
    (0.25, 0.5)
    """
    return float(risk_coverage(confidence, correct)[1].mean())


def _check(
    confidence: ArrayLike, correct: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct)
    if sure.ndim != 1 or not sure.size or right.shape != sure.shape:
        raise InputError(
            f"Found confidence of shape {sure.shape} and correct of shape {right.shape}; expected "
            "one number and one truth value for each of at least one cell."
        )
    if not np.isfinite(sure).all():
        raise InputError(
            f"Found {(~np.isfinite(sure)).sum()} of {len(sure)} confidences that are not finite; "
            "leave out the cells without one."
        )
    return sure, right.astype(bool).astype(np.float64)
