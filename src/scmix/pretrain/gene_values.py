"""Mean and spread of every gene's value in a corpus: where value decoders start."""

import numpy as np

from ..decoders._log_values import log_values
from ..genes import SPECIES
from .corpus import Corpus

N_CELLS = 20_000
_AT_ONCE = 2_000


def value_moments(
    corpus: Corpus, total: float, *, n_cells: int = N_CELLS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of ``log1p(total * count / all counts)`` of each gene.

    Over the cells of data sets that measured the gene, zeros included; both are zero for a gene
    that none did.

    Parameters
    ----------
    corpus
        Holds counts.
    total
        Counts that a cell is scaled to.
    n_cells
        Most cells read, drawn evenly.
    seed
        Of the draw.

    Returns
    -------
    Float32, shape ``(2, n_tokens)`` each: a row for each species.
    """
    shape = (len(SPECIES), corpus.vocabulary.n_tokens)
    sums, squares, n = (np.zeros(shape) for _ in range(3))
    rows = np.random.default_rng(seed).permutation(len(corpus))[:n_cells]
    for start in range(0, len(rows), _AT_ONCE):
        part = np.sort(rows[start : start + _AT_ONCE])
        for code in range(len(SPECIES)):
            cells = part[corpus.species[part] == code]
            tokens, values = _values(corpus, cells, total)
            sums[code] += np.bincount(tokens, values, shape[1])
            squares[code] += np.bincount(tokens, values.astype(np.float64) ** 2, shape[1])
            groups = np.bincount(corpus.group(cells), minlength=len(corpus.measured_genes))
            n[code] += groups @ corpus.measured_genes
    mean = sums / np.maximum(n, 1)
    variance = np.maximum(squares / np.maximum(n, 1) - mean**2, 0)
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def _values(corpus: Corpus, rows: np.ndarray, total: float) -> tuple[np.ndarray, np.ndarray]:
    cells = corpus.sequences(rows)
    totals = np.repeat(corpus.totals[rows], cells.lengths)
    return cells.tokens, log_values(corpus.counts(rows), totals, total)
