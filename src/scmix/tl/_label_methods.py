"""Ways to label vectors by labelled vectors: arrays in, probabilities out."""

from typing import Literal, get_args

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import paired_distances
from sklearn.preprocessing import StandardScaler

from .._errors import InputError
from ..metrics._arrays import neighbours
from ..statistics import class_centroids, fit_temperature, probabilities

Method = Literal["knn", "centroid", "logistic"]
Metric = Literal["cosine", "euclidean", "manhattan"]
_MAX_ITER = 2000


def by_neighbours(
    reference: np.ndarray,
    codes: np.ndarray,
    query: np.ndarray,
    n_classes: int,
    *,
    k: int,
    metric: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Share of each class among the k nearest cells, and the winner; ties go to the nearest."""
    voters = codes[neighbours(reference, query, k, metric)]
    shares = np.zeros((len(query), n_classes))
    np.add.at(shares, (np.arange(len(query))[:, None], voters), 1 / voters.shape[1])
    votes = np.take_along_axis(shares, voters, axis=1)
    first = (votes >= votes.max(axis=1, keepdims=True) - 1e-9).argmax(axis=1)
    return shares, voters[np.arange(len(query)), first]


def by_centroids(
    reference: np.ndarray, codes: np.ndarray, query: np.ndarray, n_classes: int, *, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax of the distances to the class means, and the nearest.

    The temperature is fitted on the reference, each cell measured from the mean of its class
    without it.
    """
    centroids = class_centroids(reference, codes, n_classes).astype(np.float64)
    chances = probabilities(
        -pairwise_distances(query, centroids, metric=metric),
        _centroid_temperature(reference, codes, centroids, metric),
    )
    return chances, chances.argmax(axis=1)


def by_regression(
    reference: np.ndarray, codes: np.ndarray, query: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression (L2, C = 1) on standardised dimensions."""
    scaler = StandardScaler().fit(reference)
    model = LogisticRegression(C=1.0, max_iter=_MAX_ITER).fit(scaler.transform(reference), codes)
    chances = model.predict_proba(scaler.transform(query))
    return chances, chances.argmax(axis=1)


def centred(vectors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Vectors relative to the mean of their group; rows of NaN stay and have no part in it."""
    kept = np.isfinite(vectors).all(axis=1)
    out = np.array(vectors, dtype=np.float64)
    for group in np.unique(groups):
        own = groups == group
        if (own & kept).any():
            out[own] -= out[own & kept].mean(axis=0)
    return out


def check_method(method: str, k: int, metric: str) -> None:
    """Refuse what does not exist."""
    if method not in get_args(Method):
        raise InputError(
            f"Found method={method!r}; expected 'knn', 'centroid' or 'logistic'. For a trained "
            "classifier there are scmix.tl.fine_tune and scmix.tl.annotate."
        )
    if k < 1:
        raise InputError(f"Found k={k}; expected at least 1 neighbour.")
    if metric not in get_args(Metric):
        raise InputError(f"Found metric={metric!r}; expected one of {get_args(Metric)}.")


def _centroid_temperature(
    reference: np.ndarray, codes: np.ndarray, centroids: np.ndarray, metric: str
) -> float:
    distances = pairwise_distances(reference, centroids, metric=metric)
    sizes = np.bincount(codes, minlength=len(centroids))[codes].astype(np.float64)
    others = sizes > 1
    if not others.any():
        return 1.0
    # mean of the class without the cell itself
    own = centroids[codes[others]] * sizes[others, None] - reference[others]
    own /= sizes[others, None] - 1
    apart = paired_distances(reference[others], own, metric=metric)
    distances[np.flatnonzero(others), codes[others]] = apart
    return fit_temperature(-distances[others], codes[others])
