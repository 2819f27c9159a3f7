"""The arrays of a corpus on disk: mapped into memory, checked, and gathered cell by cell."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import InputError
from .._jit import jit
from ..genes import Vocabulary

FORMAT = 2
MANIFEST = "manifest.json"
VOCABULARY = "vocabulary.csv.gz"
PER_CELL = ("indptr", "species", "dataset", "totals")
MEASURED = "measured"
COLUMN = "column"  # followed by its number: a kept column of obs
ORGAN = "organ"  # the kept column that sampling is balanced over
CELLS = "cells"  # folder of the arrays with one entry per cell


@dataclass(frozen=True, eq=False)
class Shard:
    """Consecutive cells of a corpus: arrays that are read from disk when they are asked for.

    Parameters
    ----------
    tokens
        Gene tokens by rank, uint16 or uint32.
    counts
        Raw counts aligned with the tokens, uint16, uint32 or float32; None where the corpus was
        built without.
    """

    tokens: np.ndarray
    counts: np.ndarray | None


def shard_files(number: int, has_values: bool) -> dict[str, str]:
    """Paths of a shard's arrays within the corpus."""
    names = ("tokens", "counts") if has_values else ("tokens",)
    return {name: f"{shard_folder(number)}/{name}.npy" for name in names}


def shard_folder(number: int) -> str:
    """Folder of a shard within the corpus."""
    return f"shards/{number:05d}"


def cell_file(name: str) -> str:
    """Path of an array with one entry per cell within the corpus."""
    return f"{CELLS}/{name}.npy"


def file_entries(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every array in a folder, as the manifest lists them."""
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.glob("*.npy"))
    }


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_array(path: Path) -> np.ndarray:
    """Map an array into memory; nothing is read yet."""
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(
            f"{path} is not a plain array: {error}. Build the corpus again."
        ) from error
    return np.asarray(mapped)  # still the mapped memory, as a type that kernels know


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a corpus of this format."""
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


def check_file(path: Path, entry: dict[str, Any], verify: bool) -> None:
    """Refuse a file of another size or, with ``verify``, other content than the manifest says."""
    size = path.stat().st_size if path.is_file() else -1
    if size != entry["bytes"]:
        found = f"has {size:,} bytes" if size >= 0 else "is missing"
        raise InputError(
            f"{path} {found}, expected {entry['bytes']:,} bytes. Build the corpus again."
        )
    if verify and file_sha256(path) != entry["sha256"]:
        raise InputError(f"{path} has changed since it was written. Build the corpus again.")


def check_arrays(
    folder: Path,
    arrays: dict[str, np.ndarray],
    columns: dict[str, np.ndarray],
    shards: tuple[Shard, ...],
    vocabulary: Vocabulary,
    manifest: dict[str, Any],
) -> None:
    """Refuse files that do not belong together."""
    n_cells = arrays["indptr"].size - 1
    ends = arrays["indptr"][np.cumsum([shard["n_cells"] for shard in manifest["shards"]])]
    sizes = [(shard.tokens.size, (shard.counts, shard.tokens)) for shard in shards]
    fits = (
        all(arrays[name].size == n_cells for name in PER_CELL[1:])
        and all(column.size == n_cells for column in columns.values())
        and ends[-1] == arrays["indptr"][-1]
        and np.array_equal(np.diff(ends, prepend=0), [size for size, _ in sizes])
        and all(counts is None or counts.size == tokens.size for _, (counts, tokens) in sizes)
        and arrays[MEASURED].shape == (len(manifest["groups"]), vocabulary.n_tokens)
        and vocabulary.sha256 == manifest["vocabulary_sha256"]
    )
    if not fits:
        raise InputError(f"The files of {folder} do not belong together. Build the corpus again.")


@jit()
def gather(flat, starts, places, lengths, out):
    """Copy runs of an array: ``lengths[i]`` items from ``starts[i]`` on to ``places[i]``."""
    for i in range(starts.size):
        for j in range(lengths[i]):
            out[places[i] + j] = flat[starts[i] + j]
