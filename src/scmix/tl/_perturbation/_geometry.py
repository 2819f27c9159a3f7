"""Where states lie, and what is measured of a cell's movement."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...effects import Formula, Measure
from .._spool import Vectors
from ._states import States


@dataclass(frozen=True, eq=False)
class Geometry:
    """Vectors of donors and states, and the directions that shifts are measured along.

    Parameters
    ----------
    formula
        How cells are compared.
    donor, state
        Donor and state of each row, `(n_rows,)`: a row is a donor in a state.
    rows
        Mean over the cells of each row of their unit vectors, `(n_rows, H)`.
    states
        Mean vector of each state, neither centred nor of unit length, `(n_states, H)`.
    measure
        Reads pairs of vectors. With the centred formula its directions are `rows`, otherwise the
        unit vectors of the states.
    """

    formula: Formula
    donor: np.ndarray
    state: np.ndarray
    rows: np.ndarray
    states: np.ndarray
    measure: Measure

    @classmethod
    def of(cls, formula: Formula, vectors: Vectors, states: States) -> "Geometry":
        """Make it from the vectors of all cells."""
        donor, state, row = states.rows()
        width = vectors.width
        row_means = _means(vectors, row, len(donor))
        # not of the states: the mean over all rows, whatever state they are in
        centre = row_means.mean(axis=0) if formula.centred else np.zeros(width)
        plain = Measure(centre, np.empty((0, width)))
        rows = _means(vectors, row, len(donor), plain.unit)
        means = _means(vectors, states.state, max(len(states.names), 1))
        probes = rows if formula.centred else plain.unit(means)
        if not states.names:
            probes = probes[:0]
        return cls(formula, donor, state, rows, means, Measure(centre, probes))

    def towards(self, state: int) -> np.ndarray:
        """Weights of the directions whose sum is the movement that counts as towards a state.

        Centred: towards it minus towards the start; as published: towards it.
        """
        if not self.formula.centred:
            return np.eye(len(self.states))[state]
        return self._side(state) - self._side(0)

    def _side(self, state: int) -> np.ndarray:
        member = (self.state == state).astype(np.float64)
        return member / np.linalg.norm(member @ self.rows)


def _means(
    vectors: Vectors,
    group: np.ndarray,
    n_groups: int,
    change: Callable[[np.ndarray], np.ndarray] = lambda some: some.astype(np.float64),
) -> np.ndarray:
    """Mean vector of each group, some cells at a time."""
    sums = np.zeros((n_groups, vectors.width))
    for first, some in vectors.blocks():
        np.add.at(sums, group[first : first + len(some)], change(some))
    return sums / np.bincount(group, minlength=n_groups)[:, None]
