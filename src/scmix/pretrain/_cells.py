"""Genes of some cells with their values, kept together while views are cut from them."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from ..batches import Sequences, concat, ranges
from ..genes import Vocabulary


@dataclass(frozen=True, eq=False)
class Cells:
    """Tokens of some cells and, where a recipe needs them, a value for each.

    Parameters
    ----------
    genes
        Tokens of each cell.
    values
        Float32, shape ``(T,)``, or None.
    """

    genes: Sequences
    values: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each cell, int64."""
        return self.genes.lengths

    def kept(self, keep: np.ndarray) -> Self:
        """The tokens where ``keep`` (bool, shape ``(T,)``) is True."""
        ends = np.concatenate([[0], np.cumsum(keep)])
        genes = Sequences(self.genes.tokens[keep], ends[self.genes.indptr])
        return type(self)(genes, None if self.values is None else self.values[keep])

    def at(self, rows: np.ndarray) -> Self:
        """The cells at some rows, in their order."""
        if self.values is None:
            return type(self)(self.genes[rows])
        where = ranges(self.genes.indptr[rows], self.lengths[rows])
        return type(self)(self.genes[rows], self.values[where])

    def shown_as(self, tokens: np.ndarray) -> Self:
        """The same cells with other tokens in the same places."""
        return type(self)(Sequences(tokens, self.genes.indptr), self.values)

    def with_zeros(self, zeros: Sequences) -> Self:
        """Each cell with further genes of value zero behind its own."""
        n = len(zeros)
        values = np.zeros(self.genes.tokens.size, np.float32)
        values = values if self.values is None else self.values
        both = concat([self.genes, zeros])
        rows = np.arange(2 * n).reshape(2, n).T.ravel()  # cell 0, zeros 0, cell 1, ...
        padded = np.concatenate([values, np.zeros(zeros.tokens.size, np.float32)])
        paired = type(self)(both, padded).at(rows)
        return type(self)(Sequences(paired.genes.tokens, paired.genes.indptr[::2]), paired.values)

    def tensors(self) -> dict[str, Any]:
        """Tokens, ``indptr`` as a list, and values where there are any."""
        out: dict[str, Any] = {
            "tokens": torch.from_numpy(self.genes.tokens.astype(np.int64)),
            "indptr": self.genes.indptr.tolist(),
        }
        if self.values is not None:
            out["values"] = torch.from_numpy(self.values)
        return out


def swap_species(
    cells: Cells, species: np.ndarray, vocabulary: Vocabulary, which: np.ndarray | None = None
) -> tuple[Cells, np.ndarray]:
    """Replace every gene by its one-to-one orthologue in the other species, or leave it out.

    Cells that are not in ``which`` (bool, shape ``(n,)``), or that have no gene with an orthologue,
    stay as they are. Also returns the species in whose genes each cell is written now.
    """
    lengths, genes = cells.lengths, cells.genes
    tokens = vocabulary.orthologues[np.repeat(1 - species, lengths), genes.tokens]
    n_kept = np.diff(np.concatenate([[0], np.cumsum(tokens >= 0)])[genes.indptr])
    swap = (n_kept > 0) & (True if which is None else which)
    tokens = np.where(np.repeat(swap, lengths), tokens, genes.tokens)
    return cells.shown_as(tokens).kept(tokens >= 0), np.where(swap, 1 - species, species)
