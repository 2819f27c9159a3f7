"""Cells as they were, read once for all their edits."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..batches import Sequences, ranges


@dataclass(frozen=True, eq=False)
class Originals:
    """Hidden states of unedited cells.

    Parameters
    ----------
    indptr
        Where the genes of each cell lie in `genes`, `(n + 1,)`.
    genes
        Hidden state of every gene, float32 `(T, H)`.
    sums
        Their sum per cell, `(n, H)`.
    first
        Hidden state of the token in front, `(n, H)`.
    """

    indptr: np.ndarray
    genes: Tensor
    sums: Tensor
    first: Tensor

    @classmethod
    def of(cls, hidden: Tensor, read: Sequences, is_gene: np.ndarray) -> "Originals":
        """Take apart the hidden states of all tokens, special ones included."""
        ends = np.concatenate([[0], np.cumsum(is_gene)])[read.indptr]
        genes = hidden[torch.from_numpy(np.flatnonzero(is_gene)).to(hidden.device)]
        offsets = torch.from_numpy(ends).to(hidden.device)
        sums = torch.segment_reduce(genes, "sum", offsets=offsets, axis=0)
        front = np.minimum(read.indptr[:-1], max(len(hidden) - 1, 0))  # of no use in an empty cell
        first = hidden[torch.from_numpy(front).to(hidden.device)]
        return cls(ends, genes, sums, first)

    @property
    def lengths(self) -> np.ndarray:
        """Genes of each cell."""
        return np.diff(self.indptr)

    def means(self, which: np.ndarray, edit: np.ndarray, place: np.ndarray) -> Tensor:
        """Mean over the genes of a cell without some of them.

        Parameters
        ----------
        which
            Cell of each row of the result, `(m,)`.
        edit, place
            Rows of the result, and positions in its cell, that are left out, each `(t,)`.
        """
        rows, cells = torch.from_numpy(edit), torch.from_numpy(which)
        left_out = torch.from_numpy(self.indptr[which[edit]] + place)
        on = self.sums.device
        totals = self.sums[cells.to(on)]
        totals.index_add_(0, rows.to(on), self.genes[left_out.to(on)], alpha=-1)
        counts = self.lengths[which] - np.bincount(edit, minlength=which.size)
        return totals / torch.from_numpy(counts).to(totals)[:, None]


def distinct(rows: np.ndarray, n_read: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells and how much is read of them, each combination once; and which one each edit has."""
    span = int(n_read.max(initial=0)) + 1
    keys, which = np.unique(rows * span + n_read, return_inverse=True)
    return keys // span, keys % span, which


def shortened(cells: Sequences, rows: np.ndarray, n_read: np.ndarray) -> Sequences:
    """The first `n_read` genes of some cells."""
    indptr = np.concatenate([[0], np.cumsum(n_read)])
    return Sequences(cells.tokens[ranges(cells.indptr[rows], n_read)], indptr)
