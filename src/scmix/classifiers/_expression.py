"""From the order of a cell's genes back to how strongly each is expressed."""

import numpy as np
import scipy.sparse as sp

from .._jit import jit
from ..batches import Sequences
from ..genes import Vocabulary

_PER_CELL = 10_000.0
_EQUAL = 1 - 1e-9  # scores that differ by rounding only are equal


def expression(sequences: Sequences, vocabulary: Vocabulary) -> np.ndarray:
    """Log of 1 + counts per 10,000 of every token, from the order of the tokens.

    Genes stand in the order of count / median. Read from the last gene to the first, each has the
    smallest whole count with which it is not below the next one; these counts, added up, are those
    of the cell. With all genes of a cell that is close to the truth, and never above it: their sum
    is some per cent below the real one, more in cells of several thousand genes. Values that were
    no counts give a curve that falls with the rank.

    Parameters
    ----------
    sequences
        Tokens of the cells, special ones included.
    vocabulary
        Gives the medians.

    Returns
    -------
    float32, one number for each token; 0 for special tokens.
    """
    medians = np.nan_to_num(vocabulary.medians).astype(np.float64)
    medians = np.where(medians > 0, medians, medians[::-1])  # a gene that one species has
    counts = np.zeros(sequences.tokens.size)
    _smallest_counts(sequences.tokens, sequences.indptr, medians, _species(sequences, vocabulary),
                     counts)  # fmt: skip
    cell = np.repeat(np.arange(len(sequences)), sequences.lengths)
    totals = np.bincount(cell, counts, minlength=len(sequences))
    scale = _PER_CELL / np.where(totals > 0, totals, 1)
    return np.log1p(counts * scale[cell]).astype(np.float32)


def gene_matrix(sequences: Sequences, vocabulary: Vocabulary) -> sp.csr_matrix:
    """:func:`expression` as cells by tokens, float32."""
    shape = (len(sequences), vocabulary.n_tokens)
    values = expression(sequences, vocabulary)
    genes = sp.csr_matrix((values, sequences.tokens, sequences.indptr), shape, copy=True)
    genes.eliminate_zeros()  # of special tokens
    return genes


def _species(sequences: Sequences, vocabulary: Vocabulary) -> np.ndarray:
    """Species code of each cell, by the token in front where the vocabulary has one for it."""
    codes = np.zeros(len(sequences), np.int64)
    mouse = vocabulary.prefix(1)
    occupied = np.flatnonzero(sequences.lengths)
    if mouse != vocabulary.prefix(0):
        codes[occupied] = sequences.tokens[sequences.indptr[occupied]] == mouse[0]
    return codes


@jit()
def _smallest_counts(tokens, indptr, medians, species, counts):  # type: ignore[no-untyped-def]
    for cell in range(indptr.size - 1):
        score = 0.0
        for place in range(indptr[cell + 1] - 1, indptr[cell] - 1, -1):
            median = medians[species[cell], tokens[place]]
            if median > 0:
                counts[place] = max(np.ceil(score * median * _EQUAL), 1.0)
                score = max(score, counts[place] / median)
