"""Encoders fine-tuned on states, each on other donors than it will read."""

import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData

from .._errors import InputError
from ..classifiers import CellClassifier, Recipe
from ._fine_tune import fine_tune
from ._perturbation._states import texts_of
from ._perturbation._tables import FEWEST_DONORS


def cross_fit(
    adata: AnnData,
    state_key: str,
    donor_key: str,
    *,
    n_folds: int = 2,
    recipe: str | Recipe = "tuned",
    seed: int = 0,
    out: "str | PathLike[str] | None" = None,
    **options: Any,
) -> list[CellClassifier]:
    """Fine-tune encoders on states so that each donor has one that has not seen it.

    Donors are divided into folds with about as many of each state in each; a classifier is
    trained on the donors outside of every fold. `scmix.tl.perturb(..., model=classifiers)` reads
    each donor by the classifier that has not seen it. An encoder that was trained on the very
    cells it judges shows a difference between the states whether there is one or not.

    Parameters
    ----------
    adata
        Raw counts, states and donors. Cells without a state or a donor are left out.
    state_key
        Column of `obs` with the states.
    donor_key
        Column of `obs` with the donors.
    n_folds
        How many parts the donors are divided into. Every fold is tested by itself: three donors
        of each state in each of them are the fewest that give p-values.
    recipe
        As in `scmix.tl.fine_tune`; "fast" would leave the encoder as it is.
    seed
        Of the folds and the training.
    out
        Folder of the runs, one for each fold: interrupted ones go on when called again.
    **options
        Of `scmix.tl.fine_tune`, such as `model`, `epochs`, `species_key` or `layer`.

    Returns
    -------
    A classifier for each fold.

    Raises
    ------
    InputError
        If there are fewer donors of a state than folds, or an option of `fine_tune` is wrong.
    MissingKeyError
        If a column does not exist.

    Examples
    --------
    >>> import scmix
    >>> cells = scmix.datasets.pancreas()
    >>> cells = cells[cells.obs["species"] == "mouse", cells.var["species"] == "mouse"][::8].copy()
    >>> cells = cells[cells.obs["cell_type"].isin(["alpha", "beta"])].copy()
    >>> cells.obs["donor"] = [f"donor {i % 4}" for i in range(cells.n_obs)]
    >>> len(scmix.tl.cross_fit(cells, "cell_type", "donor", epochs=0))
    2
    """
    taken = {"groups", "validation_key", "label_key"} & set(options)
    if taken:
        raise InputError(
            f"Found {', '.join(sorted(taken))}; expected none: donors are what is divided."
        )
    states, donors = texts_of(adata, state_key), texts_of(adata, donor_key)
    known = (states != "") & (donors != "")
    fold = _folds(states[known], donors[known], n_folds, seed)
    rows, made = np.flatnonzero(known), []
    for number in range(n_folds):
        made.append(
            fine_tune(
                adata[rows[fold != number]],
                state_key,
                groups=donor_key,
                recipe=recipe,
                seed=seed,
                out=None if out is None else Path(out) / f"fold_{number}",
                **options,
            )
        )
    return made


def _folds(states: np.ndarray, donors: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Fold of each cell: donors with the same states are dealt out in turn."""
    names, donor = np.unique(donors, return_inverse=True)
    kinds, state = np.unique(states, return_inverse=True)
    has = np.zeros((len(names), len(kinds)), bool)
    has[donor, state] = True
    fewest = has.sum(axis=0)
    if n_folds < 2 or fewest.min() < n_folds:
        raise InputError(
            f"Found n_folds={n_folds} and {fewest.min()} donors in state "
            f"{str(kinds[fewest.argmin()])!r}; expected 2 folds or more, and a donor of every "
            "state in each."
        )
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.lexsort(has[shuffled].T)]
    fold = np.empty(len(names), np.int64)
    fold[order] = np.arange(len(names)) % n_folds
    in_fold = np.array([has[fold == number].sum(axis=0) for number in range(n_folds)])
    if in_fold.min() < 1:
        raise InputError(
            f"Found a fold of {n_folds} without a donor in a state; expected one of each. Make "
            "fewer folds, or pass another seed."
        )
    if in_fold.min() < FEWEST_DONORS:
        warnings.warn(
            f"A fold has {in_fold.min()} donors in state "
            f"{str(kinds[in_fold.min(axis=0).argmin()])!r}; p-values need {FEWEST_DONORS} of each "
            "state in every fold. Effects will be descriptive.",
            stacklevel=3,
        )
    return fold[donor]
