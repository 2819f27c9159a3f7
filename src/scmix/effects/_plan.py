"""Which sets of genes are edited in which cells."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from ..batches import Sequences
from ..perturbations import Edit, every_gene


@dataclass(frozen=True, eq=False)
class Plan:
    """An edit, and the sets of genes that it is made of.

    Parameters
    ----------
    edit
        What is done to a set.
    n_tokens
        Size of the vocabulary.
    sets
        Tokens of each set, int32 `(n_sets, k)`, -1 where a set has fewer. None: every gene that
        is read of a cell is a set of its own, whose number is the token.
    chosen
        Without `sets`: which tokens are perturbed, bool `(n_tokens,)`; None: all.
    anchor
        Without `sets`: a token that is perturbed together with every gene; -1: none.
    """

    edit: Edit
    n_tokens: int
    sets: np.ndarray | None = None
    chosen: np.ndarray | None = None
    anchor: int = -1

    @property
    def n_sets(self) -> int:
        """How many sets can be numbered."""
        return self.n_tokens if self.sets is None else len(self.sets)

    @property
    def largest(self) -> int:
        """Most genes in a set: so many can be let back in."""
        return 1 + (self.anchor >= 0) if self.sets is None else self.sets.shape[1]

    @property
    def followed(self) -> np.ndarray:
        """Numbers of the sets that may be perturbed, ascending."""
        if self.sets is not None or self.chosen is None:
            return np.arange(self.n_sets)
        return np.flatnonzero(self.chosen & (np.arange(self.n_tokens) != self.anchor))

    def of(self, cells: Sequences) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The edits of some cells, cell by cell.

        A set is deleted, inhibited or activated where a cell has all its genes among those that
        are read, and overexpressed in every cell.

        Parameters
        ----------
        cells
            Genes that are read of each cell.

        Returns
        -------
        Row of the cell `(m,)`, number of the set `(m,)`, and its tokens, int32 `(m, k)`.
        """
        if self.sets is None:
            return self._every_gene(cells)
        if self.edit.kind == "overexpress":
            rows = np.repeat(np.arange(len(cells)), len(self.sets))
            number = np.tile(np.arange(len(self.sets)), len(cells))
        else:
            rows, number = self._complete(cells, self.sets)
        return rows, number, self.sets[number]

    def _every_gene(self, cells: Sequences) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, genes = every_gene(cells)
        keep = np.ones(rows.size, bool) if self.chosen is None else self.chosen[genes[:, 0]]
        if self.anchor >= 0:
            keep &= np.isin(rows, rows[genes[:, 0] == self.anchor]) & (genes[:, 0] != self.anchor)
            genes = np.column_stack([np.full(rows.size, self.anchor, np.int32), genes])
        return rows[keep], genes[keep, -1].astype(np.int64), genes[keep]

    def _complete(self, cells: Sequences, sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cells and the sets that they have all genes of, by counting the genes of each set."""
        number, column = np.nonzero(sets >= 0)
        ones = np.ones(number.size, np.int32)
        member = sp.csr_array((ones, (sets[number, column], number)), (self.n_tokens, len(sets)))
        there = np.ones(cells.tokens.size, np.int32)
        has = sp.csr_array((there, cells.tokens, cells.indptr), (len(cells), self.n_tokens))
        found = (has @ member).tocsr()
        found.sort_indices()
        rows = np.repeat(np.arange(len(cells)), np.diff(found.indptr))
        full = found.data == (sets >= 0).sum(axis=1)[found.indices]
        return rows[full], found.indices[full].astype(np.int64)
