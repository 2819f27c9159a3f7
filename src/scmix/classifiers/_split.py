"""Which labelled cells are set aside to choose and to calibrate by."""

import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from .._errors import InputError

SMALLEST_SPLIT = 5  # classes with fewer cells are trained on only


def by_class(codes: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Set aside a share of every class.

    Parameters
    ----------
    codes
        Class of each cell, -1 for none: these stay in training.
    share
        Share of the cells.
    seed
        Says which.

    Returns
    -------
    Whether a cell is set aside, bool (n_cells,). Classes with fewer than five cells give none,
    larger ones at least one.
    """
    rng = np.random.default_rng([seed, 0])
    chosen = np.zeros(codes.size, dtype=bool)
    for code in range(codes.max(initial=-1) + 1):
        cells = np.flatnonzero(codes == code)
        n = max(1, round(share * cells.size)) if cells.size >= SMALLEST_SPLIT else 0
        chosen[rng.permutation(cells)[:n]] = True
    return chosen


def by_group(codes: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Set aside whole groups (donors, batches) with about a share of the cells.

    Of the folds that :class:`sklearn.model_selection.StratifiedGroupKFold` offers, the one that
    leaves most classes in training, and of these the one of the size nearest to the share.

    Parameters
    ----------
    codes
        Class of each cell.
    groups
        Group of each cell, int; at least two different ones.
    share
        Share of the cells.
    seed
        Says which.

    Returns
    -------
    Whether a cell is set aside, bool (n_cells,).
    """
    n_groups = np.unique(groups).size
    n_folds = int(np.clip(round(1 / share), 2, n_groups))
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # that a class has fewer cells than folds: seen to below
        warnings.simplefilter("ignore", UserWarning)
        offered = [fold for _, fold in folds.split(codes, codes, groups) if fold.size]
    best = min(offered, key=lambda fold: _cost(codes, fold, share))
    return np.isin(np.arange(codes.size), best)


def _cost(codes: np.ndarray, fold: np.ndarray, share: float) -> tuple[int, float]:
    lost = np.setdiff1d(codes, np.delete(codes, fold)).size
    return lost, abs(fold.size / codes.size - share)


def named(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Read a column that says which cells are set aside.

    Parameters
    ----------
    column
        Bool (True: set aside), or text: "train", "validation", "test". Cells of the test split
        are used for nothing.

    Returns
    -------
    Whether a cell is set aside, and whether it is used at all: bool (n_cells,) each.
    """
    if column.isna().any():
        raise InputError(
            f"Found {int(column.isna().sum())} missing values in {column.name!r}; expected a bool, "
            'or "train", "validation" or "test", for every cell.'
        )
    if pd.api.types.is_bool_dtype(column.dtype):
        aside = column.to_numpy(bool)
        return aside, np.ones(aside.size, bool)
    text = column.astype(str).to_numpy(str)
    strange = sorted(set(text) - {"train", "validation", "test"})
    if strange:
        raise InputError(
            f"Found {str(strange[0])!r} in {column.name!r}; expected a bool, or "
            '"train", "validation" or "test".'
        )
    return text == "validation", text != "test"


def set_aside(codes: np.ndarray, groups: np.ndarray | None, share: float, seed: int) -> np.ndarray:
    """Set aside cells by group where there are groups, else by class."""
    if groups is not None and np.unique(groups).size > 1:
        return by_group(codes, groups, share, seed)
    return by_class(codes, share, seed)
