"""The scale of expression values, in one place."""

import numpy as np


def log_values(counts: np.ndarray, totals: np.ndarray, scale: float = 10_000.0) -> np.ndarray:
    """``log1p(scale * count / total)`` in float32; zero where the total is zero.

    Parameters
    ----------
    counts
        Counts of genes.
    totals
        All counts of each one's cell, of a shape that broadcasts.
    scale
        Counts that a cell is scaled to.

    Examples
    --------
    >>> log_values(np.array([0, 1, 9]), np.array(10_000.0)).round(4)
    array([0.    , 0.6931, 2.3026], dtype=float32)
    """
    totals = np.asarray(totals, np.float64)
    share = np.divide(counts, np.where(totals > 0, totals, np.inf))
    return np.log1p(scale * share).astype(np.float32)
