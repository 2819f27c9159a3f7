"""A corpus: the gene tokens of many cells in a folder of plain arrays, mapped into memory."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np

from .._errors import InputError
from ..batches import Sequences, positions
from ..genes import SPECIES, Vocabulary

FORMAT = 1
MANIFEST = "manifest.json"
VOCABULARY = "vocabulary.csv.gz"
ARRAYS = ("tokens", "indptr", "species", "dataset")


@dataclass(frozen=True, eq=False)
class Corpus:
    """Ranked gene tokens of many cells, as :func:`build_corpus` writes them.

    Parameters
    ----------
    path
        The folder.
    tokens
        Gene tokens of all cells by rank, without special tokens: uint16 or uint32, read from disk
        when they are asked for.
    indptr
        Where each cell starts, and where the last one ends: int64, shape ``(n_cells + 1,)``.
    species
        Species code of each cell, int8.
    dataset
        Data set code of each cell, int32; names are in ``datasets``.
    vocabulary
        The vocabulary of the tokens.
    manifest
        What the corpus was built from, with the hash of every file.
    """

    path: Path
    tokens: np.ndarray
    indptr: np.ndarray
    species: np.ndarray
    dataset: np.ndarray
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
        manifest = _read_manifest(folder)
        for name, entry in manifest["files"].items():
            _check_file(folder / name, entry, verify)
        arrays = {name: _map(folder / f"{name}.npy") for name in ARRAYS}
        vocabulary = Vocabulary.read(folder / VOCABULARY)
        _check_arrays(folder, arrays, vocabulary, manifest)
        return cls(folder, **arrays, vocabulary=vocabulary, manifest=manifest)

    def __len__(self) -> int:
        return self.indptr.size - 1

    def __repr__(self) -> str:
        kinds = np.bincount(self.species, minlength=len(SPECIES))
        cells = ", ".join(f"{n:,} {name}" for n, name in zip(kinds, SPECIES, strict=True))
        return (
            f"Corpus of {len(self):,} cells ({cells}), {self.tokens.size:,} tokens, "
            f"{len(self.datasets)} data sets, vocabulary '{self.vocabulary.mode}'"
        )

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets, by code."""
        return [source["name"] for source in self.manifest["sources"]]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of genes of each cell, int64."""
        return np.diff(self.indptr)

    def sequences(self, rows: np.ndarray, max_genes: int | None = None) -> Sequences:
        """Gene tokens of some cells, the first ``max_genes`` of each."""
        rows = np.asarray(rows, np.int64)
        lengths = self.lengths[rows]
        if max_genes is not None:
            lengths = np.minimum(lengths, max_genes)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        where = np.repeat(self.indptr[rows], lengths) + positions(indptr)
        return Sequences(self.tokens[where], indptr)

    def name_cells(self, rows: np.ndarray, most: int = 5) -> str:
        """Say which cells these are: data set and number within it, for messages."""
        named = [
            f"{self.datasets[self.dataset[row]]}[{row - self._starts[self.dataset[row]]}]"
            for row in rows[:most]
        ]
        more = len(rows) - len(named)
        return ", ".join(named) + (f" and {more:,} more" if more > 0 else "")

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.searchsorted(self.dataset, np.arange(len(self.datasets)))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _map(path: Path) -> np.ndarray:
    # An empty file cannot be mapped.
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise InputError(
            f"{path} is not a plain array: {error}. Build the corpus again."
        ) from error


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        raise InputError(f"Found no corpus in {folder}; expected a folder made by build_corpus.")
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        found = manifest["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder / MANIFEST} is damaged. Build the corpus again.") from error
    if found != FORMAT:
        raise InputError(
            f"Found corpus format {found!r} in {folder}, expected {FORMAT}. "
            "Build the corpus again with this version of scmix."
        )
    return manifest


def _check_file(path: Path, entry: dict[str, Any], verify: bool) -> None:
    size = path.stat().st_size if path.is_file() else -1
    if size != entry["bytes"]:
        found = f"has {size:,} bytes" if size >= 0 else "is missing"
        raise InputError(
            f"{path} {found}, expected {entry['bytes']:,} bytes. Build the corpus again."
        )
    if verify and file_sha256(path) != entry["sha256"]:
        raise InputError(f"{path} has changed since it was written. Build the corpus again.")


def _check_arrays(
    folder: Path,
    arrays: dict[str, np.ndarray],
    vocabulary: Vocabulary,
    manifest: dict[str, Any],
) -> None:
    n_cells = arrays["indptr"].size - 1
    fits = (
        arrays["indptr"][-1] == arrays["tokens"].size
        and arrays["species"].size == arrays["dataset"].size == n_cells
        and vocabulary.sha256 == manifest["vocabulary_sha256"]
    )
    if not fits:
        raise InputError(f"The files of {folder} do not belong together. Build the corpus again.")
