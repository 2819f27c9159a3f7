"""The encoder sees a fixed number of genes of a cell (TxFM)."""

import numpy as np

from ..._errors import InputError
from ...batches import Sequences
from .uniform import choose


class KeepK:
    """Leaves ``k`` genes of each cell visible, drawn uniformly from those it expresses.

    A budget of visible genes, not a share: "90 % hidden" leaves 2,000 genes of a deeply sequenced
    sample and 60 of a droplet with 600. A cell with fewer than ``k`` genes shows all of them.

    Parameters
    ----------
    k
        Visible genes.

    Examples
    --------
    >>> cells = Sequences.from_list([range(10), range(2)])
    >>> hidden = KeepK(3)(cells, np.random.default_rng(0))
    >>> int((~hidden[:10]).sum()), int((~hidden[10:]).sum())
    (3, 2)
    """

    def __init__(self, k: int) -> None:
        if k < 1:
            raise InputError(f"Found k={k}, expected at least 1 visible gene.")
        self.k = k

    def __call__(self, cells: Sequences, rng: np.random.Generator) -> np.ndarray:
        """Which genes are hidden, bool, shape ``(T,)``."""
        return ~choose(cells, np.minimum(cells.lengths, self.k), rng)
