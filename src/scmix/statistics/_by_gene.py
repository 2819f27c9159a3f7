"""One value per perturbed gene and cell, brought together by gene."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from .._errors import InputError


def coded(genes: Sequence[Hashable]) -> tuple[pd.Index, NDArray[np.intp]]:
    """Different genes in order of appearance, and which of them each value is of."""
    codes, labels = pd.factorize(pd.Index(list(genes)))
    if not len(codes):
        raise InputError("Found no values; expected one per perturbed gene and cell.")
    return pd.Index(labels), codes


def checked(codes: NDArray, values: ArrayLike) -> NDArray[np.float64]:
    """Values as numbers, as many as genes."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != codes.shape:
        raise InputError(f"Found {array.shape} values for {codes.shape} genes; expected as many.")
    return array


def means(codes: NDArray, values: ArrayLike) -> NDArray[np.float64]:
    """Mean of each gene."""
    return np.bincount(codes, weights=checked(codes, values)) / np.bincount(codes)


def groups(codes: NDArray, values: ArrayLike) -> list[NDArray[np.float64]]:
    """Values of each gene."""
    order = np.argsort(codes, kind="stable")
    return np.split(checked(codes, values)[order], np.cumsum(np.bincount(codes))[:-1])


def table(
    labels: pd.Index, names: pd.DataFrame | None, columns: Mapping[str, NDArray]
) -> pd.DataFrame:
    """One row per gene: the gene, its names, and the columns."""
    front = {} if names is None else {c: names[c].reindex(labels).to_numpy() for c in names}
    return pd.DataFrame({"Gene": labels, **front, **columns})
