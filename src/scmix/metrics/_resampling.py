"""Scores of predicted labels, and how far they would move with other donors or cells."""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from .._errors import InputError

_AT_ONCE = 2_000_000  # weights of units held at a time: 16 MB
SCORES = ("accuracy", "balanced_accuracy", "macro_f1")


def label_scores(truth: ArrayLike, predicted: ArrayLike, n_classes: int) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro-F1 of labels given as codes.

    As `classification_scores`, but every cell counts: one without a prediction is a miss. Means
    run over the classes that occur in `truth`.

    Parameters
    ----------
    truth
        Class of each cell (n_cells,), 0 to `n_classes` - 1.
    predicted
        Predicted class (n_cells,); -1 for none.
    n_classes
        Number of classes.

    Returns
    -------
    dict with `accuracy`, `balanced_accuracy` and `macro_f1`.

    Raises
    ------
    InputError
        If lengths differ, there is no cell, or a code is out of range.

    Examples
    --------
    >>> from scmix.metrics import label_scores
    >>> scores = label_scores([0, 0, 1, 1], [0, 1, 1, -1], 2)
    >>> {name: round(score, 3) for name, score in scores.items()}
    {'accuracy': 0.5, 'balanced_accuracy': 0.5, 'macro_f1': 0.583}
    """
    true, guess = _codes(truth, predicted, n_classes)
    tallies = _tallies(true, guess, np.zeros(true.size, dtype=np.intp), n_classes)
    dense = (part.toarray() for part in tallies)
    return {name: float(score[0]) for name, score in _scores(*dense).items()}


def bootstrap_label_scores(
    truth: ArrayLike,
    predicted: ArrayLike,
    n_classes: int,
    *,
    units: ArrayLike | None = None,
    n_draws: int = 1000,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Draw whole donors (or cells) with replacement and score the labels of each draw.

    Cells of a donor are alike, so that donors are what has to be drawn again; its cells come with
    it. The same `units` and `seed` give the same draws, whatever was predicted: the difference of
    two results is that of a paired comparison.

    Parameters
    ----------
    truth
        Class of each cell (n_cells,), 0 to `n_classes` - 1.
    predicted
        Predicted class (n_cells,), -1 for none; or (n_runs, n_cells), whose scores are averaged
        within each draw.
    n_classes
        Number of classes.
    units
        Donor of each cell (n_cells,), as codes from 0; every cell by itself when None.
    n_draws
        Number of draws.
    seed
        Draws them.

    Returns
    -------
    dict with `accuracy`, `balanced_accuracy` and `macro_f1`, each (n_draws,); quantiles are
    :func:`numpy.quantile` of them.

    Raises
    ------
    InputError
        If lengths differ, there is no cell, or a code is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from scmix.metrics import bootstrap_label_scores
    >>> truth, predicted, donor = [0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 1, 1]
    >>> draws = bootstrap_label_scores(truth, predicted, 2, units=donor, n_draws=200)
    >>> np.unique(draws["accuracy"]).tolist()  # the second donor twice, both, the first twice
    [0.5, 0.75, 1.0]
    """
    runs = np.atleast_2d(np.asarray(predicted))
    true, _ = _codes(truth, runs[0], n_classes)
    unit = np.arange(true.size) if units is None else np.asarray(units, dtype=np.intp)
    if unit.shape != true.shape or unit.min() < 0:
        raise InputError(
            f"Found units of shape {unit.shape} from {unit.min(initial=0)}; expected a code of 0 "
            f"or more for each of {true.size} cells."
        )
    tallies = [_tallies(true, _codes(true, run, n_classes)[1], unit, n_classes) for run in runs]
    out: dict[str, list[NDArray]] = {name: [] for name in SCORES}
    for weights in _draws(int(unit.max()) + 1, n_draws, seed):
        by_run = [_scores(*(weights @ part for part in tally)) for tally in tallies]
        for name in SCORES:
            out[name].append(np.mean([scores[name] for scores in by_run], axis=0))
    return {name: np.concatenate(parts) for name, parts in out.items()}


def _codes(truth: ArrayLike, predicted: ArrayLike, n_classes: int) -> tuple[NDArray, NDArray]:
    true, guess = np.asarray(truth), np.asarray(predicted)
    if true.ndim != 1 or true.shape != guess.shape or not true.size:
        raise InputError(
            f"Found true labels of shape {true.shape} and predicted ones of shape {guess.shape}; "
            "expected one of each for every cell, and at least one cell."
        )
    if true.min() < 0 or guess.min() < -1 or max(true.max(), guess.max()) >= n_classes:
        raise InputError(
            f"Found classes from {min(true.min(), guess.min())} to "
            f"{max(true.max(), guess.max())}; expected 0 to {n_classes - 1}, -1 only for a cell "
            "without a prediction."
        )
    return true.astype(np.intp), guess.astype(np.intp)


def _tallies(
    true: NDArray, guess: NDArray, unit: NDArray, n_classes: int
) -> tuple[sp.csr_matrix, sp.csr_matrix, sp.csr_matrix]:
    """Cells of each unit and class: labelled right, truly there, predicted."""
    shape = (int(unit.max()) + 1, n_classes)

    def count(rows: NDArray, columns: NDArray) -> sp.csr_matrix:
        return sp.csr_matrix((np.ones(rows.size), (rows, columns)), shape)

    right, named = true == guess, guess >= 0
    return (
        count(unit[right], true[right]),
        count(unit, true),
        count(unit[named], guess[named]),
    )


def _draws(n_units: int, n_draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each unit was drawn: (some draws, n_units), all draws in the end."""
    rng = np.random.default_rng(seed)
    at_once = max(_AT_ONCE // n_units, 1)
    chances = np.full(n_units, 1 / n_units)
    for start in range(0, n_draws, at_once):
        size = min(at_once, n_draws - start)
        yield rng.multinomial(n_units, chances, size=size).astype(np.float64)


def _scores(right: NDArray, there: NDArray, named: NDArray) -> dict[str, NDArray]:
    """Scores of tallies (n, n_classes); classes that are not there have no part in the means."""
    present = there > 0
    n_present = present.sum(axis=1)
    recall = np.divide(right, there, out=np.zeros_like(right), where=present)
    f1 = np.divide(2 * right, there + named, out=np.zeros_like(right), where=present)
    return {
        "accuracy": right.sum(axis=1) / there.sum(axis=1),
        "balanced_accuracy": recall.sum(axis=1) / n_present,
        "macro_f1": f1.sum(axis=1) / n_present,
    }
