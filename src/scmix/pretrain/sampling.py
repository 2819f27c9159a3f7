"""Which cells a step trains on: index arithmetic that depends on a seed and the step only."""

import numpy as np

from .._errors import InputError


class Sampler:
    """Draws the cells of a step, balanced over species and strata, up to a number of tokens.

    Species take turns. Within a species a stratum (the cells of one data set and organ) is drawn
    in proportion to the square root of its number of cells (a cell's chance falls with the square
    root of its stratum's size, so small ones are seen enough), then a cell of it. A step has no
    cell twice; two steps are independent, so any step can be computed without those before it, by
    any process or worker.

    Parameters
    ----------
    species
        Species code of each cell, shape ``(n,)``.
    stratum
        Code of each cell's data set and organ (:attr:`Corpus.stratum`), shape ``(n,)``.
    lengths
        Tokens that each cell takes in training, shape ``(n,)``.
    tokens_per_step
        Most tokens in a step; the number reached is less by a part of a cell.
    seed
        Seed of the order.
    datasets_per_step
        Number of strata that a step's cells come from, species in turn; 0: all.

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
        stratum: np.ndarray,
        lengths: np.ndarray,
        *,
        tokens_per_step: int,
        seed: int,
        datasets_per_step: int = 0,
    ) -> None:
        if not len(species):
            raise InputError("Found no cells to draw from.")
        self.seed, self.datasets_per_step = seed, datasets_per_step
        self.lengths = np.asarray(lengths)
        self.budget = max(tokens_per_step, 1)
        group, codes = _groups(np.asarray(species), np.asarray(stratum))
        self._sizes = np.bincount(group)
        self._starts = np.cumsum(self._sizes) - self._sizes
        # 16-bit codes are sorted by radix, and 32-bit numbers do for most corpora: at 50 million
        # cells this takes 1 s and 200 MB
        self._cells = np.argsort(group, kind="stable").astype(_smallest(len(group)))
        self._groups = [np.flatnonzero(codes == code) for code in np.unique(codes)]
        self._shares = [_shares(np.sqrt(self._sizes[group])) for group in self._groups]
        self._n_draws = int(1.25 * self.budget / max(self.lengths.mean(), 1)) + 8

    def rows(self, step: int) -> np.ndarray:
        """Cells of a step, the longest first, so that equal lengths stand together."""
        rng = np.random.default_rng([self.seed, step])
        chosen = np.empty(0, np.int64)
        few = self._draw_groups(rng, self.datasets_per_step) if self.datasets_per_step else None
        # One round is enough unless cells repeat; a corpus hardly larger than a step needs a few.
        for _ in range(32):
            chosen = _unique_in_order(np.concatenate([chosen, self._draw(rng, few)]))
            ends = np.cumsum(self.lengths[chosen], dtype=np.int64)
            if ends[-1] > self.budget or chosen.size == self._cells.size:
                break
        n_fit = int(np.searchsorted(ends, self.budget, side="right"))
        chosen = chosen[: max(n_fit, 1)]
        return chosen[np.argsort(-self.lengths[chosen].astype(np.int64), kind="stable")]

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


def _groups(species: np.ndarray, stratum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group (species and stratum) of each cell, numbered without gaps; species of each group."""
    n_strata = int(stratum.max()) + 1
    key = species.astype(np.int64) * n_strata + stratum.astype(np.int64)
    occupied = np.bincount(key) > 0
    names = np.flatnonzero(occupied)
    number = (np.cumsum(occupied) - 1).astype(np.uint16 if names.size <= 2**16 else np.int64)
    return number[key], names // n_strata


def _smallest(n: int) -> type[np.signedinteger]:
    return np.int32 if n < 2**31 else np.int64


def _shares(weights: np.ndarray) -> np.ndarray:
    """Upper ends of the intervals of [0, 1) that belong to each group; the last end is open."""
    return (np.cumsum(weights) / weights.sum())[:-1]


def _unique_in_order(values: np.ndarray) -> np.ndarray:
    _, first = np.unique(values, return_index=True)
    return values[np.sort(first)]
