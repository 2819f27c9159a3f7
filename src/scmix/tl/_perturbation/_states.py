"""Cells, their states and donors."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from anndata import AnnData

from ..._errors import InputError, MissingKeyError


@dataclass(frozen=True, eq=False)
class States:
    """States and donors of the cells that take part.

    Parameters
    ----------
    cells
        Rows of the AnnData, ascending.
    names
        Names of the states: start, goal, others; empty without states.
    state
        State of each cell that takes part, an index of `names`; 0 without states.
    donor
        Donor of each, an index of `donors`.
    donors
        Names of the donors.
    """

    cells: np.ndarray
    names: tuple[str, ...]
    state: np.ndarray
    donor: np.ndarray
    donors: np.ndarray

    def __getitem__(self, which: np.ndarray) -> "States":
        return States(
            self.cells[which], self.names, self.state[which], self.donor[which], self.donors
        )

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Donors in a state: donor and state of each such row, and the row of each cell."""
        keys, row = np.unique(self.donor * (len(self.names) + 1) + self.state, return_inverse=True)
        return *np.divmod(keys, len(self.names) + 1), row


def read_states(
    adata: AnnData,
    state_key: str | None,
    start: str | None,
    goal: str | None,
    others: Sequence[str],
    donor_key: str | None,
) -> States:
    """States and donors from `obs`, checked."""
    names = _names(state_key, start, goal, others)
    state = np.zeros(adata.n_obs, np.int64)
    if state_key is not None:
        values = column_of(adata, state_key)
        state = np.full(adata.n_obs, -1, np.int64)
        for code, name in enumerate(names):
            state[values == name] = code
            if not (state == code).any():
                known = ", ".join(sorted(set(values) - {""})[:10])
                raise InputError(
                    f'Found no cell with obs["{state_key}"] == {name!r}; there are {known}. '
                    "Pass one of these."
                )
    donors, donor = np.array(["all"]), np.zeros(adata.n_obs, np.int64)
    if donor_key is not None:
        values = column_of(adata, donor_key)
        state[values == ""] = -1  # cells without a donor take no part
        donors, donor = np.unique(values, return_inverse=True)
    cells = np.flatnonzero(state >= 0)
    return States(cells, names, state[cells], donor[cells], donors)


def drawn(states: States, state: int, max_cells: int | None, seed: int) -> np.ndarray:
    """Some cells of a state, spread evenly over donors: indices, ascending."""
    cells = np.flatnonzero(states.state == state)
    if max_cells is None or len(cells) <= max_cells:
        return cells
    order = np.random.default_rng([seed, state]).permutation(cells)
    order = order[np.argsort(states.donor[order], kind="stable")]
    donor = states.donor[order]
    turn = np.arange(len(order)) - np.searchsorted(donor, donor)
    return np.sort(order[np.argsort(turn, kind="stable")[:max_cells]])


def _names(
    state_key: str | None, start: str | None, goal: str | None, others: Sequence[str]
) -> tuple[str, ...]:
    if isinstance(others, str):
        raise InputError(f"Found other_states={others!r}; expected a list of states.")
    if state_key is None:
        if start is not None or goal is not None or len(others):
            raise InputError("Found a state but no state_key; pass the column of obs that has it.")
        return ()
    if start is None or goal is None:
        raise InputError(f"Found start={start!r} and goal={goal!r}; expected two states.")
    names = tuple(map(str, (start, goal, *others)))
    if len(set(names)) < len(names):
        raise InputError(f"Found {', '.join(names)}; expected different states. Change one.")
    return names


def column_of(adata: AnnData, key: str) -> np.ndarray:
    """Values of a column of `obs` as text, `""` where there is none."""
    if key not in adata.obs:
        columns = list(map(str, adata.obs.columns))
        close = get_close_matches(key, columns)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise MissingKeyError(f"Found no column {key!r} in obs; there are {columns}.{hint}")
    values = adata.obs[key]
    missing = values.isna().to_numpy(bool)
    texts = values.astype(str).to_numpy(dtype=object).astype(str)
    return np.where(missing, "", texts)


def check_every_state(states: States, species: str) -> None:
    """Refuse a species that lacks a state."""
    for code, name in enumerate(states.names):
        if not (states.state == code).any():
            raise InputError(
                f"Found no {species} cell with genes in state {name!r}; expected cells of every "
                "state for each species. Perturb the species apart."
            )
