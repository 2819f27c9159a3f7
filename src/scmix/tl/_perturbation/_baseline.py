"""What expression alone says about a gene: the baseline that effects stand beside."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

_PER_CELL = 1e4


@dataclass(frozen=True, eq=False)
class Baseline:
    """Expression of every token, in the cells of one species.

    Parameters
    ----------
    mean
        Mean over the cells of each state of log2(1 + counts per 10,000), `(n_states, n_tokens)`.
    detected
        Share of them that have a count, `(n_states, n_tokens)`.
    """

    mean: np.ndarray
    detected: np.ndarray

    @classmethod
    def of(
        cls,
        counts: Iterator[tuple[int, sp.csr_matrix]],
        tokens: np.ndarray,
        state: np.ndarray,
        n_states: int,
        n_tokens: int,
    ) -> "Baseline":
        """Read blocks of counts; `state` is that of each cell, -1 for cells that are left out."""
        known = np.flatnonzero(tokens >= 0)
        ones = np.ones(known.size)
        merge = sp.csr_array((ones, (known, tokens[known])), (len(tokens), n_tokens))
        mean, detected = np.zeros((2, n_states, n_tokens))
        for start, block in counts:
            of_cell = state[start : start + block.shape[0]]
            kept = np.flatnonzero(of_cell >= 0)
            rows = sp.csr_array(block[kept])
            depth = np.maximum(np.asarray(rows.sum(axis=1)).ravel(), 1)
            genes = (sp.diags_array(_PER_CELL / depth) @ rows @ merge).tocsr()
            genes.data = np.log2(1 + genes.data)
            member = sp.csr_array(
                (np.ones(kept.size), (of_cell[kept], np.arange(kept.size))), (n_states, kept.size)
            )
            mean += (member @ genes).toarray()
            genes.data = np.ones_like(genes.data)
            detected += (member @ genes).toarray()
        n = np.bincount(state[state >= 0], minlength=n_states)[:, None]
        return cls(mean / n, detected / n)

    def log_fold_change(self) -> np.ndarray:
        """Of the second state over the first; NaN where there is one state."""
        if len(self.mean) < 2:
            return np.full(self.mean.shape[1], np.nan)
        return self.mean[1] - self.mean[0]
