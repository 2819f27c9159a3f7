"""Ways to hand the states out over donors: all of them where they are few, else random ones."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import comb

import numpy as np
from numpy.typing import NDArray

MOST_LISTED = 5_000


@dataclass(frozen=True, eq=False)
class Design:
    """Who may swap states with whom.

    `single` are the rows of donors with one state, whose states are handed out anew among them;
    `pairs` (n, 2) are the start and the goal row of donors with both, which swap within the donor.
    """

    is_goal: NDArray[np.bool_]
    single: NDArray[np.intp]
    pairs: NDArray[np.intp]

    @property
    def n_possible(self) -> int:
        """Number of labellings, the observed one included."""
        return comb(len(self.single), int(self.is_goal[self.single].sum())) * 2 ** len(self.pairs)

    def all(self) -> NDArray[np.bool_]:
        """Every labelling but the observed one (n_possible - 1, n_rows)."""
        n_goal = int(self.is_goal[self.single].sum())
        rows = [self.is_goal.copy() for _ in range(self.n_possible)]
        choices = product(
            combinations(self.single, n_goal), product((False, True), repeat=len(self.pairs))
        )
        for row, (goal, swapped) in zip(rows, choices, strict=True):
            row[self.single] = False
            row[list(goal)] = True
            row[self.pairs] = np.column_stack([swapped, np.logical_not(swapped)])
        made = np.array(rows)
        return made[(made != self.is_goal).any(axis=1)]

    def draws(self, size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Labellings drawn at random, with replacement (size, n_rows)."""
        made = np.tile(self.is_goal, (size, 1))
        single = np.tile(self.is_goal[self.single], (size, 1))
        made[:, self.single] = rng.permuted(single, axis=1)
        swapped = rng.random((size, len(self.pairs))) < 0.5
        made[:, self.pairs] = np.stack([swapped, ~swapped], axis=-1)
        return made


def design(is_goal: NDArray[np.bool_], donors: Sequence[Hashable] | None) -> Design:
    """Rows paired by donor: a donor seen in both states is its own control."""
    names = list(range(len(is_goal))) if donors is None else list(donors)
    rows: dict[Hashable, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    ordered = [sorted(found, key=lambda row: is_goal[row]) for found in rows.values()]
    return Design(
        is_goal,
        single=np.array([found[0] for found in ordered if len(found) == 1], dtype=np.intp),
        pairs=np.array([f for f in ordered if len(f) == 2], dtype=np.intp).reshape(-1, 2),
    )


def labellings(
    plan: Design, n_permutations: int, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], bool]:
    """Labellings other than the observed one, and whether they are all there are."""
    if plan.n_possible <= MOST_LISTED:
        return plan.all(), True
    return plan.draws(n_permutations, rng), False


def chunks(rows: NDArray, size: int) -> Iterator[NDArray]:
    """The rows in blocks."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
