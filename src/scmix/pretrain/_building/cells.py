"""Which cells of the parts stay, the arrays with one entry per cell, and where shards begin."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..._errors import InputError
from .._store import CELLS, COLUMN, MEASURED, PER_CELL, file_entries
from .arrays import growing_arrays
from .duplicates import KEPT, SAME_COUNTS, SAME_NAME, met_before
from .parts import Part
from .plan import Plan

_FATES = "fates.npy"
_ROWS = 1 << 20  # cells looked at at once


@dataclass(frozen=True, eq=False)
class Kept:
    """The cells of all parts that stay, in the order of the files.

    Parameters
    ----------
    parts
        One for each file.
    fates
        For each part, what becomes of its cells: 0 for those that stay.
    """

    parts: list[Part]
    fates: list[np.ndarray]

    @cached_property
    def sizes(self) -> np.ndarray:
        """Cells of each part that stay."""
        return np.array([np.count_nonzero(fate == KEPT) for fate in self.fates], np.int64)

    def rows(self, number: int) -> np.ndarray:
        """Rows of a part that stay."""
        return np.flatnonzero(self.fates[number] == KEPT)

    def chunks(self, number: int) -> Iterator[np.ndarray]:
        """The same, some at a time."""
        rows = self.rows(number)
        return (rows[start : start + _ROWS] for start in range(0, rows.size, _ROWS))

    def between(self, start: int, stop: int) -> Iterator[tuple[Part, np.ndarray]]:
        """Parts and rows of the cells from one to before another, counted over all parts."""
        ends = np.cumsum(self.sizes)
        for number, (end, size) in enumerate(zip(ends, self.sizes, strict=True)):
            first, last = max(start - (end - size), 0), min(stop - (end - size), size)
            if first < last:
                yield self.parts[number], self.rows(number)[first:last]


def write_fates(plan: Plan, folder: Path) -> None:
    """Compare the cells of all parts: a cell stays when it is the first with its counts and name.

    A cell that is left out still counts as met: a third one like it is left out too.
    """
    parts = [Part(path) for path in plan.parts]
    counts = met_before([part.hashes("content") for part in parts])
    names = met_before([part.hashes("names") for part in parts])
    fates = []
    for same_counts, same_name in zip(counts, names, strict=True):
        fate = np.where(same_counts, SAME_COUNTS, KEPT).astype(np.uint8)
        if same_name.size:
            fate[same_name & ~same_counts] = SAME_NAME
        fates.append(fate)
    np.save(folder / _FATES, np.concatenate(fates))


def read_fates(plan: Plan, folder: Path) -> Kept:
    """What :func:`write_fates` wrote."""
    parts = [Part(path) for path in plan.parts]
    ends = np.cumsum([part.array("lengths").size for part in parts])
    fates = np.load(folder / _FATES, mmap_mode="r", allow_pickle=False)
    return Kept(parts, np.split(fates, ends[:-1]))


def write_cells(plan: Plan, kept: Kept, folder: Path) -> None:
    """Write the arrays with one entry per cell, and what the manifest says of cells and shards."""
    if not kept.sizes.any():
        raise InputError(
            f"No cell of the {len(kept.parts)} files has passed quality control. "
            f"{_reasons(kept)} Change the thresholds, or check species and layer of the files."
        )
    categories = _categories(kept)
    names = {f"{COLUMN}{i}": name for i, name in enumerate(categories)}
    dtypes: dict[str, Any] = dict(
        zip(PER_CELL, (np.int64, np.int8, np.int32, np.float32), strict=True)
    )
    groups: list[tuple[int, int]] = []
    with growing_arrays(folder, {**dtypes, **dict.fromkeys(names, np.int32)}) as arrays:
        arrays["indptr"].append(np.zeros(1, np.int64))
        n_tokens = 0
        for number, part in enumerate(kept.parts):
            found: set[int] = set()
            for rows in kept.chunks(number):
                ends = n_tokens + np.cumsum(_lengths(plan, part)[rows], dtype=np.int64)
                n_tokens = int(ends[-1])
                species = part.array("species")[rows]
                found.update(np.unique(species).tolist())
                arrays["indptr"].append(ends)
                arrays["species"].append(species)
                arrays["dataset"].append(np.full(rows.size, number))
                arrays["totals"].append(part.array("totals")[rows])
                for file, name in names.items():
                    arrays[file].append(_codes(part, name, categories[name])[rows])
            groups += [(number, code) for code in sorted(found)]
    np.save(
        folder / f"{MEASURED}.npy",
        np.stack([kept.parts[number].array("measured")[code] for number, code in groups]),
    )
    _write_about(plan, kept, folder, categories, groups)


def _write_about(
    plan: Plan,
    kept: Kept,
    folder: Path,
    categories: dict[str, list[str]],
    groups: list[tuple[int, int]],
) -> None:
    indptr = np.load(folder / "indptr.npy", mmap_mode="r", allow_pickle=False)
    firsts = np.searchsorted(indptr[:-1], np.arange(0, indptr[-1], plan.shard_tokens))
    bounds = [*np.unique(firsts).tolist(), indptr.size - 1]
    shards = [
        {"n_cells": stop - start, "n_tokens": int(indptr[stop] - indptr[start])}
        for start, stop in pairwise(bounds)
    ]
    about = {
        "n_cells": indptr.size - 1,
        "n_tokens": int(indptr[-1]),
        "shards": shards,
        "groups": groups,
        "columns": categories,
        "sources": _sources(plan, kept),
        "files": file_entries(folder),
    }
    plan.note(CELLS, about)


def _sources(plan: Plan, kept: Kept) -> list[dict[str, Any]]:
    """The report: for each file, how many cells were read, dropped for each reason, and kept."""
    out = []
    for number, (part, fate) in enumerate(zip(kept.parts, kept.fates, strict=True)):
        tokens = sum(int(_lengths(plan, part)[rows].sum()) for rows in kept.chunks(number))
        out.append(
            {
                **part.report["report"],
                "n_duplicated": int(np.count_nonzero(fate == SAME_COUNTS)),
                "n_same_name": int(np.count_nonzero(fate == SAME_NAME)),
                "n_kept": int(kept.sizes[number]),
                "n_tokens": tokens,
            }
        )
    return out


def _lengths(plan: Plan, part: Part) -> np.ndarray:
    lengths = part.array("lengths")
    return lengths if plan.n_genes is None else np.minimum(lengths, plan.n_genes)


def _categories(kept: Kept) -> dict[str, list[str]]:
    """Values of each column that any file keeps; "" where a file lacks the column."""
    names = sorted({name for part in kept.parts for name in part.report["columns"]})
    return {
        name: sorted({v for part in kept.parts for v in part.report["columns"].get(name, [""])})
        for name in names
    }


def _codes(part: Part, name: str, categories: list[str]) -> np.ndarray:
    columns = part.report["columns"]
    if name not in columns:
        return np.broadcast_to(np.int32(categories.index("")), part.array("lengths").shape)
    place = {value: code for code, value in enumerate(categories)}
    new = np.array([place[value] for value in columns[name]], np.int32)
    return new[part.array(f"column{list(columns).index(name)}")]


def _reasons(kept: Kept) -> str:
    total: dict[str, int] = {}
    for part in kept.parts:
        for name, n in part.report["report"].items():
            if name.startswith("n_"):
                total[name] = total.get(name, 0) + n
    return ", ".join(f"{name[2:]}: {n:,}" for name, n in total.items() if n) + "."
