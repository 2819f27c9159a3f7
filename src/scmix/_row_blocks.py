"""Any matrix an AnnData can hold, read a block of cells at a time."""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import anndata as ad
import numpy as np
import scipy.sparse as sp

from scmix._counts import as_array, csr
from scmix._errors import InputError

BLOCK_ENTRIES = 1 << 20  # of a block; about 20 MB while it is being ranked
_CSC_BLOCKS = 4  # as many at once of a file by columns, which is read again for each

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class RowBlocks:
    """Blocks of consecutive rows.

    Parameters
    ----------
    bounds
        First row, and the row after the last, of each block.
    n_stored
        Entries of a sparse matrix; rows times columns of any other.
    in_memory
        Whether all of it is in memory already.
    read
        Returns the rows from one to before another, as CSR or a plain array.
    """

    bounds: list[tuple[int, int]]
    n_stored: int
    in_memory: bool
    read: Callable[[int, int], sp.csr_matrix | np.ndarray]


def ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], n_threads: int
) -> Iterator[_Result]:
    """What a function makes of each item, in order; threads work ahead of the caller.

    Items are taken in the caller's thread, no more of them than there are threads to work on them
    and one.
    """
    coming: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(n_threads, "scmix-ahead") as pool:
        for item in items:
            coming.append(pool.submit(function, item))
            del item
            if len(coming) > n_threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def row_blocks(adata: ad.AnnData, layer: str | None, block_cells: int | None) -> RowBlocks:
    """Divide `.X` or a layer into blocks."""
    if adata.is_view:
        return _view_blocks(adata, layer, block_cells)
    return matrix_blocks(_matrix(adata, layer), block_cells)


def matrix_blocks(matrix: Any, block_cells: int | None) -> RowBlocks:
    """Divide a matrix of any kind into blocks."""
    if isinstance(matrix, ad.abc.CSRDataset):
        return _csr_file(matrix, block_cells)
    if isinstance(matrix, ad.abc.CSCDataset):
        return _csc_file(matrix, block_cells)
    if is_dask(matrix):
        return _dask(matrix, block_cells)
    if _is_dense_file(matrix):
        size = int(np.prod(matrix.shape))
        bounds = _uniform(matrix.shape, size, block_cells)
        return RowBlocks(bounds, size, False, lambda a, b: as_array(matrix[a:b]))
    array = as_array(matrix)
    if isinstance(array, np.ndarray):
        bounds = _uniform(array.shape, array.size, block_cells)
        return RowBlocks(bounds, array.size, True, lambda a, b: array[a:b])
    bounds = _uniform(array.shape, 0, block_cells) if block_cells else _even(array.indptr)
    return RowBlocks(bounds, array.nnz, True, lambda a, b: _csr_rows(array, a, b))


def is_dask(matrix: Any) -> bool:
    """Whether a matrix is a dask array, or a view of one."""
    return any(kind.__module__.partition(".")[0] == "dask" for kind in type(matrix).__mro__)


def _is_dense_file(matrix: Any) -> bool:
    return type(matrix).__module__.partition(".")[0] in ("h5py", "zarr")


def _matrix(adata: ad.AnnData, layer: str | None) -> Any:
    return adata.X if layer is None else adata.layers[layer]


def _view_blocks(adata: ad.AnnData, layer: str | None, block_cells: int | None) -> RowBlocks:
    """Rows of what a view shows. Of a file, its `.X` would read all of them at once."""
    parent = adata._adata_ref
    matrix = _matrix(parent, layer)
    rows = np.arange(parent.n_obs)[adata._oidx]
    by_rows = not sp.issparse(matrix) or matrix.format == "csr"
    consecutive = rows.size > 0 and bool((np.diff(rows) == 1).all())
    if by_rows and consecutive and _shows_all(adata._vidx, parent.n_vars):
        return _shifted(matrix_blocks(matrix, block_cells), int(rows[0]), rows.size, block_cells)
    if isinstance(matrix, ad.abc.CSRDataset | ad.abc.CSCDataset) or _is_dense_file(matrix):
        return _file_rows(parent, layer, rows, adata._vidx, block_cells)
    return matrix_blocks(_matrix(adata, layer), block_cells)


def _shows_all(columns: Any, n_vars: int) -> bool:
    shown = np.arange(n_vars)[columns]
    return shown.size == n_vars and bool((np.diff(shown) == 1).all())


def _shifted(whole: RowBlocks, first: int, n_rows: int, block_cells: int | None) -> RowBlocks:
    """Consecutive rows of a matrix as if they were all of it."""
    bounds = [
        (max(a, first) - first, min(b, first + n_rows) - first)
        for a, b in whole.bounds
        if a < first + n_rows and b > first
    ]
    if block_cells:
        bounds = _uniform((n_rows,), 0, block_cells)
    return RowBlocks(
        bounds, whole.n_stored, whole.in_memory, lambda a, b: whole.read(first + a, first + b)
    )


def _file_rows(
    parent: ad.AnnData, layer: str | None, rows: np.ndarray, columns: Any, block_cells: int | None
) -> RowBlocks:
    """Some rows and columns of a file, in any order, through anndata's own indexing."""
    matrix = _matrix(parent, layer)
    size = rows.size * np.arange(parent.n_vars)[columns].size
    bounds = _uniform((rows.size,), size, block_cells)
    if isinstance(matrix, ad.abc.CSRDataset) and not block_cells:
        lengths = np.diff(matrix.group["indptr"][:])[rows]
        bounds = _even(np.concatenate([[0], np.cumsum(lengths)]))
    return RowBlocks(
        bounds, size, False, lambda a, b: as_array(_matrix(parent[rows[a:b], columns], layer))
    )


def _csr_file(matrix: Any, block_cells: int | None) -> RowBlocks:
    """Rows straight from the arrays of the file: 2 x faster than through anndata's matrix."""
    n_genes, indptr = matrix.shape[1], matrix.group["indptr"][:]
    data, indices = matrix.group["data"], matrix.group["indices"]
    _check_file(indptr, matrix.shape[0], min(data.shape[0], indices.shape[0]))

    def read(start: int, stop: int) -> sp.csr_matrix:
        entries = slice(int(indptr[start]), int(indptr[stop]))
        arrays = data[entries], indices[entries], indptr[start : stop + 1] - indptr[start]
        return as_array(sp.csr_matrix(arrays, shape=(stop - start, n_genes)))

    bounds = _uniform(matrix.shape, 0, block_cells) if block_cells else _even(indptr)
    return RowBlocks(bounds, int(indptr[-1]), False, read)


def _check_file(indptr: np.ndarray, n_cells: int, n_stored: int) -> None:
    rises = indptr[0] == 0 and (indptr[1:] >= indptr[:-1]).all() and indptr[-1] <= n_stored
    if indptr.size != n_cells + 1 or not rises:
        raise InputError(
            f"The sparse matrix in the file is damaged: its index does not fit {n_cells:,} cells "
            f"and {n_stored:,} entries. Write it again from its source."
        )


def _csc_file(matrix: Any, block_cells: int | None) -> RowBlocks:
    warnings.warn(
        "The counts are stored by column (CSC): reading them cell by cell is slow. Write them as "
        "CSR to read faster.",
        stacklevel=2,
    )
    indptr = matrix.group["indptr"][:]
    columns = _even(indptr)

    def read(start: int, stop: int) -> sp.csr_matrix:
        # A few columns at a time, so that memory does not grow with the number of cells.
        parts = [sp.csr_matrix(matrix[:, a:b])[start:stop] for a, b in columns]
        return sp.csr_matrix(sp.hstack(parts, format="csr"))

    n_stored = int(indptr[-1])
    bounds = _uniform(matrix.shape, n_stored // _CSC_BLOCKS, block_cells)
    return RowBlocks(bounds, n_stored, False, read)


def _dask(matrix: Any, block_cells: int | None) -> RowBlocks:
    if np.isnan(matrix.shape[0]):
        raise InputError("Found a dask array of unknown length. Call compute_chunk_sizes() on it.")
    bounds = list(pairwise(np.cumsum([0, *matrix.chunks[0]]).tolist()))
    if block_cells:
        bounds = _uniform(matrix.shape, 0, block_cells)
    size = int(np.prod(matrix.shape))
    return RowBlocks(bounds, size, False, lambda a, b: as_array(matrix[a:b].compute()))


def _uniform(
    shape: tuple[int, ...], n_stored: int, block_cells: int | None
) -> list[tuple[int, int]]:
    n = int(shape[0])
    step = block_cells or max(1, int(BLOCK_ENTRIES * n / max(n_stored, 1)))
    return [(start, min(start + step, n)) for start in range(0, n, step)]


def _even(indptr: np.ndarray) -> list[tuple[int, int]]:
    """Blocks of at most BLOCK_ENTRIES entries, and at least one row."""
    bounds, start, n = [], 0, indptr.size - 1
    while start < n:
        limit = indptr[start] + BLOCK_ENTRIES
        stop = max(start + 1, int(np.searchsorted(indptr, limit, side="right")) - 1)
        bounds.append((start, stop))
        start = stop
    return bounds


def _csr_rows(matrix: sp.csr_matrix, start: int, stop: int) -> sp.csr_matrix:
    """Consecutive rows that share their values with the matrix."""
    indptr = matrix.indptr[start : stop + 1]
    entries = slice(indptr[0], indptr[-1])
    shape = (stop - start, matrix.shape[1])
    canonical = matrix.has_canonical_format
    return csr(matrix.data[entries], matrix.indices[entries], indptr - indptr[0], shape, canonical)
