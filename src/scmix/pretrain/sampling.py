"""Which cells a step trains on: index arithmetic that depends on a seed and the step only."""

import numpy as np

from .._errors import InputError


class Sampler:
    """Draws the cells of a step, balanced over species and data sets, up to a number of tokens.

    Species take turns. Within a species a data set is drawn in proportion to the square root of
    its number of cells (a cell's chance falls with the square root of its data set's size, so
    small data sets are seen enough), then a cell of it. A step has no cell twice; two steps are
    independent, so any step can be computed without those before it.

    Parameters
    ----------
    species
        Species code of each cell, shape ``(n,)``.
    dataset
        Data set code of each cell, shape ``(n,)``.
    lengths
        Tokens that each cell takes in training, shape ``(n,)``.
    tokens_per_step
        Most tokens in a step; the number reached is less by a part of a cell.
    seed
        Seed of the order.
    datasets_per_step
        Number of data sets that a step's cells come from, species in turn; 0: all.

    Examples
    --------
    >>> cells = np.arange(100)
    >>> sampler = Sampler(cells % 2, cells // 50, np.full(100, 10), tokens_per_step=60, seed=0)
    >>> rows = sampler.rows(step=7)
    >>> len(rows), int((rows % 2).sum()), bool((rows == sampler.rows(step=7)).all())
    (6, 3, True)
    """

    def __init__(
        self,
        species: np.ndarray,
        dataset: np.ndarray,
        lengths: np.ndarray,
        *,
        tokens_per_step: int,
        seed: int,
        datasets_per_step: int = 0,
    ) -> None:
        if not len(species):
            raise InputError("Found no cells to draw from.")
        self.seed, self.datasets_per_step = seed, datasets_per_step
        self.lengths = np.asarray(lengths, np.int64)
        self.budget = max(tokens_per_step, 1)
        groups = np.stack([species, dataset], axis=1)
        self._cells = np.lexsort((dataset, species))
        names, sizes = np.unique(groups[self._cells], axis=0, return_counts=True)
        self._sizes, self._starts = sizes, np.cumsum(sizes) - sizes
        codes = np.unique(names[:, 0])
        self._groups = [np.flatnonzero(names[:, 0] == code) for code in codes]
        self._shares = [_shares(np.sqrt(sizes[group])) for group in self._groups]
        self._n_draws = int(1.25 * self.budget / max(self.lengths.mean(), 1)) + 8

    def rows(self, step: int) -> np.ndarray:
        """Cells of a step, the longest first, so that equal lengths stand together."""
        rng = np.random.default_rng([self.seed, step])
        chosen = np.empty(0, np.int64)
        few = self._draw_groups(rng, self.datasets_per_step) if self.datasets_per_step else None
        # One round is enough unless cells repeat; a corpus hardly larger than a step needs a few.
        for _ in range(32):
            chosen = _unique_in_order(np.concatenate([chosen, self._draw(rng, few)]))
            if self.lengths[chosen].sum() > self.budget or chosen.size == self._cells.size:
                break
        n_fit = int(np.searchsorted(np.cumsum(self.lengths[chosen]), self.budget, side="right"))
        chosen = chosen[: max(n_fit, 1)]
        return chosen[np.argsort(-self.lengths[chosen], kind="stable")]

    def _draw(self, rng: np.random.Generator, groups: np.ndarray | None) -> np.ndarray:
        n = self._n_draws
        group = self._draw_groups(rng, n) if groups is None else np.resize(groups, n)
        within = (rng.random(n) * self._sizes[group]).astype(np.int64)
        return self._cells[self._starts[group] + within]

    def _draw_groups(self, rng: np.random.Generator, n: int) -> np.ndarray:
        turn = (rng.integers(len(self._groups)) + np.arange(n)) % len(self._groups)
        group = np.empty(n, np.int64)
        for species, (groups, shares) in enumerate(zip(self._groups, self._shares, strict=True)):
            mine = turn == species
            group[mine] = groups[np.searchsorted(shares, rng.random(mine.sum()), side="right")]
        return group


def _shares(weights: np.ndarray) -> np.ndarray:
    """Upper ends of the intervals of [0, 1) that belong to each group; the last end is open."""
    return (np.cumsum(weights) / weights.sum())[:-1]


def _unique_in_order(values: np.ndarray) -> np.ndarray:
    _, first = np.unique(values, return_index=True)
    return values[np.sort(first)]
