"""Which labelled cells are set aside to choose and to calibrate by."""

import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from .._errors import InputError

SMALLEST_SPLIT = 5  # classes with fewer cells are trained on only
FEWEST_APART = 50  # cells to choose by, and as many to calibrate by
N_PARTS = 5


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
    Whether a cell is set aside, bool (n_cells,). Classes give none that have fewer than five cells,
    or so few that the share is less than one cell: of six training cells, one would be a sixth.
    Where that leaves nobody, those of five cells or more give one.
    """
    rng = np.random.default_rng([seed, 0])
    chosen = np.zeros(codes.size, dtype=bool)
    sizes = np.bincount(codes[codes >= 0])
    for code, n in enumerate(_n_aside(sizes, share)):
        chosen[rng.permutation(np.flatnonzero(codes == code))[:n]] = True
    return chosen


def _n_aside(sizes: np.ndarray, share: float) -> np.ndarray:
    """Number of cells that each class gives."""
    divided, expected = sizes >= SMALLEST_SPLIT, share * sizes
    n = np.where(divided & (expected >= 1), expected.round(), 0).astype(int)
    return n if n.any() else divided.astype(int)


def by_group(codes: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Set aside whole groups (donors, batches) with about a share of the cells.

    Of the folds that :class:`sklearn.model_selection.StratifiedGroupKFold` offers, the one that
    leaves most classes in training, and of these the one of the size nearest to the share.

    Parameters
    ----------
    codes
        Class of each cell (n_cells,), or for several keys (n_cells, n_keys); folds are stratified
        by the first.
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
    table = codes.reshape(len(codes), -1)
    with warnings.catch_warnings():  # that a class has fewer cells than folds: seen to below
        warnings.simplefilter("ignore", UserWarning)
        offered = [fold for _, fold in folds.split(table, table[:, 0], groups) if fold.size]
    best = min(offered, key=lambda fold: _cost(table, fold, share))
    return np.isin(np.arange(len(table)), best)


def _cost(codes: np.ndarray, fold: np.ndarray, share: float) -> tuple[int, float]:
    """Classes of any key that would be in no training cell, and how far from the share."""
    kept = np.delete(codes, fold, axis=0)
    lost = sum(np.setdiff1d(one, left).size for one, left in zip(codes.T, kept.T, strict=True))
    return lost, abs(fold.size / len(codes) - share)


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
    """Set aside cells by group where there are groups, else by class of the first key.

    Parameters
    ----------
    codes
        Class of each cell for each key (n_cells, n_keys), -1 for none.
    groups, share, seed
        As in :func:`by_group`.

    Returns
    -------
    Whether a cell is set aside, bool (n_cells,). Where cells are not set aside by group, a class
    of another key of which no cell would be left stays in training.
    """
    if groups is not None and np.unique(groups).size > 1:
        return by_group(codes, groups, share, seed)
    aside = by_class(codes[:, 0], share, seed)
    for of_key in codes.T[1:]:
        aside &= ~np.isin(of_key, np.setdiff1d(of_key[of_key >= 0], of_key[~aside]))
    return aside


def divide(
    aside: np.ndarray, codes: np.ndarray, groups: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the cells set aside: by one half the epoch is chosen, by the other calibrated.

    Whole groups are divided where four or more are set aside, else the cells of each class. What
    is chosen by its score on some cells does better on them than on others, and would be too sure.

    Parameters
    ----------
    aside
        Which cells are set aside, bool (n_cells,).
    codes
        Class of each cell, -1 for none.
    groups
        Group of each cell; None: not known.
    seed
        Says which.

    Returns
    -------
    Which cells choose and which calibrate, bool (n_cells,) each; the same ones where a half would
    have fewer than 50 cells.
    """
    cells = np.flatnonzero(aside)
    if groups is not None and np.unique(groups[cells]).size >= 4:
        chooses = by_group(codes[cells], groups[cells], 0.5, seed)
    else:
        chooses = _halves(codes[cells], seed)
    if min(chooses.sum(), (~chooses).sum()) < FEWEST_APART:
        return aside, aside
    half = np.zeros(aside.size, bool)
    half[cells[chooses]] = True
    return half, aside & ~half


def _halves(codes: np.ndarray, seed: int) -> np.ndarray:
    """Every other cell of each class, in random order; odd ones calibrate."""
    order = np.random.default_rng([seed, 1]).permutation(codes.size)
    order = order[np.argsort(codes[order], kind="stable")]
    place = np.arange(codes.size) - np.searchsorted(codes[order], codes[order])
    chooses = np.zeros(codes.size, bool)
    chooses[order] = place % 2 == 1
    return chooses


def in_parts(
    codes: np.ndarray, groups: np.ndarray | None, marks: np.ndarray, seed: int
) -> np.ndarray:
    """Divide cells into five parts for cross-validation, by group where there are groups.

    Parameters
    ----------
    codes
        Class of each cell.
    groups
        Group of each cell; None: not known. With fewer groups than parts, each is one.
    marks
        uint64 by which a cell is known, so that parts do not depend on the order of the cells.
    seed
        Says which.

    Returns
    -------
    Part of each cell (n_cells,).
    """
    part = np.zeros(codes.size, np.int64)
    if groups is not None and (n_groups := np.unique(groups).size) > 1:
        folds = StratifiedGroupKFold(min(N_PARTS, n_groups), shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # classes with few cells
            for i, (_, rows) in enumerate(folds.split(codes, codes, groups)):
                part[rows] = i
        return part
    with np.errstate(over="ignore"):
        mixed = marks * np.uint64(2 * seed + 1)  # odd: no two marks become one
    part[np.lexsort((mixed, codes))] = np.arange(codes.size) % N_PARTS
    return part
