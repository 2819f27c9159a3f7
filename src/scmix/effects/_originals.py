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
    first
        Hidden state of the token in front of each cell, `(n, H)`.
    """

    indptr: np.ndarray
    genes: Tensor
    first: Tensor

    @classmethod
    def of(cls, hidden: Tensor, read: Sequences, is_gene: np.ndarray) -> "Originals":
        """Take apart the hidden states of all tokens, special ones included."""
        ends = np.concatenate([[0], np.cumsum(is_gene)])[read.indptr]
        front = np.minimum(read.indptr[:-1], max(len(hidden) - 1, 0))  # of no use in an empty cell
        genes = np.flatnonzero(is_gene)
        return cls(ends, rows_of(hidden, genes), rows_of(hidden, front))

    @property
    def lengths(self) -> np.ndarray:
        """Genes of each cell."""
        return np.diff(self.indptr)


def rows_of(hidden: Tensor, at: np.ndarray) -> Tensor:
    """Some rows of a tensor."""
    return hidden[torch.from_numpy(at).to(hidden.device)]


def distinct(rows: np.ndarray, n_read: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells and how much is read of them, each combination once; and which one each edit has."""
    span = int(n_read.max(initial=0)) + 1
    keys, which = np.unique(rows * span + n_read, return_inverse=True)
    return keys // span, keys % span, which


def shortened(cells: Sequences, rows: np.ndarray, n_read: np.ndarray) -> Sequences:
    """The first `n_read` genes of some cells."""
    indptr = np.concatenate([[0], np.cumsum(n_read)])
    return Sequences(cells.tokens[ranges(cells.indptr[rows], n_read)], indptr)
