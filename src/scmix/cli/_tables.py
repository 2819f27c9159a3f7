"""Results as a table for a spreadsheet."""

from pathlib import Path

import pandas as pd

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def columns_of(obs: pd.DataFrame, key: str) -> pd.DataFrame:
    """The columns that were written under a key."""
    return obs[[name for name in obs if name == key or str(name).startswith(f"{key}_")]]


def write_table(table: pd.DataFrame, path: Path, *, index: str | None = None) -> None:
    """Write a table, such that no spreadsheet takes text in it for a formula."""
    plain = table.apply(_without_formulas)
    if index is not None:
        plain.insert(0, index, _without_formulas(table.index.to_series()))
    plain.to_csv(path, index=False)


def _without_formulas(values: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
        return values
    text = values.astype(object)
    return text.map(lambda one: f"'{one}" if str(one).startswith(_FORMULA) else one)
