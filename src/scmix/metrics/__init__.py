"""How good an embedding is: pure functions of arrays, each with a known value for chance.

Rows with a NaN (cells without a known gene have no vector) are left out of every score;
`has_vector` says which rows count, `classification_scores` says how many did not.
"""

from ._arrays import has_vector
from ._graph import graph_connectivity
from ._labels import (
    UNASSIGNED,
    classification_scores,
    knn_probabilities,
    knn_purity,
    knn_transfer,
    silhouette,
)
from ._layouts import centroid_distance, procrustes
from ._resampling import bootstrap_label_scores, label_scores
from ._species import species_mixing, species_mixing_by_type

__all__ = [
    "knn_transfer",
    "knn_probabilities",
    "classification_scores",
    "label_scores",
    "bootstrap_label_scores",
    "silhouette",
    "knn_purity",
    "graph_connectivity",
    "species_mixing",
    "species_mixing_by_type",
    "procrustes",
    "centroid_distance",
    "has_vector",
    "UNASSIGNED",
]
