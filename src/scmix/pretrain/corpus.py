"""A corpus: the gene tokens of many cells in a folder of plain arrays, mapped into memory."""

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from .._errors import InputError
from ..batches import Sequences
from ..genes import SPECIES, Vocabulary
from ._report import report_text
from ._store import (
    COLUMN,
    MEASURED,
    ORGAN,
    PER_CELL,
    VOCABULARY,
    Shard,
    cell_file,
    check_arrays,
    check_file,
    gather,
    open_array,
    read_manifest,
    shard_files,
)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Ranked gene tokens of many cells, as :func:`build_corpus` writes them.

    Parameters
    ----------
    path
        The folder.
    shards
        Gene tokens of all cells by rank, without special tokens, and on request their counts.
    indptr
        Where each cell starts, and where the last one ends: int64, shape ``(n_cells + 1,)``,
        counted through all shards.
    species
        Species code of each cell, int8.
    dataset
        Data set code of each cell, int32; names are in ``datasets``.
    totals
        Count of each cell over all genes of its file, float32.
    measured_genes
        Which tokens each group of cells was measured for, bool, shape ``(n_groups, n_tokens)``.
        A group is a data set and a species; :meth:`group` says which a cell belongs to. A gene
        that the file does not have is not the same as a gene without counts.
    columns
        Columns of ``obs`` that were kept, as codes (int32); :meth:`obs` gives the values.
    vocabulary
        The vocabulary of the tokens.
    manifest
        What the corpus was built from, with the hash of every file.
    """

    path: Path
    shards: tuple[Shard, ...]
    indptr: np.ndarray
    species: np.ndarray
    dataset: np.ndarray
    totals: np.ndarray
    measured_genes: np.ndarray
    columns: dict[str, np.ndarray]
    vocabulary: Vocabulary
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str | PathLike[str], *, verify: bool = False) -> Self:
        """Open a corpus without reading its tokens.

        Parameters
        ----------
        path
            Folder written by :func:`build_corpus`.
        verify
            Also read every file and compare its SHA-256 with the manifest's.

        Returns
        -------
        The corpus.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        for name, entry in manifest["files"].items():
            check_file(folder / name, entry, verify)
        arrays = {name: open_array(folder / cell_file(name)) for name in (*PER_CELL, MEASURED)}
        vocabulary = Vocabulary.read(folder / VOCABULARY)
        shards = tuple(
            _open_shard(folder, number, manifest["values"])
            for number in range(len(manifest["shards"]))
        )
        columns = {
            name: open_array(folder / cell_file(f"{COLUMN}{i}"))
            for i, name in enumerate(manifest["columns"])
        }
        check_arrays(folder, arrays, columns, shards, vocabulary, manifest)
        measured = arrays.pop(MEASURED)
        return cls(
            folder,
            shards,
            **arrays,
            measured_genes=measured,
            columns=columns,
            vocabulary=vocabulary,
            manifest=manifest,
        )

    def __len__(self) -> int:
        return self.indptr.size - 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the folder again instead of getting a copy of the arrays."""
        return type(self).open, (self.path.resolve(),)

    def __repr__(self) -> str:
        kinds = np.bincount(self.species, minlength=len(SPECIES))
        cells = ", ".join(f"{n:,} {name}" for n, name in zip(kinds, SPECIES, strict=True))
        values = ", with counts" if self.has_values else ""
        return (
            f"Corpus of {len(self):,} cells ({cells}), {self.n_tokens:,} tokens{values}, "
            f"{len(self.datasets)} data sets, vocabulary '{self.vocabulary.mode}'"
        )

    @property
    def n_tokens(self) -> int:
        """Number of tokens of all cells."""
        return int(self.indptr[-1])

    @property
    def has_values(self) -> bool:
        """Whether the counts were stored too."""
        return self.shards[0].counts is not None

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets, by code."""
        return [source["name"] for source in self.manifest["sources"]]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of genes of each cell, int32."""
        lengths = np.diff(self.indptr)
        if lengths.min() < 0:  # the kernels that read tokens trust these
            raise InputError(
                f"{self.path / cell_file('indptr')} is damaged. Build the corpus again."
            )
        return lengths.astype(np.int32)

    def sequences(self, rows: np.ndarray, max_genes: int | None = None) -> Sequences:
        """Gene tokens of some cells, the first ``max_genes`` of each."""
        indptr = self._indptr(rows, max_genes)
        tokens = np.empty(indptr[-1], np.int32)
        self._gather("tokens", rows, indptr, tokens)
        return Sequences(tokens, indptr)

    def counts(self, rows: np.ndarray, max_genes: int | None = None) -> np.ndarray:
        """Raw counts of some cells, aligned with the tokens of :meth:`sequences`.

        Returns
        -------
        uint16, uint32 or (where a file has fractional counts) float32.

        Raises
        ------
        InputError
            When the corpus was built without counts.
        """
        stored = self.shards[0].counts
        if stored is None:
            raise InputError(
                f"{self.path} holds no counts. Build the corpus with build_corpus(values=True)."
            )
        indptr = self._indptr(rows, max_genes)
        counts = np.empty(indptr[-1], stored.dtype)
        self._gather("counts", rows, indptr, counts)
        return counts

    def group(self, rows: np.ndarray) -> np.ndarray:
        """Row of ``measured_genes`` that belongs to each cell, int64."""
        return self._groups[self.dataset[rows], self.species[rows]]

    def measured(self, dataset: int, species: int) -> np.ndarray:
        """Tokens that a data set was measured for in a species: bool, shape ``(n_tokens,)``."""
        group = self._groups[dataset, species]
        if group < 0:
            name = self.datasets[dataset]
            raise InputError(f"Data set {name!r} has no {SPECIES[species]} cells in the corpus.")
        return self.measured_genes[group]

    @cached_property
    def stratum(self) -> np.ndarray:
        """Code of each cell's data set and organ, int32: what sampling is balanced over."""
        if ORGAN not in self.columns:
            return self.dataset
        n_organs = len(self.manifest["columns"][ORGAN])
        return (self.dataset * np.int32(n_organs) + self.columns[ORGAN]).astype(np.int32)

    def obs(self, rows: np.ndarray | None = None) -> pd.DataFrame:
        """Species, data set and the kept columns of some cells; None: of all."""
        chosen = slice(None) if rows is None else np.asarray(rows, np.int64)
        named = {"species": (self.species, SPECIES), "dataset": (self.dataset, self.datasets)}
        named |= {
            name: (codes, self.manifest["columns"][name]) for name, codes in self.columns.items()
        }
        return pd.DataFrame(
            {
                name: pd.Categorical.from_codes(codes[chosen], list(values))
                for name, (codes, values) in named.items()
            }
        )

    def report(self) -> str:
        """Thresholds, and for each file how many cells were read, kept and dropped, and why."""
        return report_text(self.manifest)

    def name_cells(self, rows: np.ndarray, most: int = 5) -> str:
        """Say which cells these are: data set and number within it, for messages."""
        named = [
            f"{self.datasets[self.dataset[row]]}[{row - self._starts[self.dataset[row]]}]"
            for row in rows[:most]
        ]
        more = len(rows) - len(named)
        return ", ".join(named) + (f" and {more:,} more" if more > 0 else "")

    def _indptr(self, rows: np.ndarray, max_genes: int | None) -> np.ndarray:
        lengths = self.lengths[np.asarray(rows, np.int64)]
        if max_genes is not None:
            lengths = np.minimum(lengths, max_genes)
        return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    def _gather(self, name: str, rows: np.ndarray, indptr: np.ndarray, out: np.ndarray) -> None:
        """Copy the tokens or counts of cells from the shards that hold them."""
        rows = np.asarray(rows, np.int64)
        number = np.searchsorted(self._shard_ends, rows, side="right")
        starts, places, lengths = self.indptr[rows], indptr[:-1], np.diff(indptr)
        for i in np.unique(number):
            here = number == i
            within = starts[here] - self.indptr[self._shard_ends[i] - self._shard_sizes[i]]
            gather(getattr(self.shards[i], name), within, places[here], lengths[here], out)

    @cached_property
    def _shard_sizes(self) -> np.ndarray:
        return np.array([shard["n_cells"] for shard in self.manifest["shards"]], np.int64)

    @cached_property
    def _shard_ends(self) -> np.ndarray:
        return np.cumsum(self._shard_sizes)

    @cached_property
    def _groups(self) -> np.ndarray:
        """Group of each data set and species, -1 for none."""
        table = np.full((len(self.datasets), len(SPECIES)), -1, np.int64)
        for group, (dataset, species) in enumerate(self.manifest["groups"]):
            table[dataset, species] = group
        return table

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.searchsorted(self.dataset, np.arange(len(self.datasets)))


def _open_shard(folder: Path, number: int, has_values: bool) -> Shard:
    arrays = {n: open_array(folder / p) for n, p in shard_files(number, has_values).items()}
    return Shard(arrays["tokens"], arrays.get("counts"))
