"""Edited cells, and how their tokens stand to those of the originals."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..batches import Sequences, ranges
from ..perturbations import Edit, find, is_changed
from ._originals import Originals


@dataclass(frozen=True, eq=False)
class Edits:
    """Some edits, run together.

    Parameters
    ----------
    sequences
        Genes of each edited cell.
    which
        Original of each.
    changed
        Whether the edit changed what is read, and other genes are left to compare.
    rank
        Mean rank of the set's genes before, counted from 1; NaN where none is read.
    row, base
        For every token of `sequences`: its edit, and where its hidden state lies in the originals;
        -1 for genes of the set and genes that were not read before.
    start
        Where the originals' genes of each edit begin in `stays`, `(m + 1,)`.
    stays
        Whether each of them is not of the set, and is read after the edit too.
    """

    sequences: Sequences
    which: np.ndarray
    changed: np.ndarray
    rank: np.ndarray
    row: np.ndarray
    base: np.ndarray
    start: np.ndarray
    stays: np.ndarray

    @classmethod
    def of(
        cls,
        edit: Edit,
        cells: Sequences,
        sets: np.ndarray,
        originals: Originals,
        which: np.ndarray,
    ) -> "Edits":
        """Edit cells, `cells[i]` by `sets[i]`, whose original is `which[i]`."""
        n, n_before = len(cells), originals.lengths[which]
        after = edit.after(cells, sets)
        row = np.repeat(np.arange(n), after.sequences.lengths)
        in_set = find(after.sequences, sets) >= 0
        stood = after.source - cells.indptr[row]
        known = (after.source >= 0) & (stood < n_before[row]) & ~in_set
        base = np.where(known, originals.indptr[which[row]] + stood, -1)

        start = np.concatenate([[0], np.cumsum(n_before)])
        stays = np.zeros(start[-1], bool)
        stays[start[row[known]] + stood[known]] = True
        changed = is_changed(edit.before(cells), after.sequences)
        changed &= np.bincount(row[known], minlength=n) > 0
        marked = (find(cells, sets) >= 0)[ranges(cells.indptr[:-1], n_before)]
        before = np.repeat(np.arange(n), n_before)[marked]
        place = np.flatnonzero(marked) - start[before]
        with np.errstate(invalid="ignore"):
            rank = np.bincount(before, place + 1, n) / np.bincount(before, minlength=n)
        return cls(after.sequences, which, changed, rank, row, base, start, stays)


def whole_cells(rows: np.ndarray, tokens: np.ndarray, budget: int) -> Iterator[slice]:
    """Slices of the edits of consecutive cells: about `budget` tokens, at least one cell."""
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    sizes = np.add.reduceat(tokens, starts) if starts.size else starts
    bounds = np.append(starts, rows.size)
    for first, last in cuts(sizes, budget):
        yield slice(int(bounds[first]), int(bounds[last]))


def cuts(sizes: np.ndarray, budget: int) -> Iterator[tuple[int, int]]:
    """First and last of consecutive things of about `budget` in all, at least one."""
    ends = np.cumsum(sizes)
    first = 0
    while first < ends.size:
        used = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, used + budget, side="right")), first + 1)
        yield first, last
        first = last
