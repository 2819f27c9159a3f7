"""Effects per donor, of one encoder or of several that share the donors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...effects import Totals
from ...statistics import StateNull
from . import _tables
from ._geometry import Geometry
from ._states import States


@dataclass(frozen=True, eq=False)
class Measured:
    """Exact effects of the sets that are shown.

    Parameters
    ----------
    effects
        Effect in each start donor `(n_donors, n_sets)`, NaN where none of its cells has the set.
    others
        The same towards each other state.
    n
        Cells that changed `(n_donors, n_sets)`.
    rank
        Sum of ranks over them `(n_sets,)`.
    unchanged
        Cells that did not change `(n_sets,)`.
    null
        What the shuffling of states over donors gave; None where there is no such test.
    """

    effects: np.ndarray
    others: tuple[np.ndarray, ...]
    n: np.ndarray
    rank: np.ndarray
    unchanged: np.ndarray
    null: StateNull | None

    @classmethod
    def of(
        cls,
        totals: Totals,
        numbers: np.ndarray,
        geometry: Geometry,
        states: States,
        n_permutations: int,
        seed: int,
    ) -> "Measured":
        """Read the sums of one encoder."""
        start = geometry.state == 0
        goal = 1 if states.names else None
        null = None
        if goal is not None and geometry.formula.centred:
            null = _tables.state_test(
                totals, numbers, geometry, states.donors, n_permutations, seed
            )
        return cls(
            effects=_tables.per_donor(totals, numbers, geometry, goal),
            others=tuple(
                _tables.per_donor(totals, numbers, geometry, state)
                for state in range(2, len(states.names))
            ),
            n=totals.n[start][:, numbers],
            rank=totals.rank[start][:, numbers].sum(axis=0),
            unchanged=totals.n_unchanged[start][:, numbers].sum(axis=0),
            null=null,
        )


def merged(parts: Sequence[Measured]) -> Measured:
    """All donors, each as its own encoder read it."""
    if len(parts) == 1:
        return parts[0]
    nulls = [part.null for part in parts if part.null is not None]
    return Measured(
        effects=np.concatenate([part.effects for part in parts]),
        others=tuple(np.concatenate(x) for x in zip(*(p.others for p in parts), strict=True)),
        n=np.concatenate([part.n for part in parts]),
        rank=np.sum([part.rank for part in parts], axis=0),
        unchanged=np.sum([part.unchanged for part in parts], axis=0),
        null=every_fold(nulls) if nulls else None,
    )


def every_fold(nulls: Sequence[StateNull]) -> StateNull:
    """A test that must hold in every fold: the largest p, and 1 where the signs differ.

    In each fold p is valid given its encoder, which was trained on other donors. But the folds
    are not independent of each other: what two halves of the donors have in common by chance, each
    half's encoder shows in the other half. Adding up the folds' statistics would take no notice of
    that; the largest of several p-values is valid however they depend on each other.
    """
    signs = np.sign([null.effect for null in nulls])
    agree = (signs == signs[0]).all(axis=0)

    def largest(name: str) -> np.ndarray:
        p = np.max([getattr(null, name) for null in nulls], axis=0)  # NaN where any is
        return np.where(agree | np.isnan(p), p, 1.0)

    tested = all(null.inference == "permutation" for null in nulls)
    return replace(
        nulls[0],
        effect=np.full(len(agree), np.nan),  # of donors, not of folds: see `Measured.effects`
        per_donor=np.concatenate([null.per_donor for null in nulls]),
        p=largest("p"),
        p_family=largest("p_family"),
        p_min=max(null.p_min for null in nulls),
        n_possible=min(null.n_possible for null in nulls),
        exact=all(null.exact for null in nulls),
        inference="permutation" if tested else "descriptive",
    )
