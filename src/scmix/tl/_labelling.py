"""What tools that label cells share: labels read from `obs`, results written to their slots."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from .._errors import InputError, MissingKeyError
from .._warn import warn
from .._writer import is_ours
from ..classifiers._labels import encode
from ._reading import check_target

UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class Labels:
    """A column of labels.

    Parameters
    ----------
    codes
        Class of each cell (n_cells,); -1 where there is none.
    classes
        Names of the classes that have a cell, in the order of the column's categories.
    """

    codes: np.ndarray
    classes: np.ndarray


def read_labels(adata: AnnData, label_key: str) -> Labels:
    """Labels of a reference. Cells without one are left out, with a warning."""
    if label_key not in adata.obs:
        close = get_close_matches(label_key, map(str, adata.obs.columns))
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise MissingKeyError(
            f"Found no column {label_key!r} in obs of the reference; there are "
            f"{list(map(str, adata.obs.columns))}.{hint}"
        )
    encoded = encode({label_key: adata.obs[label_key]})
    codes = encoded.codes[:, 0]
    n_missing = int((codes < 0).sum())
    if n_missing:
        warn(
            f'{n_missing:,} of {len(codes):,} cells of the reference have no obs["{label_key}"]; '
            "they are left out."
        )
    return Labels(codes, encoded.classes[label_key])


def check_slots(adata: AnnData, key: str, *, overwrite: bool, copy: bool) -> None:
    """Refuse, before any work is done, to write where something else is."""
    check_target(adata, "obs", key, overwrite=overwrite, copy=copy)
    others = (
        ("obs", "confidence"),
        ("obs", "distance"),
        ("obsm", "probabilities"),
        ("obsm", "sets"),
    )
    for slot, name in others:
        taken = f"{key}_{name}" in getattr(adata, slot) and not is_ours(adata.uns.get(key))
        if taken and not overwrite:
            raise InputError(
                f'{slot}["{key}_{name}"] exists already. Pass overwrite=True, or another key_added.'
            )


def label_slots(
    key: str,
    codes: np.ndarray,
    categories: Sequence[str] | np.ndarray,
    confidence: np.ndarray,
    probabilities: np.ndarray,
    made: dict[str, Any],
) -> dict[tuple[str, str], Any]:
    """What to write: labels (code -1: none), how sure they are, and how they were made."""
    names = pd.Index(np.asarray(categories, dtype=str))
    return {
        ("obs", key): pd.Categorical.from_codes(codes, categories=names),
        ("obs", f"{key}_confidence"): confidence.astype(np.float32),
        ("obsm", f"{key}_probabilities"): probabilities.astype(np.float32),
        ("uns", key): made,
    }


def of_label(probabilities: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Probability of each cell's own label; NaN for a cell without one."""
    own = np.take_along_axis(probabilities, np.maximum(codes, 0)[:, None], axis=1)[:, 0]
    return np.where(codes < 0, np.nan, own)


def warn_without_vector(n_empty: int, n_cells: int, key: str) -> None:
    """Say that some cells have no label because they have no gene the model knows."""
    if n_empty:
        warn(
            f"{n_empty:,} of {n_cells:,} cells have no count of a gene that the model knows; their "
            f'obs["{key}"] is missing.'
        )
