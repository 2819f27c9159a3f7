"""How well labels can be read from an embedding."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import accuracy_score, f1_score, recall_score, silhouette_score

from .._errors import InputError
from ._arrays import categories, has_vector, matrix, neighbours, other_neighbours, subset

UNASSIGNED = "unassigned"


def knn_transfer(
    reference: ArrayLike,
    labels: Iterable,
    query: ArrayLike,
    *,
    k: int = 5,
    metric: str = "cosine",
) -> NDArray[np.str_]:
    """Label query cells by a vote among their nearest reference cells.

    A tied vote goes to the label, of those tied, that has the nearest cell.

    Parameters
    ----------
    reference
        Embedding of the labelled cells (n_reference, n_dimensions).
    labels
        Their labels (n_reference,), taken as strings.
    query
        Embedding of the cells to label (n_query, n_dimensions).
    k
        Number of neighbours; all reference cells when there are fewer.
    metric
        Distance, as scikit-learn names it.

    Returns
    -------
    Predicted labels (n_query,). A query cell without a vector is `"unassigned"`.

    Raises
    ------
    InputError
        If lengths differ or no reference cell has a vector.

    Examples
    --------
    >>> from scmix.metrics import knn_transfer
    >>> knn_transfer([[1, 0], [0, 1]], ["alpha", "beta"], [[2, 1], [1, 3]], k=1).tolist()
    ['alpha', 'beta']
    """
    reference, query = matrix(reference), matrix(query)
    names, codes = categories(labels, len(reference))
    kept = has_vector(reference)
    if not kept.any():
        raise InputError("Found no reference cell with a vector; expected at least one.")
    asked = has_vector(query)
    votes = np.full(len(query), len(names))
    if asked.any():
        nearest = neighbours(reference[kept], query[asked], k, metric)
        votes[asked] = _vote(codes[kept][nearest], len(names))
    return np.append(names, UNASSIGNED)[votes]


def knn_probabilities(
    reference: ArrayLike,
    labels: ArrayLike,
    query: ArrayLike,
    n_classes: int,
    *,
    k: int = 5,
    metric: str = "cosine",
) -> NDArray[np.float64]:
    """Share of each class among a query cell's nearest reference cells.

    The largest share is that of the label `knn_transfer` gives: nearer cells count for a
    millionth more, which decides tied votes.

    Parameters
    ----------
    reference
        Embedding of the labelled cells (n_reference, n_dimensions), without NaN.
    labels
        Their classes (n_reference,), 0 to `n_classes` - 1.
    query
        Embedding of the cells to label (n_query, n_dimensions), without NaN.
    n_classes
        Number of classes.
    k
        Number of neighbours; all reference cells when there are fewer.
    metric
        Distance, as scikit-learn names it.

    Returns
    -------
    float64 (n_query, n_classes); rows add up to 1.

    Examples
    --------
    >>> from scmix.metrics import knn_probabilities
    >>> points = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]
    >>> knn_probabilities(points, [0, 0, 1], [[1.0, 0.2]], 2, k=3).round(2)
    array([[0.67, 0.33]])
    """
    codes = np.asarray(labels, dtype=np.intp)
    nearest = neighbours(matrix(reference), matrix(query), k, metric)
    weights = 1 + 1e-6 * 0.5 ** np.arange(nearest.shape[1])
    votes = np.zeros((len(nearest), n_classes))
    np.add.at(votes, (np.arange(len(nearest))[:, None], codes[nearest]), weights)
    return votes / weights.sum()


def classification_scores(truth: Iterable, predicted: Iterable) -> dict[str, float]:
    """Accuracy and its relatives, with the majority-class rate to compare with.

    Cells predicted `"unassigned"` are left out and counted. Averages run over the labels that
    occur in `truth`.

    Parameters
    ----------
    truth, predicted
        Labels (n_cells,), compared as strings.

    Returns
    -------
    dict with `n_cells` (scored), `n_left_out`, `majority_rate`, `accuracy`,
    `balanced_accuracy` and `macro_f1`.

    Raises
    ------
    InputError
        If lengths differ or no cell is left.

    Examples
    --------
    >>> from scmix.metrics import classification_scores
    >>> scores = classification_scores(["a", "a", "b"], ["a", "b", "b"])
    >>> round(scores["accuracy"], 3), round(scores["balanced_accuracy"], 3)
    (0.667, 0.75)
    """
    true = np.asarray(list(truth), dtype=str)
    guess = np.asarray(list(predicted), dtype=str)
    if len(true) != len(guess):
        raise InputError(f"Found {len(true)} true and {len(guess)} predicted labels.")
    kept = guess != UNASSIGNED
    if not kept.any():
        raise InputError("Found no cell with a predicted label; expected at least one.")
    names, sizes = np.unique(true[kept], return_counts=True)
    average = {"labels": names, "average": "macro", "zero_division": 0}
    return {
        "n_cells": int(kept.sum()),
        "n_left_out": int((~kept).sum()),
        "majority_rate": float(sizes.max() / sizes.sum()),
        "accuracy": float(accuracy_score(true[kept], guess[kept])),
        "balanced_accuracy": float(recall_score(true[kept], guess[kept], **average)),
        "macro_f1": float(f1_score(true[kept], guess[kept], **average)),
    }


def silhouette(
    embedding: ArrayLike,
    labels: Iterable,
    *,
    metric: str = "cosine",
    max_cells: int = 10_000,
    seed: int = 0,
) -> float:
    """Mean silhouette width of labels: 1 well apart, about 0 for labels at random, -1 misplaced.

    Parameters
    ----------
    embedding
        Array (n_cells, n_dimensions).
    labels
        Labels (n_cells,).
    metric
        Distance, as scikit-learn names it.
    max_cells
        Above this many cells a random subset is scored (time grows with the square).
    seed
        Draws that subset.

    Returns
    -------
    Mean over cells, between -1 and 1.

    Raises
    ------
    InputError
        If there are fewer than two labels, or as many labels as cells.

    Examples
    --------
    >>> from scmix.metrics import silhouette
    >>> round(silhouette([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], ["a", "a", "b", "b"]), 2)
    0.99
    """
    points = matrix(embedding)
    _, codes = categories(labels, len(points))
    kept = has_vector(points)
    n_labels, n_cells = len(np.unique(codes[kept])), int(kept.sum())
    if not 2 <= n_labels < n_cells:
        raise InputError(
            f"Found {n_labels} labels among {n_cells} cells; the silhouette needs at least two "
            "labels and one label with two cells."
        )
    chosen = subset(np.flatnonzero(kept), max_cells, np.random.default_rng(seed))
    return float(silhouette_score(points[chosen], codes[chosen], metric=metric))


def knn_purity(
    embedding: ArrayLike,
    labels: Iterable,
    *,
    k: int = 15,
    metric: str = "cosine",
    max_cells: int = 10_000,
    seed: int = 0,
) -> float:
    """Share of a cell's nearest neighbours that carry its own label, mean over cells.

    Chance is the sum over labels of p (n_label - 1) / (n_cells - 1), with p the label's share.

    Parameters
    ----------
    embedding
        Array (n_cells, n_dimensions).
    labels
        Labels (n_cells,).
    k
        Number of neighbours, the cell itself not counted.
    metric
        Distance, as scikit-learn names it.
    max_cells
        Above this many cells, the neighbours (among all cells) of a random subset are looked at.
    seed
        Draws that subset.

    Returns
    -------
    Between 0 and 1.

    Raises
    ------
    InputError
        If fewer than two cells have a vector.

    Examples
    --------
    >>> from scmix.metrics import knn_purity
    >>> knn_purity([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], ["a", "a", "b", "b"], k=1)
    1.0
    """
    points = matrix(embedding)
    _, codes = categories(labels, len(points))
    kept = has_vector(points)
    if kept.sum() < 2:
        raise InputError(f"Found {kept.sum()} cells with a vector; expected at least two.")
    points, codes = points[kept], codes[kept]
    asked = subset(np.arange(len(points)), max_cells, np.random.default_rng(seed))
    nearest = other_neighbours(points, asked, k, metric)
    return float((codes[nearest] == codes[asked][:, None]).mean())


def _vote(codes: NDArray[np.intp], n_labels: int) -> NDArray[np.intp]:
    counts = np.zeros((len(codes), n_labels), dtype=np.intp)
    np.add.at(counts, (np.arange(len(codes))[:, None], codes), 1)
    votes = np.take_along_axis(counts, codes, axis=1)
    winner = (votes == votes.max(axis=1, keepdims=True)).argmax(axis=1)
    return codes[np.arange(len(codes)), winner]
