"""Statistics of labels and of perturbations: pure functions of arrays."""

from ._bootstrap import bootstrap_interval
from ._calibration import Calibration, fit_temperature, probabilities
from ._confidence import (
    Reliability,
    aurc,
    brier_score,
    expected_calibration_error,
    reliability,
    risk_coverage,
)
from ._conformal import (
    class_coverage,
    conformal_sets,
    conformal_threshold,
    coverage,
)
from ._matched import MatchedNull, matched_null
from ._multiple import benjamini_hochberg, fewest_at_floor
from ._permutation import StateNull, state_null, state_null_along
from ._rejection import (
    Detection,
    class_centroids,
    distance_threshold,
    nearest_centroid,
    strangeness,
    unknown_detection,
)

__all__ = [
    "Calibration",
    "fit_temperature",
    "probabilities",
    "Reliability",
    "reliability",
    "expected_calibration_error",
    "brier_score",
    "risk_coverage",
    "aurc",
    "conformal_threshold",
    "conformal_sets",
    "coverage",
    "class_coverage",
    "class_centroids",
    "nearest_centroid",
    "strangeness",
    "distance_threshold",
    "Detection",
    "unknown_detection",
    "state_null",
    "state_null_along",
    "StateNull",
    "matched_null",
    "MatchedNull",
    "bootstrap_interval",
    "benjamini_hochberg",
    "fewest_at_floor",
]
