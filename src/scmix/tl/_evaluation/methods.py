"""Methods that stand in the table: each takes a fold and gives class probabilities."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from ... import metrics
from .folds import N_COMPS, N_TOP_GENES, Fold
from .representations import Representation

Probabilities = NDArray[np.float64]
N_NEIGHBORS = 5
_MAX_ITER = 1_000


@dataclass(frozen=True, eq=False)
class Method:
    """A row of the table.

    Parameters
    ----------
    representation
        What cells are described by.
    classifier
        What reads labels from it.
    kind
        `"baseline"`, `"scmix"`, `"yours"` or `"other"`.
    predict
        Takes a fold, gives probabilities of the test cells (n_test, n_classes).
    seeded
        Whether another seed gives another result on the same split.
    calibrated
        Whether rows are probabilities; else they are scores whose order counts alone.
    missing
        Package that is not installed, so that `predict` cannot be called.
    """

    representation: str
    classifier: str
    kind: str
    predict: Callable[[Fold], Probabilities]
    seeded: bool = False
    calibrated: bool = True
    missing: str = ""


def baselines() -> list[Method]:
    """What every table holds; leads are measured from the last one."""
    return [
        Method("none", "majority", "baseline", majority),
        Method(f"PCA-{N_COMPS}", "kNN, labels shuffled", "baseline", shuffled, seeded=True),
        Method(f"PCA-{N_COMPS}", "kNN", "baseline", pca_knn),
        Method(f"PCA-{N_COMPS}", "logistic regression", "baseline", pca_logistic),
        Method(f"{N_TOP_GENES:,} genes", "logistic regression", "baseline", genes_logistic),
    ]


def on_vectors(of: Representation) -> list[Method]:
    """Nearest neighbours and logistic regression on vectors that exist already."""

    def neighbours(fold: Fold) -> Probabilities:
        return _where_known(of.vectors, fold, knn, metric="cosine")

    def regression(fold: Fold) -> Probabilities:
        return _where_known(of.vectors, fold, scaled_logistic)

    return [
        Method(of.name, "kNN", of.kind, neighbours),
        Method(of.name, "logistic regression", of.kind, regression),
    ]


def majority(fold: Fold) -> Probabilities:
    """Class frequencies of the training part for every cell."""
    return np.tile(fold.frequencies, (fold.test.size, 1))


def pca_knn(fold: Fold) -> Probabilities:
    """Nearest neighbours on principal components."""
    train, test = fold.components
    return knn(train, fold.labels, test, fold.n_classes, metric="euclidean")


def pca_logistic(fold: Fold) -> Probabilities:
    """Logistic regression on principal components, which keep their scale."""
    train, test = fold.components
    return logistic(train, fold.labels, test, fold.n_classes)


def shuffled(fold: Fold) -> Probabilities:
    """The same with labels that say nothing: the floor of every score."""
    train, test = fold.components
    labels = fold.rng.permutation(fold.labels)
    return knn(train, labels, test, fold.n_classes, metric="euclidean")


def genes_logistic(fold: Fold) -> Probabilities:
    """Logistic regression on log counts of highly variable genes.

    Not on z-scores: these blow up rare genes. On 400 cells they cost 0.08 of macro-F1 for PBMC 3k,
    0.03 for intestine, 0.29 from human to mouse pancreas, which would flatter all beside it.
    """
    train, test = fold.variable
    return logistic(train, fold.labels, test, fold.n_classes)


def knn(
    train: NDArray, labels: NDArray, test: NDArray, n_classes: int, metric: str
) -> Probabilities:
    """Share of each class among the nearest training cells."""
    return metrics.knn_probabilities(train, labels, test, n_classes, k=N_NEIGHBORS, metric=metric)


def logistic(train: Any, labels: NDArray, test: Any, n_classes: int) -> Probabilities:
    """Multinomial logistic regression with scikit-learn's penalty (L2, C = 1)."""
    out = np.zeros((test.shape[0], n_classes))
    present = np.unique(labels)
    if present.size == 1:
        out[:, present] = 1.0
        return out
    fitted = LogisticRegression(max_iter=_MAX_ITER).fit(train, labels)
    out[:, present] = fitted.predict_proba(test)
    return out


def scaled_logistic(
    train: NDArray, labels: NDArray, test: NDArray, n_classes: int
) -> Probabilities:
    """The same on vectors of any scale: centred and divided by one number, of the training part.

    Dividing each dimension by its own spread would blow up the last components of a PCA: on
    orthologues of human and mouse pancreas, macro-F1 fell from 0.97 to 0.35.
    """
    middle = train.mean(axis=0)
    scale = np.sqrt(train.var(axis=0).mean()) or 1.0
    return logistic((train - middle) / scale, labels, (test - middle) / scale, n_classes)


def class_codes(names: Iterable[str], fold: Fold) -> NDArray[np.intp]:
    """Codes of classes by their names."""
    place = {name: code for code, name in enumerate(fold.names.tolist())}
    return np.array([place[str(name)] for name in names], dtype=np.intp)


def in_class_order(values: NDArray, names: Iterable[str], fold: Fold) -> Probabilities:
    """Columns of some classes in the order of all; zero for the others, rows add up to 1."""
    out = np.zeros((len(values), fold.n_classes))
    out[:, class_codes(names, fold)] = values
    total = out.sum(axis=1, keepdims=True)
    return out / np.where(total > 0, total, 1)


def _where_known(
    vectors: NDArray[np.floating],
    fold: Fold,
    classify: Callable[..., Probabilities],
    **options: Any,
) -> Probabilities:
    """Probabilities of the test cells; class frequencies for those without a vector."""
    known = metrics.has_vector(vectors)
    out = majority(fold)
    usable = known[fold.train]
    asked = known[fold.test]
    if usable.any() and asked.any():
        train = vectors[fold.train][usable]
        test = vectors[fold.test][asked]
        out[asked] = classify(train, fold.labels[usable], test, fold.n_classes, **options)
    return out
