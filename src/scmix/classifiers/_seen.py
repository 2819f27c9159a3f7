"""Cells recognised by the order of their genes."""

import numpy as np

from ..batches import Sequences, positions

FEWEST_GENES = 10  # shorter cells can be alike by chance
COMPARED = 128  # genes, so that it does not matter how many are read


def fingerprints(sequences: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """64 bits of the first tokens of each cell.

    Parameters
    ----------
    sequences
        Tokens of the cells, special ones included.

    Returns
    -------
    uint64 (n_cells,), and whether a cell is long enough to be told from others by them.

    Examples
    --------
    >>> cells = Sequences.from_list([range(4, 20), range(4, 20), range(20, 4, -1)])
    >>> marks, _ = fingerprints(cells)
    >>> bool(marks[0] == marks[1]), bool(marks[0] == marks[2])
    (True, False)
    """
    place = positions(sequences.indptr)
    mixed = _mix(sequences.tokens.astype(np.uint64) ^ _mix(place.astype(np.uint64)))
    mixed[place >= COMPARED] = 0
    sums = np.zeros(mixed.size + 1, np.uint64)
    np.cumsum(mixed, out=sums[1:])  # wraps around, as it may
    marks = sums[sequences.indptr[1:]] - sums[sequences.indptr[:-1]]
    return marks, sequences.lengths >= FEWEST_GENES


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
