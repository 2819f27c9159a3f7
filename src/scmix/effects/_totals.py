"""Sums of effects over cells: all that statistics need, and nothing that grows with cells."""

import numpy as np


class Totals:
    """Sums per group of cells (a donor) and set of genes.

    Parameters
    ----------
    n_groups, n_sets, n_probes
        Sizes.

    Attributes
    ----------
    n
        Cells in which the edit changed something, `(n_groups, n_sets)`.
    n_unchanged
        Cells in which it changed nothing: their effect is zero, and they are not in the sums.
    rank, similarity
        Sums over the changed cells, `(n_groups, n_sets)`.
    shift
        Sum of the movement along each direction, `(n_groups, n_sets, n_probes)`.
    """

    def __init__(self, n_groups: int, n_sets: int, n_probes: int) -> None:
        self.n = np.zeros((n_groups, n_sets), np.int64)
        self.n_unchanged = np.zeros((n_groups, n_sets), np.int64)
        self.rank = np.zeros((n_groups, n_sets))
        self.similarity = np.zeros((n_groups, n_sets))
        self.shift = np.zeros((n_groups, n_sets, n_probes))

    def add(
        self,
        group: np.ndarray,
        number: np.ndarray,
        changed: np.ndarray,
        rank: np.ndarray,
        similarity: np.ndarray,
        shift: np.ndarray,
    ) -> None:
        """Add edits: group of the cell, number of the set, and measurements, each `(m, ...)`."""
        np.add.at(self.n_unchanged, (group[~changed], number[~changed]), 1)
        at = group[changed], number[changed]
        np.add.at(self.n, at, 1)
        np.add.at(self.rank, at, rank[changed])
        np.add.at(self.similarity, at, similarity[changed])
        np.add.at(self.shift, at, shift[changed])

    def means(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean rank, similarity and shift per group and set; NaN where there is no cell."""
        n = np.where(self.n, self.n, np.nan)
        return self.rank / n, self.similarity / n, self.shift / n[:, :, None]


class PairTotals:
    """Sums per pair of a perturbed set and an affected gene.

    Parameters
    ----------
    perturbed
        Numbers of the sets that are followed.
    affected
        Tokens of the genes that are followed.
    n_sets, n_tokens
        Sizes of what `perturbed` and `affected` count.

    Attributes
    ----------
    n
        Cells, `(len(perturbed), len(affected))`.
    similarity, squared
        Sums of the cosine of the affected gene before and after, and of its square.
    """

    def __init__(
        self, perturbed: np.ndarray, affected: np.ndarray, n_sets: int, n_tokens: int
    ) -> None:
        self._row = _places(perturbed, n_sets)
        self._column = _places(affected, n_tokens)
        shape = len(perturbed), len(affected)
        self.n = np.zeros(shape, np.int64)
        self.similarity = np.zeros(shape)
        self.squared = np.zeros(shape)

    def add(self, number: np.ndarray, token: np.ndarray, similarity: np.ndarray) -> None:
        """Add pairs: number of the set, affected token, cosine, each `(t,)`."""
        row, column = self._row[number], self._column[token]
        followed = (row >= 0) & (column >= 0)
        at = row[followed], column[followed]
        np.add.at(self.n, at, 1)
        np.add.at(self.similarity, at, similarity[followed])
        np.add.at(self.squared, at, similarity[followed] ** 2)


def _places(numbers: np.ndarray, size: int) -> np.ndarray:
    places = np.full(size, -1, np.int64)
    places[numbers] = np.arange(len(numbers))
    return places
