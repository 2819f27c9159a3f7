"""Which cells a method learns from and which it is tested on; the same for every method."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold, StratifiedKFold


@dataclass(frozen=True, eq=False)
class Split:
    """One training part and the test part that goes with it.

    Parameters
    ----------
    seed
        Drew the split, and drives whatever is random in a method.
    fold
        Number of the split among those of its seed.
    train, test
        Rows of the cells.
    """

    seed: int
    fold: int
    train: NDArray[np.intp]
    test: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Design:
    """All splits of a question that is asked.

    Parameters
    ----------
    name
        What the table says about it.
    by_seed
        Splits of each seed. Their test parts do not overlap and are the same cells for every seed.
    fixed
        Whether every seed has the same splits, so that only chance within a method differs.
    """

    name: str
    by_seed: dict[int, list[Split]]
    fixed: bool

    @property
    def tested(self) -> NDArray[np.intp]:
        """Rows of all cells that are tested, in ascending order."""
        first = next(iter(self.by_seed.values()))
        return np.sort(np.concatenate([split.test for split in first]))


def within(
    codes: NDArray[np.intp],
    groups: NDArray[np.intp] | None,
    n_splits: int,
    seeds: Sequence[int],
    groups_name: str = "",
) -> Design:
    """Cross-validation: every cell is tested once per seed.

    Parameters
    ----------
    codes
        Class of each cell.
    groups
        Donor of each cell, which then is never on both sides; None: not known.
    n_splits
        Number of folds. With no more groups than that, one group at a time is left out.
    seeds
        Each draws other folds.
    groups_name
        Column of the groups, for the name of the design.
    """
    if groups is None:
        name, fixed = f"{n_splits}-fold", False
    elif len(np.unique(groups)) <= n_splits:
        name, fixed = f"leave one {groups_name} out", True
    else:
        name, fixed = f"{n_splits}-fold by {groups_name}", False
    by_seed = {}
    for seed in seeds:
        if groups is None:
            folds = StratifiedKFold(n_splits, shuffle=True, random_state=seed).split(codes, codes)
        elif fixed:
            folds = LeaveOneGroupOut().split(codes, codes, groups)
        else:
            draw = StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed)
            folds = draw.split(codes, codes, groups)
        by_seed[seed] = [Split(seed, i, train, test) for i, (train, test) in enumerate(folds)]
    return Design(name, by_seed, fixed)


def between(
    species: NDArray[np.integer], names: Sequence[str], seeds: Sequence[int]
) -> list[Design]:
    """From each species to the other.

    Parameters
    ----------
    species
        Species code of each cell; two of them occur.
    names
        Name of each species code.
    seeds
        As in :func:`within`; splits are the same for all.
    """
    designs = []
    for source, target in (np.unique(species), np.unique(species)[::-1]):
        rows = [np.flatnonzero(species == code) for code in (source, target)]
        by_seed = {seed: [Split(seed, 0, *rows)] for seed in seeds}
        designs.append(Design(f"{names[source]} to {names[target]}", by_seed, fixed=True))
    return designs
