"""Which cells of a file belong in a corpus: thresholds, doublets, and why each other was dropped.

A cell is counted under the first reason that holds, in the order of :data:`REASONS`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..._errors import InputError
from ..._jit import jit
from ...genes import Vocabulary

REASONS = (
    "doublet",
    "few_counts",
    "many_counts",
    "few_genes",
    "many_genes",
    "mitochondrial",
)
_YES = frozenset({"1", "1.0", "true", "yes", "doublet"})
_NO = frozenset({"0", "0.0", "false", "no", "singlet", "", "nan", "none", "<na>"})


@dataclass(frozen=True)
class Quality:
    """Thresholds; a cell on one is kept.

    Parameters
    ----------
    min_counts, max_counts
        Count of a cell over all genes of its file.
    min_genes, max_genes
        Number of genes with a count that the vocabulary has for the cell's species.
    max_mitochondrial
        Share of the counts in mitochondrial genes, from 0 to 1.
    """

    min_counts: float = 0
    max_counts: float | None = None
    min_genes: int = 50
    max_genes: int | None = None
    max_mitochondrial: float | None = None

    def __post_init__(self) -> None:
        for low, high, what in (
            (self.min_counts, self.max_counts, "counts"),
            (self.min_genes, self.max_genes, "genes"),
        ):
            if low < 0 or (high is not None and high < low):
                raise InputError(
                    f"Found min_{what}={low} and max_{what}={high}; expected 0 <= min <= max."
                )
        share = self.max_mitochondrial
        if share is not None and not 0 <= share <= 1:
            raise InputError(f"Found max_mitochondrial={share}; expected a share from 0 to 1.")

    def reasons(self, cells: "Profile", doublet: np.ndarray | None) -> np.ndarray:
        """Number of the reason (in ``REASONS``, from 1 on) to drop each cell, 0 to keep it."""
        nothing = np.zeros(cells.totals.size, bool)
        share = cells.mitochondrial / np.maximum(cells.totals, 1e-12)
        holds = (
            nothing if doublet is None else doublet,
            cells.totals < self.min_counts,
            nothing if self.max_counts is None else cells.totals > self.max_counts,
            cells.n_genes
            < max(self.min_genes, 1),  # a cell without genes has nothing to learn from
            nothing if self.max_genes is None else cells.n_genes > self.max_genes,
            nothing if self.max_mitochondrial is None else share > self.max_mitochondrial,
        )
        dropped = np.stack(holds)
        return np.where(dropped.any(0), dropped.argmax(0) + 1, 0)


@dataclass(frozen=True, eq=False)
class Profile:
    """What one look at the counts says of each cell.

    Parameters
    ----------
    totals
        Count over all genes.
    n_genes
        Known genes with a count.
    mitochondrial
        Count over mitochondrial genes.
    content
        128 bits that depend on the known genes and their counts, not on their order, shape (n, 2).
    """

    totals: np.ndarray
    n_genes: np.ndarray
    mitochondrial: np.ndarray
    content: np.ndarray


def profile(
    counts: sp.csr_matrix,
    tokens: np.ndarray,
    known: np.ndarray,
    mitochondrial: np.ndarray,
    species: np.ndarray,
) -> Profile:
    """Look at every count once.

    Parameters
    ----------
    counts
        Cells by genes, no zeros stored, each gene once.
    tokens
        Token of each column, -1 for none.
    known
        Whether a column is a gene of each species in the vocabulary, shape ``(2, n_columns)``.
    mitochondrial
        Whether a column is a mitochondrial gene of either species.
    species
        Species code of each cell.
    """
    n = counts.shape[0]
    out = Profile(np.zeros(n), np.zeros(n, np.int64), np.zeros(n), np.zeros((n, 2), np.uint64))
    matrix = (counts.data, counts.indices, counts.indptr)
    result = (out.totals, out.n_genes, out.mitochondrial, out.content)
    _look(matrix, tokens.astype(np.uint64), known, mitochondrial, species, result)
    return out


@jit()
def _look(matrix, tokens, known, mitochondrial, species, result):
    data, indices, indptr = matrix
    totals, n_genes, mito, content = result
    one = np.empty(1, np.float64)
    bits = one.view(np.uint64)
    for row in range(indptr.size - 1):
        for i in range(indptr[row], indptr[row + 1]):
            column = indices[i]
            one[0] = data[i]  # of the same width whatever the type in the file
            totals[row] += one[0]
            if not known[species[row], column]:
                continue
            n_genes[row] += 1
            if mitochondrial[column]:
                mito[row] += one[0]
            gene = tokens[column]
            content[row, 0] += _mix(_mix(gene + np.uint64(0x9E3779B97F4A7C15)) ^ bits[0])
            content[row, 1] += _mix(_mix(gene + np.uint64(0xC2B2AE3D27D4EB4F)) ^ bits[0])


@jit()
def _mix(x):
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def mitochondrial_tokens(vocabulary: Vocabulary) -> np.ndarray:
    """Tokens of the genes that mitochondria encode (symbols MT-..., mt-...), bool."""
    genes = vocabulary.genes
    out = np.zeros(vocabulary.n_tokens, bool)
    out[genes.token[genes.symbol.str.upper().str.startswith("MT-")]] = True
    return out


def doublets(column: pd.Series) -> np.ndarray:
    """Which cells a column of ``obs`` marks as doublets; a missing value marks none."""
    text = column.astype(object).where(column.notna(), "").astype(str).str.lower()
    unknown = sorted(set(text.unique()) - _YES - _NO)
    if unknown:
        raise InputError(
            f"Column {column.name!r} of obs marks doublets with {', '.join(unknown[:5])}; expected "
            "true or false, 1 or 0, doublet or singlet. Write such a column into the file first."
        )
    return text.isin(_YES).to_numpy(bool)
