"""Expressed genes are hidden at one rate, zeros at another (xTrimoGene, scFoundation)."""

import numpy as np

from ..._errors import InputError
from ...batches import Sequences
from .uniform import Uniform


class NonzeroZero:
    """Hides a share of a cell's expressed genes and a smaller share of its zeros.

    The encoder reads neither; both are targets. A zero is a gene that the data set measured and
    the cell has no count of.

    Parameters
    ----------
    nonzero
        Share of expressed genes; published: 0.30.
    zero
        Chance of each zero; published: 0.03.

    Examples
    --------
    >>> cells = Sequences.from_list([range(10)])
    >>> masker = NonzeroZero()
    >>> int(masker(cells, np.random.default_rng(0)).sum())
    3
    >>> measured = np.ones((1, 1010), bool)
    >>> zeros = masker.zeros(cells, measured, np.random.default_rng(0))
    >>> bool(15 < zeros.lengths[0] < 50), bool((zeros.tokens >= 10).all())
    (True, True)
    """

    def __init__(self, nonzero: float = 0.3, zero: float = 0.03) -> None:
        if not 0 <= zero < 1:
            raise InputError(f"Found zero={zero}, expected a share of at least 0 and below 1.")
        self._nonzero, self.zero = Uniform(nonzero), zero

    def __call__(self, cells: Sequences, rng: np.random.Generator) -> np.ndarray:
        """Which expressed genes are hidden, bool, shape ``(T,)``."""
        return self._nonzero(cells, rng)

    def zeros(self, cells: Sequences, measured: np.ndarray, rng: np.random.Generator) -> Sequences:
        """Draw hidden zeros.

        Parameters
        ----------
        cells
            All expressed genes of each cell.
        measured
            Genes that each cell's data set has, bool, shape ``(n, n_tokens)``.
        rng
            Source of the choice.

        Returns
        -------
        Tokens of the zeros chosen of each cell.
        """
        chosen = rng.random(measured.shape, np.float32) < self.zero
        chosen &= measured
        chosen[np.repeat(np.arange(len(cells)), cells.lengths), cells.tokens] = False
        row, token = np.nonzero(chosen)
        return Sequences(token, np.searchsorted(row, np.arange(len(cells) + 1)))
