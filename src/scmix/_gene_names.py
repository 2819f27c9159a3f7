"""Names of genes as people have them: cleaned, and looked up in a vocabulary."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd

from ._errors import GeneIdError, InputError

SPECIES = ("human", "mouse")

# Best first; "respelled" is a match in another case or punctuation.
KINDS = (
    "none", "Ensembl id", "symbol", "alias", "respelled symbol", "respelled alias", "Excel date",
)  # fmt: skip
NONE, ENSEMBL, SYMBOL, ALIAS, RESPELLED, RESPELLED_ALIAS, EXCEL = range(len(KINDS))
UNKNOWN, AMBIGUOUS = -1, -2

_SPECIES_NAMES = {
    "human": 0,
    "homosapiens": 0,
    "hsapiens": 0,
    "hs": 0,
    "hsa": 0,
    "9606": 0,
    "ncbitaxon9606": 0,
    "taxid9606": 0,
    "mouse": 1,
    "musmusculus": 1,
    "mmusculus": 1,
    "mm": 1,
    "mmu": 1,
    "10090": 1,
    "ncbitaxon10090": 1,
    "taxid10090": 1,
}
_GENOME = re.compile(
    r"^(?P<human>GRCh3[78]|hg19|hg38)?(?P<mouse>GRCm3[89]|mm9|mm10|mm39)?[A-Za-z0-9.-]*?_+(?=[^_])"
)
_ENSEMBL = r"^(ENS(?:MUS)?G\d{11})(?:\.\d+)?(?:_PAR_Y)?$"
_MONTHS = {"mar": ("MARCH", "MARC"), "sep": ("SEPT",), "dec": ("DEC",), "oct": ("OCT",)}
_EXCEL = re.compile(r"^(?:(\d{1,2})-(Mar|Sep|Dec|Oct)|(Mar|Sep|Dec|Oct)-(\d{1,2}))$", re.IGNORECASE)


def species_code(value: object) -> int:
    """Code of a species (0 human, 1 mouse) from any of its usual names.

    Parameters
    ----------
    value
        Such as `"human"`, `"Homo sapiens"`, `"hs"`, `9606`, `"NCBITaxon:9606"`.

    Returns
    -------
    The code.

    Raises
    ------
    InputError
        The name is none of human or mouse.

    Examples
    --------
    >>> species_code("Homo sapiens"), species_code("NCBITaxon:10090")
    (0, 1)
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    key = re.sub(r"[^a-z0-9]", "", str(value).lower())
    if key not in _SPECIES_NAMES:
        raise InputError(f"Found species {value!r}; expected 'human' or 'mouse'.")
    return _SPECIES_NAMES[key]


def species_codes(values: pd.Series | np.ndarray) -> np.ndarray:
    """Species code of every cell from a column of names.

    Parameters
    ----------
    values
        One name per cell, as in :func:`species_code`.

    Returns
    -------
    Int8 codes: 0 human, 1 mouse.

    Raises
    ------
    InputError
        A value is missing or none of human or mouse.

    Examples
    --------
    >>> species_codes(["mouse", "Homo sapiens"])
    array([1, 0], dtype=int8)
    """
    codes, names = pd.factorize(pd.Series(np.asarray(values, dtype=object)))
    if (codes < 0).any():
        raise InputError(
            f"Found {int((codes < 0).sum())} cells without a species (first: cell "
            f"{int(np.argmax(codes < 0))}). Expected 'human' or 'mouse' for each; fill them in."
        )
    return np.array([species_code(name) for name in names], np.int8)[codes]


def as_names(names: object) -> pd.Series:
    """Take gene names as text; refuse anything that is not text."""
    values = np.asarray(names, dtype=object)
    if values.ndim != 1:
        raise GeneIdError(f"Found gene names of {values.ndim} dimensions; expected one per column.")
    wrong = np.array([not isinstance(name, str) for name in values], bool)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise GeneIdError(
            f"Found {int(wrong.sum())} gene names that are not text (first: {values[first]!r}, a "
            f"{type(values[first]).__name__}, in column {first}). Expected symbols or Ensembl "
            "ids; set adata.var_names to them."
        )
    return pd.Series(values.astype(str), dtype=str)


def strip_genome(names: pd.Series) -> tuple[pd.Series, np.ndarray]:
    """Remove prefixes such as `GRCh38_` and `mm10___`; also the species each says, -1 for none."""
    parts = names.str.extract(_GENOME)
    human, mouse = parts["human"].notna().to_numpy(), parts["mouse"].notna().to_numpy()
    found = human | mouse
    code = np.where(found, np.where(mouse, 1, 0), -1).astype(np.int8)
    if not found.any():
        return names, code
    return names.where(~found, names.str.replace(_GENOME, "", regex=True)), code


def strip_version(names: pd.Series) -> pd.Series:
    """Remove the version of Ensembl ids: `ENSG00000111640.15` becomes `ENSG00000111640`."""
    upper = names.str.upper()
    return upper.str.extract(_ENSEMBL, expand=False).fillna(names).astype(str)


def fold(names: pd.Series) -> pd.Series:
    """Ignore case and what R does to names: `.` and `_` for `-`, an `X` before a digit."""
    folded = names.str.lower().str.translate({ord("."): "-", ord("_"): "-"})
    prefixed = folded.str.match(r"x\d").to_numpy()
    return folded.where(~prefixed, folded.str[1:])


def excel_candidates(names: pd.Series) -> dict[str, list[str]]:
    """Symbols that Excel turns into each date among the names: `1-Mar` for MARCH1 and MARC1."""
    mangled = names[names.str.fullmatch(_EXCEL)].unique()
    parts = {name: [part for part in _EXCEL.fullmatch(name).groups() if part] for name in mangled}
    candidates = {}
    for name, (one, two) in parts.items():
        number, month = (one, two) if one.isdigit() else (two, one)
        candidates[name] = [f"{stem}{int(number)}" for stem in _MONTHS[month.lower()]]
    return candidates


@dataclass(frozen=True, eq=False)
class Lookup:
    """The names of the genes of one species, each with the row of its gene.

    A symbol beats an alias; a name that two genes claim with equal right has the row AMBIGUOUS.
    """

    names: pd.Series  # best kind of match first
    rows: np.ndarray
    kinds: np.ndarray

    @classmethod
    def of(cls, genes: pd.DataFrame, species: str) -> Self:
        """Collect the names of one species of a vocabulary's table."""
        table = genes.reset_index(drop=True)
        table = table[table.species == species]
        aliases = table.aliases[table.aliases != ""].str.split("|").explode()
        symbols = table.symbol[table.symbol != ""]
        names = pd.concat([table.ensembl_id, symbols, aliases])
        kinds = np.repeat([ENSEMBL, SYMBOL, ALIAS], [len(table), len(symbols), len(aliases)])
        return cls(names.reset_index(drop=True), names.index.to_numpy(), kinds)

    def find(self, names: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        """Row (UNKNOWN and AMBIGUOUS are negative) and kind of match of every name."""
        row, kind = self._exact.get(names)
        rest = row == UNKNOWN
        if rest.any():
            row[rest], found = self._folded.get(fold(names[rest]))
            kind[rest] = np.where(found == ALIAS, RESPELLED_ALIAS, RESPELLED)
        for name, candidates in excel_candidates(names[row == UNKNOWN]).items():
            here = (names == name).to_numpy()
            row[here], kind[here] = self._excel_row(candidates, row), EXCEL
        return row, np.where(row < 0, NONE, kind).astype(np.int8)

    @cached_property
    def _exact(self) -> "_Index":
        return _Index.of(self.names, self.rows, self.kinds)

    @cached_property
    def _folded(self) -> "_Index":
        return _Index.of(fold(self.names), self.rows, self.kinds)

    def _excel_row(self, candidates: list[str], taken: np.ndarray) -> int:
        """The one gene that a date can stand for, leaving out genes that have a column already."""
        rows = np.unique(self._folded.get(fold(pd.Series(candidates, dtype=str)))[0])
        rows = rows[rows >= 0]
        left = rows[~np.isin(rows, taken)] if len(rows) > 1 else rows
        return UNKNOWN if len(rows) == 0 else int(left[0]) if len(left) == 1 else AMBIGUOUS


@dataclass(frozen=True, eq=False)
class _Index:
    """Distinct names, with the gene of each."""

    names: pd.Index
    row: np.ndarray
    kind: np.ndarray

    @classmethod
    def of(cls, names: pd.Series, rows: np.ndarray, kinds: np.ndarray) -> Self:
        """Keep the best kind of match of a name, which comes first."""
        code, distinct = pd.factorize(names)
        first = np.full(len(distinct), len(names))
        np.minimum.at(first, code, np.arange(len(names)))
        row, kind = rows[first], kinds[first]
        rivals = (kinds == kind[code]) & (rows != row[code])
        row[code[rivals]] = AMBIGUOUS
        return cls(pd.Index(distinct), row, kind)

    def get(self, names: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        at = self.names.get_indexer(pd.Index(names))
        row = np.where(at < 0, UNKNOWN, self.row[at])
        return row, np.where(at < 0, NONE, self.kind[at])
