"""Cells as their genes with counts, out of a count matrix."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp

from ..batches import Sequences, ranges


@dataclass(frozen=True, eq=False)
class Profiles:
    """Cells with the counts of their genes.

    Parameters
    ----------
    cells
        Gene tokens of each cell, by rank; no special tokens.
    counts
        Count of each token, float32.
    totals
        All counts of each cell, those of genes without a token too, float64, shape ``(n,)``.
    species
        Species code of each cell, shape ``(n,)``.
    """

    cells: Sequences
    counts: np.ndarray
    totals: np.ndarray
    species: np.ndarray

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, rows: np.ndarray) -> "Profiles":
        where = ranges(self.cells.indptr[rows], self.cells.lengths[rows])
        return Profiles(self.cells[rows], self.counts[where], self.totals[rows], self.species[rows])

    @classmethod
    def of(
        cls, counts: sp.csr_matrix, medians: np.ndarray, species: np.ndarray, totals: np.ndarray
    ) -> Self:
        """Order the genes of each cell as `scmix.ranks.rank_encode` does, and keep their counts.

        Parameters
        ----------
        counts
            Cells by tokens of the vocabulary, see :func:`by_token`.
        medians
            Median count of each token in each species, NaN where a species has no such gene.
        species, totals
            As in :class:`Profiles`.
        """
        row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        median = medians[species[row], counts.indices].astype(np.float64)
        usable = (counts.data > 0) & (median > 0)
        row, token, data = row[usable], counts.indices[usable], counts.data[usable]
        order = np.lexsort((token, -data / median[usable], row))
        indptr = np.searchsorted(row, np.arange(counts.shape[0] + 1))
        return cls(Sequences(token[order], indptr), data[order].astype(np.float32), totals, species)


def by_token(counts: sp.csr_matrix, column_tokens: np.ndarray, n_tokens: int) -> sp.csr_matrix:
    """Counts of tokens from counts of columns; columns that share a token are summed."""
    known = np.flatnonzero(column_tokens >= 0)
    shape = (len(column_tokens), n_tokens)
    member = sp.csr_matrix((np.ones(known.size), (known, column_tokens[known])), shape=shape)
    return sp.csr_matrix(counts.astype(np.float64) @ member)
