"""Sets of labels that hold the true one as often as asked (split-conformal prediction).

For new cells that are exchangeable with the calibration cells, and for those only: cells of
another species, assay or tissue have no such guarantee.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._errors import InputError
from ._calibration import check_labelled

Method = Literal["lac", "aps"]


def conformal_threshold(
    probabilities: ArrayLike,
    labels: ArrayLike,
    alpha: float = 0.1,
    method: Method = "lac",
    *,
    by_class: bool = False,
    seed: int | None = None,
) -> float | NDArray[np.float64]:
    """Find how unlikely a label may be and still belong to a cell's set.

    `"lac"` scores a label by 1 minus its probability [1]_: the smallest sets, empty for cells that
    resemble no class. `"aps"` adds up the probabilities of all labels at least as likely [2]_:
    larger sets, never empty, that hold the true label about as often for hard cells as for easy
    ones. The threshold is the ceil((n + 1) (1 - alpha))-th smallest score of the true labels.

    Parameters
    ----------
    probabilities
        Of calibration cells (n_cells, n_classes).
    labels
        Their true classes (n_cells,), as columns.
    alpha
        Share of cells whose set may miss the true label, between 0 and 1.
    method
        `"lac"` or `"aps"`.
    by_class
        A threshold for every class from its own cells, so that rare classes are covered as often
        as common ones. A class with fewer than 1 / alpha - 1 cells is then in every set.
    seed
        Breaks the steps of `"aps"` at random, which makes its sets smaller and its coverage
        exact; not at random when None. Pass one to :func:`conformal_sets` as well.

    Returns
    -------
    The threshold, or float64 (n_classes,). Infinite where there are too few cells.

    Raises
    ------
    InputError
        If `alpha` or `method` is not as above, or cells and labels do not fit together.

    References
    ----------
    .. [1] Sadinle, Lei and Wasserman (2019). Least ambiguous set-valued classifiers with bounded
       error levels. JASA 114.
    .. [2] Romano, Sesia and Candès (2020). Classification with valid and adaptive coverage.
       NeurIPS.

    Examples
    --------
    >>> from scmix.statistics import conformal_threshold
    >>> chances = [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]]
    >>> round(conformal_threshold(chances, [0, 0, 1, 1], alpha=0.4), 3)  # third of four scores
    0.4
    """
    chances, true = check_labelled(probabilities, labels)
    scores = _scores(chances, method, _stream(seed, 0))[np.arange(len(true)), true]
    if not by_class:
        return upper_quantile(scores, alpha)
    classes = range(chances.shape[1])
    return np.array([upper_quantile(scores[true == c], alpha) for c in classes])


def conformal_sets(
    probabilities: ArrayLike,
    threshold: float | ArrayLike,
    method: Method = "lac",
    *,
    seed: int | None = None,
) -> NDArray[np.bool_]:
    """Labels that cannot be ruled out for each cell.

    Parameters
    ----------
    probabilities
        Array (n_cells, n_classes).
    threshold
        Of :func:`conformal_threshold`, made with the same `method`.
    method
        `"lac"` or `"aps"`.
    seed
        As in :func:`conformal_threshold`.

    Returns
    -------
    Boolean (n_cells, n_classes). With `"lac"` a row without True resembles no class; with `"aps"`
    the most likely label is always in. A row of NaN is all False.

    Examples
    --------
    >>> from scmix.statistics import conformal_sets
    >>> conformal_sets([[0.9, 0.1], [0.5, 0.5]], threshold=0.4)
    array([[ True, False],
           [False, False]])
    """
    chances = np.asarray(probabilities, dtype=np.float64)
    sets = _scores(chances, method, _stream(seed, 1)) <= np.asarray(threshold, np.float64)
    if method == "aps" and len(chances):
        sets[np.arange(len(chances)), chances.argmax(axis=1)] = True
    return sets & ~np.isnan(chances)


def coverage(sets: ArrayLike, labels: ArrayLike) -> float:
    """Share of cells whose set holds the true label.

    Parameters
    ----------
    sets
        Of :func:`conformal_sets`.
    labels
        True classes (n_cells,), as columns.

    Examples
    --------
    >>> from scmix.statistics import coverage
    >>> coverage([[True, False], [True, True]], [1, 1])
    0.5
    """
    held, true = check_labelled(sets, labels)
    return float(held[np.arange(len(true)), true].mean())


def class_coverage(sets: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Share of each class's cells whose set holds it (n_classes,); NaN for a class without cells.

    Parameters
    ----------
    sets, labels
        As in :func:`coverage`.

    Examples
    --------
    >>> from scmix.statistics import class_coverage
    >>> class_coverage([[True, False], [True, True], [True, False]], [1, 1, 0])
    array([1. , 0.5])
    """
    held, true = check_labelled(sets, labels)
    hits = held[np.arange(len(true)), true]
    sizes = np.bincount(true, minlength=held.shape[1]).astype(np.float64)
    sizes[sizes == 0] = np.nan
    return np.bincount(true, weights=hits, minlength=held.shape[1]) / sizes


def upper_quantile(scores: NDArray[np.float64], alpha: float) -> float:
    """The ceil((n + 1) (1 - alpha))-th smallest score: a new one is above it at most so often."""
    if not 0 < alpha < 1:
        raise InputError(f"Found alpha={alpha}; expected a number between 0 and 1, such as 0.1.")
    if np.isnan(scores).any():
        raise InputError(
            f"Found {np.isnan(scores).sum()} NaN among {len(scores)} scores; leave them out."
        )
    # (n + 1) (1 - alpha) as written gives 9.000000000000002 for 9 cells and alpha = 0.1
    rank = int(np.ceil(np.round((len(scores) + 1) * (1 - alpha), 9)))
    if rank > len(scores):
        return float("inf")
    return float(np.partition(scores, rank - 1)[rank - 1])


def _stream(seed: int | None, number: int) -> np.random.Generator | None:
    """Random numbers of their own for calibration (0) and new cells (1)."""
    return None if seed is None else np.random.default_rng([seed, number])


def _scores(
    chances: NDArray[np.float64], method: Method, rng: np.random.Generator | None
) -> NDArray[np.float64]:
    """How far each label is from being the cell's, between 0 and 1."""
    if method == "lac":
        return 1 - chances
    if method != "aps":
        raise InputError(f"Found method={method!r}; expected one of {get_args(Method)}.")
    order = np.argsort(-chances, axis=1, kind="stable")
    descending = np.take_along_axis(chances, order, axis=1)
    up_to = np.cumsum(descending, axis=1)
    if rng is not None:
        up_to -= rng.random((len(chances), 1)) * descending
    scores = np.empty_like(chances)
    np.put_along_axis(scores, order, up_to, axis=1)
    return scores
