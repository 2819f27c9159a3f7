"""Counts in the order of ranked tokens."""

import numpy as np
import scipy.sparse as sp

from ..._jit import jit
from ...batches import Sequences


def aligned_counts(
    counts: sp.csr_matrix, column_tokens: np.ndarray, sequences: Sequences
) -> np.ndarray:
    """Count of each token of the ranked cells, summed over the columns that share the token.

    Parameters
    ----------
    counts
        What was ranked.
    column_tokens
        Token of each column; -1 for none.
    sequences
        Ranked tokens of the same cells.

    Returns
    -------
    Float32, aligned with ``sequences.tokens``.
    """
    out = np.zeros(sequences.tokens.size, np.float32)
    if out.size:
        tokens = np.asarray(column_tokens, np.int32)
        matrix = (counts.data, counts.indices, counts.indptr)
        place = np.zeros(tokens.max() + 1, np.int64)
        _align(matrix, tokens, sequences.tokens, sequences.indptr, place, out)
    return out


@jit()
def _align(matrix, column_tokens, ranked, starts, place, out):
    data, indices, indptr = matrix
    for row in range(indptr.size - 1):
        start, stop = starts[row], starts[row + 1]
        for i in range(start, stop):
            place[ranked[i]] = i
        for i in range(indptr[row], indptr[row + 1]):
            token = column_tokens[indices[i]]
            if token < 0:
                continue
            at = place[token]  # of an earlier cell where this one's token was cut off
            if start <= at < stop and ranked[at] == token:
                out[at] += data[i]


@jit()
def extent(values):
    """Return the largest value, and whether all are whole numbers."""
    largest, n_fractional = 0.0, 0
    for i in range(values.size):
        largest = max(largest, values[i])
        n_fractional += np.floor(values[i]) != values[i]
    return largest, n_fractional == 0
