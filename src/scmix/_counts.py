"""What raw counts look like: any matrix as CSR blocks, and the checks that refuse anything else."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scmix._errors import InputError
from scmix._jit import jit

TOLERATED_FRACTION = 1e-4  # of the counts; ambient correction and alignment leave a few
MAX_COUNT = 2**31
_EXACT = {2: 2**11, 4: 2**24, 8: 2**53}  # by bytes: integers above are rounded
_SAMPLE_ROWS = 64
_MOSTLY = 0.5  # of log-transformed values nearly all are fractional
_CORRECTED = "If they are counts corrected for ambient RNA, pass allow_noninteger=True."
_MAX_LOG = 25  # exp(25) counts in one cell and gene do not occur


def csr(
    data: np.ndarray,
    indices: np.ndarray,
    indptr: np.ndarray,
    shape: tuple[int, ...],
    canonical: bool,
) -> sp.csr_matrix:
    """CSR that shares the arrays as they are: scipy would copy slices of longer ones."""
    matrix = sp.csr_matrix(shape, dtype=data.dtype)
    matrix.data, matrix.indices, matrix.indptr = data, indices, indptr
    matrix.has_canonical_format = canonical
    return matrix


def as_array(block: Any) -> sp.csr_matrix | np.ndarray:
    """Rows of any kind of matrix as CSR or a plain two-dimensional array, without a copy if it can.

    Masked entries of a masked array are taken as not detected.
    """
    if isinstance(block, sp.csr_matrix | sp.csr_array):
        block = sp.csr_matrix((block.data, block.indices, block.indptr), shape=block.shape)
    elif sp.issparse(block):
        small = block.dtype.kind in "iub" and block.dtype.itemsize < 8
        block = sp.csr_matrix(block.astype(np.float64) if small else block)  # sums duplicates
    elif isinstance(block, np.ma.MaskedArray):
        block = np.asarray(block.filled(0))
    elif isinstance(block, np.ndarray | pd.DataFrame):
        block = np.asarray(block)
    else:
        raise InputError(
            f"Found counts of type {type(block).__name__}; expected a numpy, scipy.sparse, backed "
            "or dask array."
        )
    if block.dtype.kind not in "fiub":
        raise InputError(f"Found counts of dtype {block.dtype}; expected numbers.")
    if isinstance(block, sp.csr_matrix):
        _check_structure(block)
    return block


def _check_structure(matrix: sp.csr_matrix) -> None:
    """Kernels do not look whether an index is inside the matrix; see whether they are in order."""
    indices, indptr = matrix.indices, matrix.indptr
    whole = bool((np.diff(indptr) >= 0).all())
    matrix.has_canonical_format = whole and _is_canonical(indices, indptr)
    if matrix.has_canonical_format:  # then the ends of rows tell
        starts = indptr[:-1][np.diff(indptr) > 0]
        ends = np.append(starts[1:], indptr[-1:])[: starts.size] - 1
        indices = np.concatenate([indices[starts], indices[ends]])
    unsigned = indices.view(f"u{indices.itemsize}")  # negative ones become large
    if not whole or unsigned.max(initial=0) >= max(matrix.shape[1], 1):
        raise InputError(
            f"The sparse matrix is damaged: it has indices outside its shape {matrix.shape}. "
            "Write it again from its source."
        )


def as_counts(block: sp.csr_matrix | np.ndarray, *, all_positive: bool = False) -> sp.csr_matrix:
    """Checked rows as CSR in float32 or float64: sorted, without duplicates or explicit zeros."""
    counts = _as_csr(block)
    if not counts.has_canonical_format:
        counts = counts.copy()
        counts.sum_duplicates()
    if not all_positive and counts.data.size and not counts.data.all():
        counts = counts.copy()
        counts.eliminate_zeros()
        counts.has_canonical_format = True
    return counts


def _as_csr(block: sp.csr_matrix | np.ndarray) -> sp.csr_matrix:
    """CSR in float32 or float64; scipy knows neither float16 nor a foreign byte order."""
    if isinstance(block, np.ndarray):
        return sp.csr_matrix(_as_floats(block))
    canonical = block.has_canonical_format
    return csr(_as_floats(block.data), block.indices, block.indptr, block.shape, canonical)


def _as_floats(values: np.ndarray) -> np.ndarray:
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype in (np.float32, np.float64):
        return values
    if values.dtype.kind == "f":
        return values.astype(np.float32 if values.itemsize == 2 else np.float64)
    return values.astype(np.float32 if values.max(initial=0) <= _EXACT[4] else np.float64)


@dataclass(frozen=True)
class Summary:
    """What :class:`CountCheck` needs to know of a block.

    Parameters
    ----------
    n_positive, n_fractional
        Number of values above zero, and of fractional ones (NaN among them).
    smallest, largest
        Of all values; zero where none are stored.
    all_positive
        Whether all values are above zero.
    dtype
        Of the values.
    """

    n_positive: int
    n_fractional: int
    smallest: float
    largest: float
    all_positive: bool
    dtype: np.dtype

    @classmethod
    def of(cls, block: sp.csr_matrix | np.ndarray) -> "Summary":
        """Look at every value once."""
        values = block.data if isinstance(block, sp.csr_matrix) else block.ravel(order="K")
        found = _summary(values)
        return cls(*found, all_positive=found[0] == values.size, dtype=values.dtype)


class CountCheck:
    """Refuses what cannot be raw counts, block after block.

    Parameters
    ----------
    where
        Name of the matrix in messages.
    cells, genes
        Names of rows and columns.
    capacity
        How many counts there are in all, or at most; what share may be fractional goes by it.
    allow_noninteger
        Accept fractional values.
    is_part
        The cells are some of many, which may all be empty.
    advice
        Gives the last sentence of a message: where counts are to be had.
    """

    def __init__(
        self,
        where: str,
        cells: pd.Index,
        genes: pd.Index,
        *,
        capacity: int,
        allow_noninteger: bool = False,
        is_part: bool = False,
        advice: Callable[[], str] = str,
    ) -> None:
        self.where, self.cells, self.genes, self.advice = where, cells, genes, advice
        self.capacity, self.allow_noninteger, self.is_part = capacity, allow_noninteger, is_part
        self.n_counts = self.n_fractional = 0
        self.largest = 0.0

    def add(
        self, start: int, seen: Summary, block: Callable[[], sp.csr_matrix | np.ndarray]
    ) -> None:
        """Take in the rows from `start` on; raise if they alone show that these are no counts.

        `block` gives the rows themselves, to be looked at where something is wrong.
        """
        if seen.smallest < 0 or not np.isfinite([seen.smallest, seen.largest]).all():
            self._refuse_values(start, block())
        self.n_counts += seen.n_positive
        self.n_fractional += seen.n_fractional
        if seen.largest > self.largest:
            self.largest = seen.largest
            self._check_precision(seen.dtype)
        if seen.n_fractional and self.n_fractional > TOLERATED_FRACTION * self.capacity:
            self._check_fractions(block())

    def close(self) -> None:
        """Judge what only the whole can tell."""
        if not self.n_counts and self.is_part:
            return
        if not self.n_counts:
            raise InputError(f"All values in {self.where} are zero. {self.advice()}".rstrip())
        share = self.n_fractional / self.n_counts
        if self.allow_noninteger or not share:
            return
        if share > TOLERATED_FRACTION:
            raise InputError(self._fractional_message(share))
        warnings.warn(
            f"Found {self.n_fractional:,} fractional values among {self.n_counts:,} in "
            f"{self.where}; they are ranked as they are.",
            stacklevel=2,
        )

    def _refuse_values(self, start: int, block: sp.csr_matrix | np.ndarray) -> None:
        entries = _as_csr(block).tocoo()
        values = entries.data
        for what, bad in (
            ("NaN", np.isnan(values)),
            ("infinite values", np.isinf(values)),
            ("negative values", values < 0),
        ):
            if not bad.any():
                continue
            first = np.flatnonzero(bad)[0]
            cell, gene = self.cells[start + entries.row[first]], self.genes[entries.col[first]]
            scaled = f" It looks scaled (lowest {values.min():.3g})." if what[0] == "n" else ""
            raise InputError(
                f"Found {bad.sum():,} {what} in {self.where}, the first at cell {cell!r}, gene "
                f"{gene!r}.{scaled} Expected raw counts. {self.advice()}".rstrip()
            )

    def _check_precision(self, dtype: np.dtype) -> None:
        if self.largest > MAX_COUNT:
            raise InputError(
                f"Found {self.largest:.3g} in {self.where}; counts above 2**31 do not occur. "
                f"Expected raw counts. {self.advice()}".rstrip()
            )
        if dtype.kind == "f" and self.largest > _EXACT[min(dtype.itemsize, 8)]:
            warnings.warn(
                f"Found counts up to {self.largest:,.0f} in {self.where}, which {dtype} rounds. "
                "Store them as integers or float64.",
                stacklevel=2,
            )

    def _check_fractions(self, block: sp.csr_matrix | np.ndarray) -> None:
        """Stop early when values too fractional for all there are do not look like counts."""
        rows = _as_csr(block)
        some = np.flatnonzero(_totals(rows))[:_SAMPLE_ROWS]
        kind = _transformation(rows[some].astype(np.float64))
        share = self.n_fractional / self.n_counts
        found = f"in {self.where} (max {self.largest:.3g}, {100 * share:.3g} % fractional)"
        if kind == "log":
            raise InputError(
                f"Found log-transformed values {found}. Expected raw counts. {self.advice()}"
            )
        if self.allow_noninteger:
            return
        if kind == "library":
            raise InputError(
                f"Found counts scaled to library size {found}. Expected raw counts. "
                f"{self.advice()} allow_noninteger=True ranks them as they are: a factor per cell "
                "does not change the order."
            )
        if kind == "small" and share > _MOSTLY:
            raise InputError(
                f"Found log-transformed values {found}. Expected raw counts. {self.advice()} "
                f"{_CORRECTED}"
            )
        raise InputError(self._fractional_message(share))

    def _fractional_message(self, share: float) -> str:
        return (
            f"Found {self.n_fractional:,} fractional values in {self.where} ({100 * share:.3g} %). "
            f"Expected raw counts. {self.advice()} {_CORRECTED}"
        )


def is_counts(block: Any) -> bool:
    """Whether the rows hold counts: some above zero, none negative, fractional or not finite."""
    seen = Summary.of(as_array(block))
    whole = seen.n_positive and not seen.n_fractional
    return bool(whole and seen.smallest >= 0 and seen.largest <= MAX_COUNT)


def _transformation(rows: sp.csr_matrix) -> str:
    """What was done to counts: "log" (certainly), "library", "small" values, or "other"."""
    low = rows.max() < _MAX_LOG
    if low:
        back = rows.expm1()
        if _are_whole(back.data) or _are_equal(_totals(back)):
            return "log"
    if _are_equal(_totals(rows)) or _are_whole(_totals(rows)):
        return "library"
    return "small" if low else "other"


def _totals(rows: sp.csr_matrix) -> np.ndarray:
    return np.asarray(rows.sum(axis=1)).ravel()


def _are_whole(values: np.ndarray) -> bool:
    whole = np.round(values)
    return bool(np.all((whole > 0) & (np.abs(values - whole) <= 1e-5 * whole)))


def _are_equal(values: np.ndarray) -> bool:
    return values.size > 1 and float(np.ptp(values)) < 1e-3 * float(values.mean())


def _summary(values: np.ndarray) -> tuple[int, int, float, float]:
    """Values above zero, fractional values (NaN among them), smallest or 0, largest."""
    if not values.size:
        return 0, 0, 0.0, 0.0
    if values.dtype.kind == "f":
        values = np.atleast_1d(_as_floats(values))
        n_positive, n_fractional = _count(values)
        smallest = 0.0 if n_positive == values.size else float(values.min())
        return n_positive, n_fractional, smallest, float(values.max())
    return int(np.count_nonzero(values)), 0, float(values.min()), float(values.max())


@jit()
def _count(values):
    n_positive, n_fractional = 0, 0
    for i in range(values.size):
        n_positive += values[i] > 0
        n_fractional += np.floor(values[i]) != values[i]
    return n_positive, n_fractional


@jit()
def _is_canonical(indices, indptr):
    """Whether the indices rise within each row (counted without branches, which is 2 x faster)."""
    n_steps_back = 0
    for i in range(1, indices.size):
        n_steps_back += indices[i] <= indices[i - 1]
    for row in range(1, indptr.size - 1):
        i = indptr[row]
        if indptr[row - 1] < i < indices.size:
            n_steps_back -= indices[i] <= indices[i - 1]
    return n_steps_back == 0
