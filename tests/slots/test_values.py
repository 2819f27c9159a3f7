"""What is refused as no counts, with which words, and where counts are found."""

import logging
import warnings

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from scmix._counts import TOLERATED_FRACTION, as_array, as_counts
from scmix._errors import InputError, MissingKeyError
from scmix._slots import iter_counts

N_CELLS = 23  # of `counts`


# -- values that are no counts --------------------------------------------------------------------

BAD_VALUES = {
    "NaN": (np.nan, r"Found 1 NaN in \.X, the first at cell 'c6', gene 'g11'"),
    "inf": (np.inf, r"Found 1 infinite values in \.X, the first at cell 'c6', gene 'g11'"),
    "-inf": (-np.inf, r"Found 1 infinite values in \.X, the first at cell 'c6', gene 'g11'"),
    "negative": (-2, r"Found 1 negative values .* looks scaled \(lowest -2\)"),
    "huge": (2.0**32, r"counts above 2\*\*31 do not occur"),
}


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, np.asarray])
@pytest.mark.parametrize("fault", BAD_VALUES)
def test_bad_values_are_refused_before_the_first_block(counts, make, fault, as_adata):
    counts[6, 11], message = BAD_VALUES[fault]
    with pytest.raises(InputError, match=message):
        iter_counts(as_adata(make(counts)), block_cells=2)


def test_negative_integers_are_refused(counts, as_adata):
    counts[6, 11] = -2
    with pytest.raises(InputError, match="negative"):
        iter_counts(as_adata(counts.astype(np.int32)))


def _normalised(counts: np.ndarray) -> np.ndarray:
    return counts / np.maximum(counts.sum(1, keepdims=True), 1) * 1e4


def test_log_transformed_values_name_the_layer_to_use(counts, as_adata):
    adata = as_adata(np.log1p(_normalised(counts)))
    adata.layers["scaled"] = counts - 1
    adata.layers["spliced"] = counts
    adata.layers["counts"] = counts
    with pytest.raises(
        InputError, match=r"^Found log-transformed values in \.X \(max 6\.\d+, "
    ) as e:
        iter_counts(adata)
    assert "100 % fractional)" in str(e.value)
    assert str(e.value).endswith('Pass layer="counts".')
    del adata.layers["counts"]
    with pytest.raises(InputError, match=r'Pass layer="spliced"\.$'):
        iter_counts(adata)


def test_log_transformed_values_name_raw_or_x(counts, as_adata):
    logged = np.log1p(_normalised(counts))
    adata = as_adata(counts)
    adata.raw = adata
    adata.X = logged
    with pytest.raises(InputError, match=r'adata\.raw holds counts: pass layer="raw"'):
        iter_counts(adata)
    adata = as_adata(counts)
    adata.layers["log"] = logged
    with pytest.raises(InputError, match=r"Pass layer=None: \.X holds counts"):
        iter_counts(adata, layer="log")
    with pytest.raises(InputError, match="No layer holds counts"):
        iter_counts(as_adata(logged))


def test_ranks_are_not_taken_for_counts(human):
    from scmix.pp import rank_encode

    rank_encode(human)
    human.X = np.log1p(human.X.toarray() / 3)
    with pytest.raises(InputError, match="No layer holds counts"):
        iter_counts(human)


def test_log_of_raw_counts_is_refused_even_when_fractions_are_allowed(counts, as_adata):
    for logged in (np.log1p(counts), np.log1p(_normalised(counts))):
        with pytest.raises(InputError, match="log-transformed"):
            iter_counts(as_adata(logged), allow_noninteger=True)


def test_library_size_scaling_is_found_although_row_sums_are_whole(counts, as_adata, read_counts):
    scaled = _normalised(counts)
    assert np.allclose(scaled.sum(1), np.round(scaled.sum(1)), atol=1e-2)
    with pytest.raises(InputError, match=r"scaled to library size .*allow_noninteger=True"):
        iter_counts(as_adata(scaled))
    assert np.array_equal(read_counts(as_adata(scaled), allow_noninteger=True), scaled)


def test_fractions_above_the_tolerance_are_refused_or_let_in(counts, as_adata, read_counts):
    counts[counts > 0] -= np.random.default_rng(0).random(int((counts > 0).sum())) / 4
    counts[0, 0] = 99.5  # ambient-corrected counts, not logs
    adata = as_adata(sp.csr_matrix(counts))
    with pytest.raises(InputError, match=r"fractional values in \.X \(1e\+02 %\)|allow_noninteger"):
        iter_counts(adata)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_counts(adata, allow_noninteger=True), counts)


@pytest.mark.parametrize("backed", [False, True])
def test_a_few_fractions_are_warned_about_and_kept(backed, tmp_path, read_counts):
    rng = np.random.default_rng(0)
    counts = rng.poisson(5, (N_CELLS, 1000)).astype(np.float32) + 1
    counts[0, 3] = 2.5
    assert 1 / counts.size < TOLERATED_FRACTION
    adata = ad.AnnData(sp.csr_matrix(counts))
    if backed:
        adata.write_h5ad(tmp_path / "x.h5ad")
        adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.warns(UserWarning, match=r"Found 1 fractional values among 23,000 in \.X"):
        assert np.array_equal(read_counts(adata, block_cells=2), counts)
    counts[0, :9] = 2.5
    with pytest.raises(InputError, match=r"fractional values in \.X"):
        list(iter_counts(ad.AnnData(counts), block_cells=2))


def test_one_fraction_among_few_is_refused(counts, as_adata):
    counts[6, 11] = 2.5
    with pytest.raises(InputError, match="fractional"):
        iter_counts(as_adata(counts))


@pytest.mark.parametrize(("dtype", "value"), [("float32", 2**24 + 2), ("float16", 4096)])
def test_counts_that_the_type_rounds_are_warned_about(counts, dtype, value, as_adata, read_counts):
    counts = counts.astype(dtype)
    counts[6, 11] = value
    with pytest.warns(UserWarning, match=f"which {dtype} rounds"):
        assert read_counts(as_adata(counts))[6, 11] == value


def test_large_integers_are_exact(counts, as_adata, read_counts):
    counts = counts.astype(np.int64)
    counts[6, 11] = 2**24 + 1
    assert read_counts(as_adata(sp.csr_matrix(counts)))[6, 11] == 2**24 + 1


@pytest.mark.parametrize("make", [sp.csr_matrix, np.asarray])
def test_no_count_at_all_is_refused(counts, make, as_adata):
    with pytest.raises(InputError, match=r"All values in \.X are zero"):
        iter_counts(as_adata(make(counts * 0)))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_no_cells_or_no_genes_are_refused(shape):
    with pytest.raises(InputError, match=f"Found {shape[0]} cells and {shape[1]} genes"):
        iter_counts(ad.AnnData(np.zeros(shape, np.float32)))


def test_one_cell_is_read(counts, as_adata, read_counts):
    assert np.array_equal(read_counts(as_adata(counts)[3]), counts[3:4])


@given(st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=6), st.booleans())
def test_order_of_entries_is_seen_as_scipy_sees_it(rows, in_order):
    rows = [sorted(set(row)) for row in rows] if in_order else rows
    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.array([column for row in rows for column in row], np.int32)
    matrix = sp.csr_matrix((np.ones(indices.size, np.float32), indices, indptr), (len(rows), 5))
    expected = sp.csr_matrix(matrix).has_canonical_format
    seen = as_array(matrix)
    assert seen.has_canonical_format == expected
    np.testing.assert_array_equal(as_counts(seen).toarray(), matrix.toarray())


@pytest.mark.parametrize(("entry", "index"), [(4, -1), (4, 3), (0, -1), (3, -2), (2, 3), (5, 9)])
def test_damaged_sparse_matrix_is_refused(entry, index):
    matrix = sp.csr_matrix(np.ones((2, 3), np.float32))
    matrix.indices[entry] = index
    with pytest.raises(InputError, match=r"damaged: it has indices outside its shape \(2, 3\)"):
        iter_counts(ad.AnnData(matrix))


@pytest.mark.parametrize("dtype", [complex, "U3", object])
def test_what_is_no_number_is_refused(dtype):
    with pytest.raises(InputError, match="expected numbers"):
        as_array(np.zeros((2, 2)).astype(dtype))
    with pytest.raises(InputError, match="type list"):
        as_array([[1, 2]])


# -- where counts are -----------------------------------------------------------------------------


def test_misspelt_layer_names_the_close_ones(counts, as_adata):
    adata = as_adata(counts)
    adata.layers["counts"] = counts
    with pytest.raises(MissingKeyError, match=r"no layer 'count'; .* Did you mean 'counts'\?"):
        iter_counts(adata, layer="count")
    with pytest.raises(KeyError):
        iter_counts(adata, layer="X")
    adata.raw = adata
    with pytest.raises(MissingKeyError, match=r"pass adata\.raw\.to_adata"):
        iter_counts(adata, layer="raw")


def test_without_x_the_counts_layer_is_read(counts, caplog, as_adata, read_counts):
    adata = as_adata(counts)
    adata.layers["counts"] = counts
    adata.X = None
    with caplog.at_level(logging.INFO, "scmix"):
        assert np.array_equal(read_counts(adata), counts)
    assert 'reading layers["counts"]' in caplog.text
    adata.layers["umi"] = adata.layers.pop("counts")
    with pytest.raises(InputError, match=r"\.X is None\. Pass layer=, one of \['umi'\]"):
        iter_counts(adata)
    del adata.layers["umi"]
    with pytest.raises(InputError, match=r"\.X is None\. No layer holds counts"):
        iter_counts(adata)


def test_a_file_without_x_is_read_from_its_counts_layer(counts, tmp_path, as_adata, read_counts):
    adata = as_adata(counts)
    adata.layers["counts"] = counts
    adata.X = None
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    assert np.array_equal(read_counts(backed), counts)
    backed.file.close()
