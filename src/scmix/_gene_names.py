"""Names of genes as people have them: cleaned, looked up, and their species recognised."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

from ._errors import GeneIdError, InputError

if TYPE_CHECKING:
    from .genes import Vocabulary

SPECIES = ("human", "mouse")

# Best first; "respelled" is a match in another case or punctuation.
KINDS = ("none", "Ensembl id", "symbol", "alias", "respelled symbol", "respelled alias", "date")
NONE, ENSEMBL, SYMBOL, ALIAS, RESPELLED, RESPELLED_ALIAS, EXCEL = range(len(KINDS))
UNKNOWN, AMBIGUOUS = -1, -2

BOTH_ABOVE = 0.1  # share of the recognised names that only the rarer species can explain
MARGIN = 0.02  # a smaller lead does not tell the species, but the spelling of the names does

_SPECIES_NAMES = (  # lower case, letters and digits only
    {"human", "homosapiens", "hsapiens", "hs", "hsa", "9606", "ncbitaxon9606", "taxid9606"},
    {"mouse", "musmusculus", "mmusculus", "mm", "mmu", "10090", "ncbitaxon10090", "taxid10090"},
)
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
    for code, names in enumerate(_SPECIES_NAMES):
        if key in names:
            return code
    raise InputError(f"Found species {value!r}; expected 'human' or 'mouse'.")


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


def as_names(names: Iterable[str]) -> pd.Series:
    """Take gene names as text; refuse anything that is not text."""
    values = np.asarray(names if hasattr(names, "__array__") else list(names), dtype=object)
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
    parts = names.str.extract(_EXCEL).set_axis(names.to_numpy()).dropna(how="all")
    parts = parts[~parts.index.duplicated()].fillna("")
    number, month = parts[0] + parts[3], (parts[1] + parts[2]).str.lower()
    return {
        name: [f"{stem}{int(number[name])}" for stem in _MONTHS[month[name]]]
        for name in parts.index
    }


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
        dates = excel_candidates(names)  # some tables list a date as an alias: not to be trusted
        row, kind = self._exact.get(names.where(~names.isin(list(dates)), ""))
        rest = row == UNKNOWN
        found, found_kind = self._folded.get(fold(names[rest]))
        if (found_kind == SYMBOL).sum() > np.isin(kind, (ENSEMBL, SYMBOL)).sum():
            # Names in another case throughout: HP is the symbol Hp then, not some gene's alias HP.
            rest = (kind != ENSEMBL) & (kind != SYMBOL)
            found, found_kind = self._folded.get(fold(names[rest]))
        row[rest] = found
        kind[rest] = np.where(found_kind == ALIAS, RESPELLED_ALIAS, RESPELLED)
        row[names.isin(list(dates))] = UNKNOWN
        for date, candidates in dates.items():
            here = (names == date).to_numpy()
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


@dataclass(frozen=True, eq=False)
class Detection:
    """What gene names look like.

    Parameters
    ----------
    species
        `"human"`, `"mouse"`, `"both"`, or None when no name is known.
    id_type
        `"Ensembl id"`, `"symbol"`, `"mixed"` or `"unknown"`.
    shares
        Share of the names recognised: one row per species, one column per kind of match.
    """

    species: str | None
    id_type: str
    shares: pd.DataFrame

    def __str__(self) -> str:
        return "; ".join(
            f"{species}: "
            + (", ".join(f"{kind} {v:.0%}" for kind, v in row.items() if v > 0) or "nothing")
            for species, row in self.shares.iterrows()
        )


@dataclass(frozen=True, eq=False)
class SeenNames:
    """Names, cleaned, and what they are in each species."""

    original: pd.Series
    names: pd.Series
    genome: np.ndarray  # species that a prefix names, -1 for none
    rows: np.ndarray  # (2, n): row of the gene in its table; negative: unknown or ambiguous
    kinds: np.ndarray  # (2, n)

    @classmethod
    def of(cls, names: pd.Series, vocabulary: "Vocabulary") -> "SeenNames":
        cleaned, genome = strip_genome(names)
        cleaned = strip_version(cleaned)
        # Names of a species that the vocabulary lacks are known too, so that they can be named.
        own = vocabulary._lookups
        known = own if len(own) == len(SPECIES) else {**type(vocabulary).bundled()._lookups, **own}
        found = [known[name].find(cleaned) for name in SPECIES]
        rows, kinds = np.stack([f[0] for f in found]), np.stack([f[1] for f in found])
        for code in range(len(SPECIES)):
            other = (genome >= 0) & (genome != code)
            rows[code, other], kinds[code, other] = UNKNOWN, NONE
        return cls(names, cleaned, genome, rows, kinds)

    @cached_property
    def detection(self) -> Detection:
        counts = np.stack([np.bincount(kind, minlength=len(KINDS)) for kind in self.kinds])
        table = pd.DataFrame(counts[:, 1:], index=list(SPECIES), columns=list(KINDS[1:]))
        species = self._species()
        code = 0 if species in (None, "both") else SPECIES.index(species)
        kinds = self.kinds.max(axis=0) if species == "both" else self.kinds[code]
        return Detection(species, id_type_of(kinds), table / max(len(self.names), 1))

    def as_spelled(self) -> np.ndarray:
        """Bool, (2, n): names that a species writes like this."""
        return (self.kinds > NONE) & (self.kinds < RESPELLED)

    def _species(self) -> str | None:
        known, exact = (self.kinds > NONE) & (self.kinds < EXCEL), self.as_spelled()
        n_known = int(known.any(axis=0).sum())
        if n_known == 0:
            return None
        only = exact & ~exact[::-1]
        if only.sum(axis=1).min() >= BOTH_ABOVE * n_known:
            return "both"
        in_any_spelling, as_spelled = known.sum(axis=1), exact.sum(axis=1)
        if as_spelled.max() < 0.5 * n_known:  # neither species writes names like this
            lead = np.isin(self.kinds, (ENSEMBL, SYMBOL, RESPELLED)).sum(axis=1)
        else:
            telling = np.ptp(in_any_spelling) > max(MARGIN * n_known, 2)
            lead = in_any_spelling if telling else as_spelled
        return SPECIES[int(np.argmax(lead))]


def detect(names: Iterable[str], vocabulary: "Vocabulary") -> Detection:
    """Recognise the species and the kind of gene names.

    The species is the one that knows more of the names when case is ignored; where both know as
    many, their spelling decides (`GAPDH` human, `Gapdh` mouse). So upper-cased mouse symbols are
    not taken for human ones.

    Parameters
    ----------
    names
        Symbols or Ensembl ids.
    vocabulary
        The genes to look among.

    Returns
    -------
    The species, the kind of ids, and the shares of names recognised.

    Examples
    --------
    >>> from scmix.genes import Vocabulary, detect
    >>> detect(["Gapdh", "Cd3e", "Actb"], Vocabulary.bundled()).species
    'mouse'
    """
    return SeenNames.of(as_names(names), vocabulary).detection


def n_known(names: Iterable[str], vocabulary: "Vocabulary") -> int:
    """Count the names that are genes of either species."""
    return int((SeenNames.of(as_names(names), vocabulary).kinds > 0).any(axis=0).sum())


def id_type_of(kind: np.ndarray) -> str:
    n, n_ids = int((kind > 0).sum()), int((kind == ENSEMBL).sum())
    if n == 0:
        return "unknown"
    if 0.1 * n < n_ids < 0.9 * n:
        return "mixed"
    return "Ensembl id" if n_ids > 0.5 * n else "symbol"
