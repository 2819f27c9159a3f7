"""Statistics of labels and of perturbations: pure functions of arrays."""

from ._calibration import Calibration, fit_temperature, probabilities
from ._conformal import (
    class_coverage,
    conformal_sets,
    conformal_threshold,
    coverage,
)
from ._rejection import (
    Detection,
    class_centroids,
    distance_threshold,
    nearest_centroid,
    unknown_detection,
)

__all__ = [
    "Calibration",
    "fit_temperature",
    "probabilities",
    "conformal_threshold",
    "conformal_sets",
    "coverage",
    "class_coverage",
    "class_centroids",
    "nearest_centroid",
    "distance_threshold",
    "Detection",
    "unknown_detection",
]
