"""Ways to label vectors by labelled vectors: arrays in, probabilities out."""

from collections.abc import Callable, Iterable
from typing import Literal, get_args

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import paired_distances
from sklearn.preprocessing import StandardScaler

from .._errors import InputError
from ..metrics._arrays import has_vector, neighbours
from ..statistics import class_centroids, fit_temperature, probabilities

Method = Literal["knn", "centroid", "logistic"]
Metric = Literal["cosine", "euclidean", "manhattan"]
Labeller = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # to probabilities and classes
_MAX_ITER = 2000


def labeller(
    method: str, reference: np.ndarray, codes: np.ndarray, n_classes: int, *, k: int, metric: str
) -> Labeller:
    """What labels vectors, some at a time: made once from the reference."""
    if method == "knn":
        return by_neighbours(reference, codes, n_classes, k=k, metric=metric)
    if method == "centroid":
        return by_centroids(reference, codes, n_classes, metric=metric)
    return by_regression(reference, codes)


def by_neighbours(
    reference: np.ndarray, codes: np.ndarray, n_classes: int, *, k: int, metric: str
) -> Labeller:
    """Share of each class among the k nearest cells, and the winner; ties go to the nearest."""

    def label(query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        voters = codes[neighbours(reference, query, k, metric)]
        shares = np.zeros((len(query), n_classes))
        np.add.at(shares, (np.arange(len(query))[:, None], voters), 1 / voters.shape[1])
        votes = np.take_along_axis(shares, voters, axis=1)
        first = (votes >= votes.max(axis=1, keepdims=True) - 1e-9).argmax(axis=1)
        return shares, voters[np.arange(len(query)), first]

    return label


def by_centroids(
    reference: np.ndarray, codes: np.ndarray, n_classes: int, *, metric: str
) -> Labeller:
    """Softmax of the distances to the class means, and the nearest.

    The temperature is fitted on the reference, each cell measured from the mean of its class
    without it.
    """
    centroids = class_centroids(reference, codes, n_classes).astype(np.float64)
    temperature = _centroid_temperature(reference, codes, centroids, metric)

    def label(query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distances = pairwise_distances(query, centroids, metric=metric)
        chances = probabilities(-distances, temperature)
        return chances, chances.argmax(axis=1)

    return label


def by_regression(reference: np.ndarray, codes: np.ndarray) -> Labeller:
    """Logistic regression (L2, C = 1) on standardised dimensions."""
    scaler = StandardScaler().fit(reference)
    model = LogisticRegression(C=1.0, max_iter=_MAX_ITER).fit(scaler.transform(reference), codes)

    def label(query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chances = model.predict_proba(scaler.transform(query))
        return chances, chances.argmax(axis=1)

    return label


def group_means(parts: Iterable[np.ndarray], groups: np.ndarray, width: int) -> np.ndarray:
    """Mean vector of each group of cells; those without a vector have no part in it.

    Parameters
    ----------
    parts
        Vectors of consecutive cells.
    groups
        Group of each cell, from 0.
    width
        Of a vector.

    Returns
    -------
    Float64 `(n_groups, width)`; zero for a group without a vector.
    """
    n_groups, done = int(groups.max()) + 1, 0
    sums, n = np.zeros((n_groups, width)), np.zeros(n_groups, np.int64)
    for some in parts:
        own, kept = groups[done : done + len(some)], has_vector(some)
        np.add.at(sums, own[kept], some[kept].astype(np.float64))
        n += np.bincount(own[kept], minlength=n_groups)
        done += len(some)
    return sums / np.maximum(n, 1)[:, None]


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
