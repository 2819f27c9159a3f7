"""How gene names are spelled: what is removed from them, ignored in them, and read back."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from ._errors import GeneIdError

_GENOME = re.compile(
    r"(?P<human>GRCh3[78]|hg19|hg38)?(?P<mouse>GRCm3[89]|mm9|mm10|mm39)?[A-Za-z0-9.-]*?_+(?=[^_])"
)
_ENSEMBL = re.compile(r"(ENS(?:MUS)?G\d{11})(?:\.\d+)?(?:_PAR_Y)?$")
_MONTHS = {"mar": ("MARCH", "MARC"), "sep": ("SEPT",), "dec": ("DEC",), "oct": ("OCT",)}
_EXCEL = re.compile(r"(?:(\d{1,2})-(Mar|Sep|Dec|Oct)|(Mar|Sep|Dec|Oct)-(\d{1,2}))$", re.IGNORECASE)


def as_names(names: Iterable[str]) -> np.ndarray:
    """Take gene names as an array of text; refuse anything that is not text."""
    values = np.asarray(names if hasattr(names, "__array__") else list(names), dtype=object)
    if len(values) and pd.api.types.infer_dtype(values, skipna=False) != "string":
        wrong = np.array([not isinstance(name, str) for name in values], bool)
        first = int(np.argmax(wrong))
        raise GeneIdError(
            f"Found {int(wrong.sum())} gene names that are not text (first: {values[first]!r}, a "
            f"{type(values[first]).__name__}, in column {first}). Expected symbols or Ensembl "
            "ids; set adata.var_names to them."
        )
    return values


def clean(names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Remove genome prefixes and versions; also the species that each prefix says, -1 for none."""
    cleaned, code = names.copy(), np.full(len(names), -1, np.int8)
    for i, name in enumerate(names):
        prefix = _GENOME.match(name) if "_" in name else None
        if prefix and (prefix["human"] or prefix["mouse"]):
            name, code[i] = name[prefix.end() :], 1 if prefix["mouse"] else 0
        upper = name[:3].upper() == "ENS" and _ENSEMBL.match(name.upper())
        cleaned[i] = upper[1] if upper else name
    return cleaned, code


def fold(names: Iterable[str]) -> np.ndarray:
    """Ignore case and what R does to names: `.` and `_` for `-`, an `X` before a digit."""
    folded = [name.lower().replace(".", "-").replace("_", "-") for name in names]
    short = [name[1:] if name[:1] == "x" and name[1:2].isdecimal() else name for name in folded]
    return np.array(short, dtype=object)


def excel_candidates(names: Iterable[str]) -> dict[str, list[str]]:
    """Symbols that Excel turns into each date among the names: `1-Mar` for MARCH1 and MARC1."""
    dates = {name: _EXCEL.match(name) for name in names if "-" in name}
    candidates = {}
    for name, date in dates.items():
        if date:
            number, month = int(date[1] or date[4]), (date[2] or date[3]).lower()
            candidates[name] = [f"{stem}{number}" for stem in _MONTHS[month]]
    return candidates
