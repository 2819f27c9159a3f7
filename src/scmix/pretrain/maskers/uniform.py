"""Every gene of a cell is hidden with the same chance; how many is fixed."""

import numpy as np

from ..._errors import InputError
from ...batches import Sequences, positions


class Uniform:
    """Hides a share of each cell's genes, rounded to whole genes.

    Unlike :class:`Masker`, whose share holds for the batch, every cell has its own. One gene stays
    visible at least.

    Parameters
    ----------
    share
        Share of genes to hide.

    Examples
    --------
    >>> cells = Sequences.from_list([range(10), range(4)])
    >>> hidden = Uniform(0.3)(cells, np.random.default_rng(0))
    >>> int(hidden[:10].sum()), int(hidden[10:].sum())
    (3, 1)
    """

    def __init__(self, share: float) -> None:
        if not 0 < share < 1:
            raise InputError(f"Found share={share}, expected a share between 0 and 1.")
        self.share = share

    def __call__(self, cells: Sequences, rng: np.random.Generator) -> np.ndarray:
        """Which genes are hidden, bool, shape ``(T,)``."""
        return choose(cells, n_hidden(cells.lengths, self.share), rng)


def n_hidden(lengths: np.ndarray, share: float | np.ndarray) -> np.ndarray:
    """Genes to hide of each cell: the share, rounded, and not all."""
    return np.minimum(np.rint(share * lengths).astype(np.int64), np.maximum(lengths - 1, 0))


def choose(cells: Sequences, n: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose ``n[i]`` genes of cell ``i`` uniformly without replacement: bool, shape ``(T,)``."""
    cell = np.repeat(np.arange(len(cells)), cells.lengths)
    order = np.argsort(cell + rng.random(cell.size))  # shuffled within cells
    chosen = np.empty(cell.size, bool)
    chosen[order] = positions(cells.indptr) < np.repeat(n, cells.lengths)
    return chosen
