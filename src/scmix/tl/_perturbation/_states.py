"""Cells, their states and donors."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pandas as pd
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
        key = self.donor * (len(self.names) + 1) + self.state
        keys = np.flatnonzero(np.bincount(key))
        row = np.searchsorted(keys, np.arange(keys[-1] + 1 if keys.size else 0))
        return *np.divmod(keys, len(self.names) + 1), row[key]


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
    state = np.zeros(adata.n_obs, np.int32)
    if state_key is not None:
        values, value = column_of(adata, state_key)
        for name in names:
            if name not in values:
                raise InputError(
                    f'Found no cell with obs["{state_key}"] == {name!r}; there are '
                    f"{', '.join(values[:10])}. Pass one of these."
                )
        numbers = [names.index(one) if one in names else -1 for one in values.tolist()]
        state = np.array([*numbers, -1], np.int32)[value]
    donors, donor = np.array(["all"]), np.zeros(adata.n_obs, np.int32)
    if donor_key is not None:
        donors, donor = column_of(adata, donor_key)
        state[donor < 0] = -1  # cells without a donor take no part
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


def column_of(adata: AnnData, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of a column of `obs` as text, sorted, and which of them each cell has; -1: none."""
    if key not in adata.obs:
        columns = list(map(str, adata.obs.columns))
        close = get_close_matches(key, columns)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise MissingKeyError(f"Found no column {key!r} in obs; there are {columns}.{hint}")
    codes, values = pd.factorize(adata.obs[key])
    texts = pd.Index(values).astype(str).to_numpy(dtype=object).astype(str)
    names, number = np.unique(texts[texts != ""], return_inverse=True)
    numbers = np.full(len(texts) + 1, -1, np.int32)
    numbers[np.flatnonzero(texts != "")] = number
    return names, numbers[codes]


def texts_of(adata: AnnData, key: str) -> np.ndarray:
    """Values of a column of `obs` as text, one for each cell, `""` where there is none."""
    names, number = column_of(adata, key)
    return np.append(names, "")[number]


def check_every_state(states: States, species: str) -> None:
    """Refuse a species that lacks a state."""
    for code, name in enumerate(states.names):
        if not (states.state == code).any():
            raise InputError(
                f"Found no {species} cell with genes in state {name!r}; expected cells of every "
                "state for each species. Perturb the species apart."
            )
