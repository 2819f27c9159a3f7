"""Labelled cells, and what each is for."""

from dataclasses import dataclass, replace

import numpy as np

from ..batches import Sequences
from ._labels import Labels
from ._recipes import Recipe
from ._split import divide


@dataclass(frozen=True, eq=False)
class Cells:
    """Labelled cells, and which of them are set aside.

    Parameters
    ----------
    sequences
        Gene tokens by rank, without special tokens.
    species
        Species code of each cell.
    labels
        At least one for each cell.
    aside
        Whether a cell is set aside to choose and calibrate by.
    groups
        Donor or batch of each cell as a number; None: not known.
    chooses, calibrates
        Which of the cells set aside choose the epoch, and which calibrate; all when not given.
    """

    sequences: Sequences
    species: np.ndarray
    labels: Labels
    aside: np.ndarray
    groups: np.ndarray | None = None
    chooses: np.ndarray = None  # type: ignore[assignment]
    calibrates: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name in ("chooses", "calibrates"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.aside)

    def divided(self, recipe: Recipe) -> "Cells":
        """With `chooses` and `calibrates` said; they differ where there is something to choose."""
        chooses = calibrates = self.aside
        if recipe.epochs and recipe.keep == "best":
            chooses, calibrates = divide(
                self.aside, self.labels.codes[:, 0], self.groups, recipe.seed
            )
        return replace(self, chooses=chooses, calibrates=calibrates)
