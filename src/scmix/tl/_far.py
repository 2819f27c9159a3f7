"""Whether new cells are like those that a classifier was calibrated on."""

import numpy as np

from .._warn import warn
from ..statistics import Calibration, distance_threshold, strangeness

_EXPECTED = 0.1  # of cells like those of the calibration
_MANY, _FEWEST = 0.25, 50  # a share that chance does not reach in so many cells


def has_distances(calibration: Calibration | None) -> bool:
    """Whether there is something to compare with."""
    return (
        calibration is not None
        and calibration.distances is not None
        and calibration.centroids is not None
    )


def share_far(calibration: Calibration, distances: np.ndarray) -> float:
    """Share of cells that lie farther from all types than 90 % of the calibration cells do.

    Parameters
    ----------
    calibration
        With distances.
    distances
        :func:`scmix.statistics.strangeness` of the cells; NaN for cells without a vector.
    """
    known = strangeness(calibration, calibration.logits, np.asarray(calibration.distances))
    found = distances[np.isfinite(distances)]
    if not found.size:
        return 0.0
    return float((found > distance_threshold(known, _EXPECTED)).mean())


def warn_shifted(label_key: str, share: float, n_cells: int) -> None:
    """Say that what holds for the calibration cells may not hold for these."""
    if share > _MANY and n_cells >= _FEWEST:
        warn(
            f"{share:.0%} of the cells lie farther from all types of {label_key!r} than 90 % of "
            "the calibration cells do; 10 % would if they were alike. They are of another assay "
            "or tissue, or of types that the classifier does not know: confidence, sets and "
            "rejection may not hold for them. reject='distance' labels the farthest unknown."
        )
