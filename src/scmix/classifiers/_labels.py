"""Labels of cells as numbers, in category order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .._errors import InputError
from .._warn import warn

RESERVED = {"", "unknown", "unassigned"}


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of cells, for one or several questions.

    Parameters
    ----------
    codes
        int32 (n_cells, n_keys): column of the class, -1 where a cell has no label.
    classes
        Label key to names of its classes, in category order.
    dropped
        Label key to the classes left out because they are rare.
    """

    codes: np.ndarray
    classes: dict[str, np.ndarray]
    dropped: dict[str, list[str]]

    @property
    def labelled(self) -> np.ndarray:
        """Whether a cell has any label."""
        return np.any(self.codes >= 0, axis=1)

    def __getitem__(self, rows: np.ndarray) -> "Labels":
        return Labels(self.codes[rows], self.classes, self.dropped)


def encode(columns: Mapping[str, pd.Series], *, rare_share: float = 0.0) -> Labels:
    """Number the labels of cells by category order.

    Parameters
    ----------
    columns
        Label key to a column of `obs`. Categories keep their order, other values are sorted;
        categories without a cell are left out, missing values are no label.
    rare_share
        Classes with this share of a key's labelled cells or less are left out.

    Returns
    -------
    The labels. Warnings say how many cells have none and which classes are rare.

    Raises
    ------
    InputError
        A key has fewer than two classes, or a label is reserved for cells without one.

    Examples
    --------
    >>> import pandas as pd
    >>> column = pd.Categorical(["B", "A", None, "A"], categories=["B", "A", "C"])
    >>> labels = encode({"cell_type": pd.Series(column)})
    >>> labels.codes.ravel(), labels.classes["cell_type"]
    (array([ 0,  1, -1,  1], dtype=int32), array(['B', 'A'], dtype='<U1'))
    """
    codes, classes, dropped = [], {}, {}
    for key, column in columns.items():
        numbers, names = _categories(key, column)
        numbers, classes[key], dropped[key] = _without_rare(key, numbers, names, rare_share)
        codes.append(numbers)
    return Labels(np.stack(codes, axis=1).astype(np.int32), classes, dropped)


def _categories(key: str, column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(column.dtype, pd.CategoricalDtype):
        column = pd.Series(pd.Categorical(column.to_numpy(object), categories=_sorted(column)))
    used = column.cat.remove_unused_categories()
    names = np.array([_text(value) for value in used.cat.categories], dtype=str)
    repeated = names[pd.Index(names).duplicated()]
    if repeated.size:
        raise InputError(
            f"Found different labels in {key!r} that both read {str(repeated[0])!r}; expected "
            "labels that differ as text. Rename one."
        )
    reserved = [name for name in names if name.strip().lower() in RESERVED]
    if reserved:
        raise InputError(
            f"Found the label {str(reserved[0])!r} in {key!r}, which means that a cell has none. "
            f"Set it to missing (adata.obs[{key!r}].replace) to leave them out, or rename it."
        )
    return used.cat.codes.to_numpy(np.int32), names


def _sorted(column: pd.Series) -> list[Any]:
    """The values in order: numbers by size, mixed types by their text."""
    values = list(pd.unique(column.dropna()))
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=str)


def _text(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer()  # integers beside missing values
    return str(int(value) if whole else value)


def _without_rare(
    key: str, codes: np.ndarray, names: np.ndarray, rare_share: float
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    sizes = np.bincount(codes[codes >= 0], minlength=names.size)
    rare = sizes <= rare_share * sizes.sum()
    if (~rare).sum() < 2:
        kept = ", ".join(names[~rare]) or "none"
        raise InputError(
            f"Found {(~rare).sum()} classes to tell apart in {key!r} ({kept}); expected at least "
            "two. Choose another column" + (", or a lower rare_share." if rare.any() else ".")
        )
    if rare.any():
        warn(
            f"Left out {rare.sum()} classes of {key!r} with {rare_share:.1%} of the cells or less: "
            f"{', '.join(names[rare])}."
        )
    place = np.where(rare, -1, np.cumsum(~rare) - 1).astype(np.int32)
    return np.where(codes >= 0, place[codes], -1), names[~rare], list(map(str, names[rare]))
