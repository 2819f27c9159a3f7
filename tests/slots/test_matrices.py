"""Any matrix that an AnnData can hold gives the same blocks of counts."""

import warnings

import anndata as ad
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scmix import _row_blocks
from scmix._counts import as_array, as_counts
from scmix._errors import InputError
from scmix._slots import iter_counts

N_CELLS, N_GENES = 23, 60  # of `counts`


def _messy(dense: np.ndarray) -> sp.csr_matrix:
    """Unsorted, with duplicate entries and explicit zeros."""
    coo = sp.coo_matrix(dense)
    first = np.minimum(coo.data, 1)
    order = np.random.default_rng(1).permutation(2 * coo.nnz)
    row = np.r_[coo.row, coo.row][order]
    by_row = np.argsort(row, kind="stable")
    column = np.r_[coo.col, coo.col][order][by_row]
    data = np.r_[first, coo.data - first][order][by_row]
    indptr = np.r_[0, np.cumsum(np.bincount(row, minlength=len(dense)))]
    return sp.csr_matrix((data, column, indptr), shape=dense.shape)


def _read_only(dense: np.ndarray) -> np.ndarray:
    dense = dense.copy()
    dense.flags.writeable = False
    return dense


KINDS = {
    "csr": sp.csr_matrix,
    "csr_array": sp.csr_array,
    "csc": sp.csc_matrix,
    "csc_array": sp.csc_array,
    "messy": _messy,
    "dense": np.asarray,
    "fortran": np.asfortranarray,
    "read_only": _read_only,
    "masked": lambda dense: np.ma.masked_array(dense, mask=dense == 0),
    "float16": lambda dense: dense.astype(np.float16),
    "float64": lambda dense: sp.csr_matrix(dense.astype(np.float64)),
    "int64": lambda dense: sp.csr_matrix(dense.astype(np.int64)),
    "uint8_csc": lambda dense: sp.csc_matrix(dense.astype(np.uint8)),
    "uint16": lambda dense: dense.astype(np.uint16),
    "big_endian": lambda dense: dense.astype(">f4"),
    "int64_indices": lambda dense: sp.csr_matrix(dense).astype(np.float32),
    "dask": lambda dense: da.from_array(dense, chunks=(5, 7)),
    "dask_sparse": lambda dense: da.from_array(dense, chunks=(5, -1)).map_blocks(sp.csr_matrix),
}


@pytest.mark.parametrize("block_cells", [None, 1, 7, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_any_matrix_gives_the_same_counts(counts, kind, block_cells, as_adata, read_counts):
    adata = as_adata(KINDS[kind](counts))
    assert np.array_equal(read_counts(adata, block_cells=block_cells), counts)


@pytest.mark.parametrize("kind", ["np.matrix", "DataFrame", "coo", "lil", "bool"])
def test_matrices_that_anndata_converts_or_only_layers_hold(counts, kind, as_adata, read_counts):
    make = {
        "np.matrix": np.matrix,
        "DataFrame": lambda dense: pd.DataFrame(dense, columns=[f"g{i}" for i in range(N_GENES)]),
        "coo": sp.coo_matrix,
        "lil": sp.lil_matrix,
        "bool": lambda dense: dense > 0,
    }[kind]
    adata = as_adata(sp.csr_matrix(counts))
    expected = counts > 0 if kind == "bool" else counts
    # Straight to the reader: what a layer may hold depends on the version of anndata.
    array = as_counts(as_array(make(counts)))
    assert np.array_equal(array.toarray(), expected)
    if kind in ("bool", "np.matrix"):
        adata.layers["counts"] = make(counts)
        assert np.array_equal(read_counts(adata, layer="counts"), expected)


def test_small_integers_do_not_overflow_when_duplicates_are_summed():
    coo = sp.coo_matrix((np.array([200, 100], np.uint8), ([0, 0], [0, 0])), shape=(1, 1))
    assert as_counts(as_array(coo)).toarray() == [[300]]


def test_views_are_read_and_their_parent_is_untouched(counts, as_adata, read_counts):
    parent = as_adata(sp.csr_matrix(counts))
    rows, columns = [3, 1, 9], [5, 2, 7, 20]
    view = parent[rows, columns]
    assert np.array_equal(read_counts(view), counts[np.ix_(rows, columns)])
    assert np.array_equal(parent.X.toarray(), counts)
    assert view.is_view


def test_blocks_are_bounded_by_their_counts(counts, monkeypatch, as_adata):
    monkeypatch.setattr(_row_blocks, "BLOCK_ENTRIES", 120)
    for matrix in (sp.csr_matrix(counts), counts):
        blocks = list(iter_counts(as_adata(matrix)))
        assert len(blocks) > 5
        assert all(block.nnz <= 120 for _, block in blocks)
    monkeypatch.setattr(_row_blocks, "BLOCK_ENTRIES", 1)
    assert len(list(iter_counts(as_adata(sp.csr_matrix(counts))))) >= N_CELLS - 1


def test_reading_leaves_the_matrix_as_it_was(counts, as_adata):
    messy = _messy(counts)
    adata = as_adata(messy)
    before = [array.copy() for array in (adata.X.data, adata.X.indices, adata.X.indptr)]
    list(iter_counts(adata))
    after = [adata.X.data, adata.X.indices, adata.X.indptr]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert not adata.X.has_sorted_indices


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_cells", [None, 4])
@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_backed_is_as_in_memory(counts, make, block_cells, tmp_path, as_adata, read_counts):
    as_adata(make(counts)).write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert np.array_equal(read_counts(adata, block_cells=block_cells), counts)
        for rows in ([2, 3, 8, 21], [8, 2, 3], slice(3, 20)):
            view = adata[rows, 4:30]
            assert np.array_equal(read_counts(view, block_cells=block_cells), counts[rows, 4:30])
    slow = [str(w.message) for w in caught if "CSC" in str(w.message)]
    assert bool(slow) == (make is sp.csc_matrix)
    adata.file.close()


def test_columns_of_a_file_are_read_a_few_at_a_time(
    counts, monkeypatch, tmp_path, as_adata, read_counts
):
    monkeypatch.setattr(_row_blocks, "BLOCK_ENTRIES", 100)
    as_adata(sp.csc_matrix(counts)).write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.warns(UserWarning, match="stored by column"):
        assert np.array_equal(read_counts(adata), counts)
    adata.file.close()


def test_a_file_is_read_one_block_ahead(counts, monkeypatch, tmp_path, as_adata):
    as_adata(sp.csr_matrix(counts)).write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    asked = []
    monkeypatch.setattr(_row_blocks, "as_array", lambda rows: asked.append(rows.nnz) or rows)
    blocks = iter_counts(adata, block_cells=5)
    assert not asked
    next(blocks)
    blocks.close()  # waits for the read that is under way
    assert asked == [np.count_nonzero(counts[:5]), np.count_nonzero(counts[5:10])]
    adata.file.close()


def test_a_sparse_matrix_on_disk_is_read_as_a_layer(counts, tmp_path, as_adata, read_counts):
    as_adata(sp.csr_matrix(counts)).write_h5ad(tmp_path / "x.h5ad")
    with h5py.File(tmp_path / "x.h5ad") as file:
        adata = as_adata(sp.csr_matrix(counts))
        adata.layers["file"] = ad.io.sparse_dataset(file["X"])
        assert np.array_equal(read_counts(adata, layer="file", block_cells=5), counts)


@pytest.mark.parametrize(("at", "value"), [(0, 1), (3, 10_000), (-1, 10_000), (-1, 3)])
def test_a_damaged_index_of_a_file_is_refused(counts, at, value, tmp_path, as_adata):
    as_adata(sp.csr_matrix(counts)).write_h5ad(tmp_path / "x.h5ad")
    with h5py.File(tmp_path / "x.h5ad", "r+") as file:
        file["X/indptr"][at] = value
    adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.raises(InputError, match="its index does not fit 23 cells"):
        iter_counts(adata)
    adata.file.close()


def test_faults_of_a_file_are_found(counts, tmp_path, as_adata):
    counts[20, 3] = -1
    as_adata(sp.csr_matrix(counts)).write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.raises(InputError, match=r"1 negative values in \.X, .* cell 'c20', gene 'g3'"):
        list(iter_counts(adata, block_cells=4))
    adata.file.close()
