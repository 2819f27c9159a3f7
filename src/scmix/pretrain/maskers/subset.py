"""The encoder sees a random part of a cell's genes, of a size drawn for each cell."""

import numpy as np

from ..._errors import InputError
from ...batches import Sequences


class Subset:
    """Leaves each gene of a cell visible with a chance drawn for the cell from [low, high].

    At least one gene of every cell that has any stays visible.

    Parameters
    ----------
    low, high
        Bounds of the chance.

    Examples
    --------
    >>> cells = Sequences.from_list([range(1000)])
    >>> hidden = Subset(0.5, 0.5)(cells, np.random.default_rng(0))
    >>> bool(400 < hidden.sum() < 600)
    True
    """

    def __init__(self, low: float, high: float) -> None:
        if not 0 < low <= high <= 1:
            raise InputError(f"Found shares {low} to {high}, expected 0 < low <= high <= 1.")
        self.low, self.high = low, high

    def __call__(self, cells: Sequences, rng: np.random.Generator) -> np.ndarray:
        """Which genes are hidden, bool, shape ``(T,)``."""
        lengths = cells.lengths
        chance = np.repeat(rng.uniform(self.low, self.high, len(cells)), lengths)
        visible = rng.random(cells.tokens.size) < chance
        n_visible = np.add.reduceat(np.append(visible, False), cells.indptr[:-1])
        visible[cells.indptr[:-1][(lengths > 0) & (n_visible == 0)]] = True
        return ~visible
