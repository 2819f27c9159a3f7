"""The names of a vocabulary's genes, looked up."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd

from ._gene_spelling import clean, excel_candidates, fold

# Best first; "respelled" is a match in another case or punctuation.
KINDS = ("none", "Ensembl id", "symbol", "alias", "respelled symbol", "respelled alias", "date")
NONE, ENSEMBL, SYMBOL, ALIAS, RESPELLED, RESPELLED_ALIAS, EXCEL = range(len(KINDS))
UNKNOWN, AMBIGUOUS = -1, -2


@dataclass(frozen=True, eq=False)
class _Index:
    """Distinct names, with the gene of each."""

    names: pd.Index
    row: np.ndarray
    kind: np.ndarray

    @classmethod
    def of(cls, names: np.ndarray, rows: np.ndarray, kinds: np.ndarray) -> Self:
        """Keep the best kind of match of a name, which comes first."""
        code, distinct = pd.factorize(names)
        first = np.full(len(distinct), len(names))
        np.minimum.at(first, code, np.arange(len(names)))
        row, kind = rows[first], kinds[first]
        rivals = (kinds == kind[code]) & (rows != row[code])
        row[code[rivals]] = AMBIGUOUS
        return cls(pd.Index(distinct, dtype=object), row, kind)

    def get(self, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = self.names.get_indexer(pd.Index(names, dtype=object))
        row = np.where(at < 0, UNKNOWN, self.row[at])
        return row, np.where(at < 0, NONE, self.kind[at])


@dataclass(frozen=True, eq=False)
class Lookup:
    """The names of the genes of one species, each with the row of its gene.

    A symbol beats an alias; a name that two genes claim with equal right has the row AMBIGUOUS.
    """

    names: np.ndarray  # best kind of match first
    rows: np.ndarray
    kinds: np.ndarray

    @classmethod
    def of(cls, genes: pd.DataFrame, species: str) -> Self:
        """Collect the names of one species of a vocabulary's table."""
        table = genes.reset_index(drop=True)
        table = table[table.species == species]
        aliases = table.aliases.str.split("|").explode()
        names = pd.concat([table.ensembl_id, table.symbol, aliases]).astype(object)
        kinds = np.repeat([ENSEMBL, SYMBOL, ALIAS], [len(table), len(table), len(aliases)])
        named = (names != "").to_numpy(bool)
        rows = names.index.to_numpy(np.int32)
        return cls(names.to_numpy()[named], rows[named], kinds[named].astype(np.int8))

    def find(self, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and kinds of match, (2, n): names as they are, and in any spelling."""
        (row, kind), (any_row, any_kind) = self._exact.get(names), self.find_folded(names)
        return np.stack([row, any_row]), np.stack([kind, any_kind])

    def find_folded(self, names: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._folded.get(fold(names))

    @cached_property
    def _exact(self) -> _Index:
        return _Index.of(self.names, self.rows, self.kinds)

    @cached_property
    def _folded(self) -> _Index:
        return _Index.of(fold(self.names), self.rows, self.kinds)


@dataclass(frozen=True, eq=False)
class Names:
    """All names of all species, as they stand in a vocabulary."""

    lookups: tuple[Lookup, ...]

    def find(self, names: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row and kind of match in each species, (n_species, n), and the species of prefixes.

        Names that are an id or symbol as they are (most of them, mostly) are found at once; the
        others are cleaned before.
        """
        known, all_rows, all_kinds = self._plain
        at = known.get_indexer(pd.Index(names, dtype=object))
        rows, kinds = all_rows[..., at], all_kinds[..., at]
        genome, rest = np.full(len(names), -1, np.int8), np.flatnonzero(at < 0)
        cleaned, genome[rest] = clean(names[rest])
        dates = excel_candidates(cleaned)
        # Some tables list a date as an alias: not to be trusted.
        spelled = np.array(["" if name in dates else name for name in cleaned], dtype=object)
        rows[..., rest], kinds[..., rest] = self._both_spellings(spelled)
        found = [_resolve(*pair) for pair in zip(rows, kinds, strict=True)]
        for name, candidates in dates.items():
            here = rest[cleaned == name]
            for lookup, (row, kind) in zip(self.lookups, found, strict=True):
                row[here] = _row_of_date(lookup, candidates, row)
                kind[here] = EXCEL
        row, kind = (np.stack(arrays) for arrays in zip(*found, strict=True))
        other = (genome >= 0) & (genome != np.arange(len(row))[:, None])
        row[other] = UNKNOWN
        return row, np.where(row < 0, NONE, kind), genome

    @cached_property
    def _plain(self) -> tuple[pd.Index, np.ndarray, np.ndarray]:
        """Ids and symbols that cleaning leaves as they are, and what they are in each species."""
        best = [lookup.names[lookup.kinds <= SYMBOL] for lookup in self.lookups]
        names = pd.unique(np.concatenate(best))
        dates = excel_candidates(names)
        names = names[(clean(names)[0] == names) & [name not in dates for name in names]]
        return pd.Index(names, dtype=object), *self._both_spellings(names)

    def _both_spellings(self, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [lookup.find(names) for lookup in self.lookups]
        return np.stack([rows for rows, _ in found]), np.stack([kinds for _, kinds in found])


def _resolve(rows: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose between names as they are and in any spelling."""
    (row, any_row), (kind, any_kind) = rows, kinds
    rest, sure = row == UNKNOWN, (kind == ENSEMBL) | (kind == SYMBOL)
    if (any_kind[rest] == SYMBOL).sum() > sure.sum():
        # Names in another case throughout: HP is the symbol Hp then, not some gene's alias HP.
        rest = ~sure
    respelled = np.where(any_kind == ALIAS, RESPELLED_ALIAS, RESPELLED)
    return np.where(rest, any_row, row), np.where(rest, respelled, kind).astype(np.int8)


def _row_of_date(lookup: Lookup, candidates: list[str], taken: np.ndarray) -> int:
    """The one gene that a date can stand for, leaving out genes that have a column already."""
    rows = np.unique(lookup.find_folded(candidates)[0])
    rows = rows[rows >= 0]
    left = rows[~np.isin(rows, taken)] if len(rows) > 1 else rows
    return UNKNOWN if len(rows) == 0 else int(left[0]) if len(left) == 1 else AMBIGUOUS
