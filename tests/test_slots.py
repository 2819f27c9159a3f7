"""The boundary to AnnData: what is read, what is refused with which words, what is written."""

import dataclasses
import logging
import warnings

import anndata as ad
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from scmix import _row_blocks, _slots
from scmix._counts import TOLERATED_FRACTION
from scmix._errors import InputError, MissingKeyError
from scmix._slots import iter_counts, iter_sequences, params, write
from scmix.genes import Vocabulary
from scmix.pp._match_adata import match_adata

N_CELLS, N_GENES = 23, 60


@pytest.fixture
def counts() -> np.ndarray:
    rng = np.random.default_rng(0)
    dense = rng.poisson(2, (N_CELLS, N_GENES)).astype(np.float32)
    dense[4] = 0
    return dense


def _adata(matrix, **options) -> ad.AnnData:
    adata = ad.AnnData(obs=pd.DataFrame(index=[f"c{i}" for i in range(N_CELLS)]), **options)
    adata = ad.AnnData(sp.csr_matrix((N_CELLS, N_GENES)), obs=adata.obs)
    adata.var_names = [f"g{i}" for i in range(N_GENES)]
    adata.X = matrix
    return adata


def _read(adata: ad.AnnData, **options) -> np.ndarray:
    blocks = list(iter_counts(adata, **options))
    starts = np.cumsum([0, *[block.shape[0] for _, block in blocks]])
    assert [start for start, _ in blocks] == starts[:-1].tolist()
    for _, block in blocks:
        assert block.has_canonical_format
        arrays = block.data, block.indices, block.indptr
        assert sp.csr_matrix(arrays, shape=block.shape).has_canonical_format
        assert block.dtype in (np.float32, np.float64)
        assert block.data.all()
    return sp.vstack([block for _, block in blocks]).toarray()


# -- kinds of matrices ----------------------------------------------------------------------------


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
def test_any_matrix_gives_the_same_counts(counts, kind, block_cells):
    adata = _adata(KINDS[kind](counts))
    assert np.array_equal(_read(adata, block_cells=block_cells), counts)


@pytest.mark.parametrize("kind", ["np.matrix", "DataFrame", "coo", "lil", "bool"])
def test_matrices_that_anndata_converts_or_only_layers_hold(counts, kind):
    make = {
        "np.matrix": np.matrix,
        "DataFrame": lambda dense: pd.DataFrame(dense, columns=[f"g{i}" for i in range(N_GENES)]),
        "coo": sp.coo_matrix,
        "lil": sp.lil_matrix,
        "bool": lambda dense: dense > 0,
    }[kind]
    adata = _adata(sp.csr_matrix(counts))
    expected = counts > 0 if kind == "bool" else counts
    # Straight to the reader: what a layer may hold depends on the version of anndata.
    array = _slots.as_counts(_row_blocks.as_array(make(counts)))
    assert np.array_equal(array.toarray(), expected)
    if kind in ("bool", "np.matrix"):
        adata.layers["counts"] = make(counts)
        assert np.array_equal(_read(adata, layer="counts"), expected)


def test_small_integers_do_not_overflow_when_duplicates_are_summed():
    coo = sp.coo_matrix((np.array([200, 100], np.uint8), ([0, 0], [0, 0])), shape=(1, 1))
    assert _slots.as_counts(_row_blocks.as_array(coo)).toarray() == [[300]]


def test_views_are_read_and_their_parent_is_untouched(counts):
    parent = _adata(sp.csr_matrix(counts))
    rows, columns = [3, 1, 9], [5, 2, 7, 20]
    view = parent[rows, columns]
    assert np.array_equal(_read(view), counts[np.ix_(rows, columns)])
    assert np.array_equal(parent.X.toarray(), counts)
    assert view.is_view


def test_blocks_are_bounded_by_their_counts(counts, monkeypatch):
    monkeypatch.setattr(_row_blocks, "BLOCK_ENTRIES", 120)
    for matrix in (sp.csr_matrix(counts), counts):
        blocks = list(iter_counts(_adata(matrix)))
        assert len(blocks) > 5
        assert all(block.nnz <= 120 for _, block in blocks)
    monkeypatch.setattr(_row_blocks, "BLOCK_ENTRIES", 1)
    assert len(list(iter_counts(_adata(sp.csr_matrix(counts))))) >= N_CELLS - 1


def test_reading_leaves_the_matrix_as_it_was(counts):
    messy = _messy(counts)
    adata = _adata(messy)
    before = [array.copy() for array in (adata.X.data, adata.X.indices, adata.X.indptr)]
    list(iter_counts(adata))
    after = [adata.X.data, adata.X.indices, adata.X.indptr]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert not adata.X.has_sorted_indices


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_cells", [None, 4])
@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_backed_is_as_in_memory(counts, make, block_cells, tmp_path):
    _adata(make(counts)).write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert np.array_equal(_read(adata, block_cells=block_cells), counts)
        for rows in ([2, 3, 8, 21], [8, 2, 3], slice(3, 20)):
            view = adata[rows, 4:30]
            assert np.array_equal(_read(view, block_cells=block_cells), counts[rows, 4:30])
    slow = [str(w.message) for w in caught if "CSC" in str(w.message)]
    assert bool(slow) == (make is sp.csc_matrix)
    adata.file.close()


def test_columns_of_a_file_are_read_a_few_at_a_time(counts, monkeypatch, tmp_path):
    monkeypatch.setattr(_row_blocks, "BLOCK_ENTRIES", 100)
    _adata(sp.csc_matrix(counts)).write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.warns(UserWarning, match="stored by column"):
        assert np.array_equal(_read(adata), counts)
    adata.file.close()


def test_a_file_is_read_one_block_ahead(counts, monkeypatch, tmp_path):
    _adata(sp.csr_matrix(counts)).write_h5ad(tmp_path / "x.h5ad")
    with h5py.File(tmp_path / "x.h5ad") as file:
        matrix = ad.io.sparse_dataset(file["X"])
        asked = []
        original = type(matrix).__getitem__
        monkeypatch.setattr(
            type(matrix), "__getitem__", lambda self, i: asked.append(i) or original(self, i)
        )
        adata = _adata(sp.csr_matrix(counts))
        adata.layers["file"] = matrix
        blocks = iter_counts(adata, layer="file", block_cells=5)
        assert not asked
        next(blocks)
        blocks.close()  # waits for the read that is under way
        assert asked == [slice(0, 5), slice(5, 10)]


def test_faults_of_a_file_are_found(counts, tmp_path):
    counts[20, 3] = -1
    _adata(sp.csr_matrix(counts)).write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.raises(InputError, match=r"1 negative values in \.X, .* cell 'c20', gene 'g3'"):
        list(iter_counts(adata, block_cells=4))
    adata.file.close()


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
def test_bad_values_are_refused_before_the_first_block(counts, make, fault):
    counts[6, 11], message = BAD_VALUES[fault]
    with pytest.raises(InputError, match=message):
        iter_counts(_adata(make(counts)), block_cells=2)


def test_negative_integers_are_refused(counts):
    counts[6, 11] = -2
    with pytest.raises(InputError, match="negative"):
        iter_counts(_adata(counts.astype(np.int32)))


def _normalised(counts: np.ndarray) -> np.ndarray:
    return counts / np.maximum(counts.sum(1, keepdims=True), 1) * 1e4


def test_log_transformed_values_name_the_layer_to_use(counts):
    adata = _adata(np.log1p(_normalised(counts)))
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


def test_log_transformed_values_name_raw_or_x(counts):
    logged = np.log1p(_normalised(counts))
    adata = _adata(counts)
    adata.raw = adata
    adata.X = logged
    with pytest.raises(InputError, match=r"adata\.raw holds counts: pass adata\.raw\.to_adata"):
        iter_counts(adata)
    adata = _adata(counts)
    adata.layers["log"] = logged
    with pytest.raises(InputError, match=r"Pass layer=None: \.X holds counts"):
        iter_counts(adata, layer="log")
    with pytest.raises(InputError, match="No layer holds counts"):
        iter_counts(_adata(logged))


def test_ranks_are_not_taken_for_counts(human):
    from scmix.pp import rank_encode

    rank_encode(human)
    human.X = np.log1p(human.X.toarray() / 3)
    with pytest.raises(InputError, match="No layer holds counts"):
        iter_counts(human)


def test_log_of_raw_counts_is_refused_even_when_fractions_are_allowed(counts):
    for logged in (np.log1p(counts), np.log1p(_normalised(counts))):
        with pytest.raises(InputError, match="log-transformed"):
            iter_counts(_adata(logged), allow_noninteger=True)


def test_library_size_scaling_is_found_although_row_sums_are_whole(counts):
    scaled = _normalised(counts)
    assert np.allclose(scaled.sum(1), np.round(scaled.sum(1)), atol=1e-2)
    with pytest.raises(InputError, match=r"scaled to library size .*allow_noninteger=True"):
        iter_counts(_adata(scaled))
    assert np.array_equal(_read(_adata(scaled), allow_noninteger=True), scaled)


def test_fractions_above_the_tolerance_are_refused_or_let_in(counts):
    counts[counts > 0] -= np.random.default_rng(0).random(int((counts > 0).sum())) / 4
    counts[0, 0] = 99.5  # ambient-corrected counts, not logs
    adata = _adata(sp.csr_matrix(counts))
    with pytest.raises(InputError, match=r"fractional values in \.X \(1e\+02 %\)|allow_noninteger"):
        iter_counts(adata)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(_read(adata, allow_noninteger=True), counts)


@pytest.mark.parametrize("backed", [False, True])
def test_a_few_fractions_are_warned_about_and_kept(backed, tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.poisson(5, (N_CELLS, 1000)).astype(np.float32) + 1
    counts[0, 3] = 2.5
    assert 1 / counts.size < TOLERATED_FRACTION
    adata = ad.AnnData(sp.csr_matrix(counts))
    if backed:
        adata.write_h5ad(tmp_path / "x.h5ad")
        adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    with pytest.warns(UserWarning, match=r"Found 1 fractional values among 23,000 in \.X"):
        assert np.array_equal(_read(adata, block_cells=2), counts)
    counts[0, :9] = 2.5
    with pytest.raises(InputError, match=r"fractional values in \.X"):
        list(iter_counts(ad.AnnData(counts), block_cells=2))


def test_one_fraction_among_few_is_refused(counts):
    counts[6, 11] = 2.5
    with pytest.raises(InputError, match="fractional"):
        iter_counts(_adata(counts))


@pytest.mark.parametrize(("dtype", "value"), [("float32", 2**24 + 2), ("float16", 4096)])
def test_counts_that_the_type_rounds_are_warned_about(counts, dtype, value):
    counts = counts.astype(dtype)
    counts[6, 11] = value
    with pytest.warns(UserWarning, match=f"which {dtype} rounds"):
        assert _read(_adata(counts))[6, 11] == value


def test_large_integers_are_exact(counts):
    counts = counts.astype(np.int64)
    counts[6, 11] = 2**24 + 1
    assert _read(_adata(sp.csr_matrix(counts)))[6, 11] == 2**24 + 1


@pytest.mark.parametrize("make", [sp.csr_matrix, np.asarray])
def test_no_count_at_all_is_refused(counts, make):
    with pytest.raises(InputError, match=r"All values in \.X are zero"):
        iter_counts(_adata(make(counts * 0)))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_no_cells_or_no_genes_are_refused(shape):
    with pytest.raises(InputError, match=f"Found {shape[0]} cells and {shape[1]} genes"):
        iter_counts(ad.AnnData(np.zeros(shape, np.float32)))


def test_one_cell_is_read(counts):
    assert np.array_equal(_read(_adata(counts)[3]), counts[3:4])


@given(st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=6), st.booleans())
def test_order_of_entries_is_seen_as_scipy_sees_it(rows, in_order):
    rows = [sorted(set(row)) for row in rows] if in_order else rows
    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.array([column for row in rows for column in row], np.int32)
    matrix = sp.csr_matrix((np.ones(indices.size, np.float32), indices, indptr), (len(rows), 5))
    expected = sp.csr_matrix(matrix).has_canonical_format
    seen = _row_blocks.as_array(matrix)
    assert seen.has_canonical_format == expected
    np.testing.assert_array_equal(_slots.as_counts(seen).toarray(), matrix.toarray())


@pytest.mark.parametrize(("entry", "index"), [(4, -1), (4, 3), (0, -1), (3, -2), (2, 3), (5, 9)])
def test_damaged_sparse_matrix_is_refused(entry, index):
    matrix = sp.csr_matrix(np.ones((2, 3), np.float32))
    matrix.indices[entry] = index
    with pytest.raises(InputError, match=r"damaged: it has indices outside its shape \(2, 3\)"):
        iter_counts(ad.AnnData(matrix))


@pytest.mark.parametrize("dtype", [complex, "U3", object])
def test_what_is_no_number_is_refused(dtype):
    with pytest.raises(InputError, match="expected numbers"):
        _row_blocks.as_array(np.zeros((2, 2)).astype(dtype))
    with pytest.raises(InputError, match="type list"):
        _row_blocks.as_array([[1, 2]])


# -- where counts are -----------------------------------------------------------------------------


def test_misspelt_layer_names_the_close_ones(counts):
    adata = _adata(counts)
    adata.layers["counts"] = counts
    with pytest.raises(MissingKeyError, match=r"no layer 'count'; .* Did you mean 'counts'\?"):
        iter_counts(adata, layer="count")
    with pytest.raises(KeyError):
        iter_counts(adata, layer="X")
    adata.raw = adata
    with pytest.raises(MissingKeyError, match=r"pass adata\.raw\.to_adata"):
        iter_counts(adata, layer="raw")


def test_without_x_the_counts_layer_is_read(counts, caplog):
    adata = _adata(counts)
    adata.layers["counts"] = counts
    adata.X = None
    with caplog.at_level(logging.INFO, "scmix"):
        assert np.array_equal(_read(adata), counts)
    assert 'reading layers["counts"]' in caplog.text
    adata.layers["umi"] = adata.layers.pop("counts")
    with pytest.raises(InputError, match=r"\.X is None\. Pass layer=, one of \['umi'\]"):
        iter_counts(adata)
    del adata.layers["umi"]
    with pytest.raises(InputError, match=r"\.X is None\. No layer holds counts"):
        iter_counts(adata)


def test_a_file_without_x_is_read_from_its_counts_layer(counts, tmp_path):
    adata = _adata(counts)
    adata.layers["counts"] = counts
    adata.X = None
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    assert np.array_equal(_read(backed), counts)
    backed.file.close()


# -- sequences ------------------------------------------------------------------------------------


def _tokens(adata: ad.AnnData, **options) -> list[list[int]]:
    blocks = list(iter_sequences(adata, Vocabulary.bundled(), **options))
    assert sum(len(block.species) for block in blocks) == adata.n_obs
    return [cell.tolist() for block in blocks for cell in block.sequences]


def test_sequences_do_not_depend_on_blocks_types_or_order(human):
    expected = _tokens(human)
    assert len(expected) == human.n_obs
    assert _tokens(human, block_cells=1) == expected
    assert _tokens(human, block_cells=5) == expected
    order = np.random.default_rng(0).permutation(human.n_obs)
    assert _tokens(human[order]) == [expected[i] for i in order]
    assert _tokens(human[:, np.argsort(human.var_names[::-1])]) == expected
    assert _tokens(human[3]) == expected[3:4]
    for make in (sp.csc_matrix, lambda x: x.toarray(), lambda x: da.from_array(x.toarray(), 5)):
        other = human.copy()
        other.X = make(human.X)
        assert _tokens(other) == expected
    assert _tokens(human, n_genes=10) == [cell[:10] for cell in expected]


def test_two_species_in_one_object(both, human, mouse):
    assert _tokens(both, species_key="species") == _tokens(human) + _tokens(mouse)
    codes = np.concatenate(
        [b.species for b in iter_sequences(both, Vocabulary.bundled(), species_key="species")]
    )
    assert codes.tolist() == [0] * human.n_obs + [1] * mouse.n_obs


def test_genes_matched_before_are_not_matched_again(human, caplog):
    found, codes = match_adata(human, Vocabulary.bundled())
    expected = _tokens(human)
    caplog.clear()
    caplog.set_level(logging.INFO, logger="scmix")
    assert _tokens(human, match=(found, codes)) == expected
    assert caplog.messages == []
    other = dataclasses.replace(found, tokens=np.where(np.arange(200) == 3, -1, found.tokens))
    shorter = [[t for t in cell if t != found.tokens[3]] for cell in expected]
    assert _tokens(human, match=(other, codes)) == shorter


def test_backed_sequences_are_as_in_memory(human, tmp_path):
    human.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    assert _tokens(backed, block_cells=5) == _tokens(human)
    backed.file.close()


def test_stored_ranks_are_used_when_they_fit(human):
    from scmix.pp import rank_encode

    expected = _tokens(human)
    rank_encode(human, n_genes=50)
    human.X = human.X * 0  # only the layer can give sequences now
    top = [cell[:50] for cell in expected]
    assert _tokens(human, n_genes=50) == top
    assert _tokens(human, n_genes=20, block_cells=5) == [cell[:20] for cell in expected]
    subset = human[[4, 2]]
    assert _tokens(subset, n_genes=50) == [top[4], top[2]]
    for options in ({"n_genes": 51}, {"rank_layer": None}):
        with pytest.raises(InputError, match="zero"):
            _tokens(human, **options)
    human.layers["counts"] = human.X
    with pytest.raises(InputError, match="zero"):
        _tokens(human, n_genes=50, layer="counts")
    with pytest.raises(InputError, match="zero"):
        list(iter_sequences(human, Vocabulary.bundled("separate"), n_genes=50))


def test_stored_ranks_of_another_species_are_not_used(human, caplog):
    from scmix.pp import rank_encode

    rank_encode(human)
    human.uns["rank"]["params"]["species"] = ["mouse"]
    human.X = human.X * 0
    with caplog.at_level(logging.INFO, "scmix"), pytest.raises(InputError, match="zero"):
        _tokens(human)
    assert 'layers["rank"] was made with other settings' in caplog.text


def test_no_known_gene_counted_is_refused(human):
    human.X = human.X * 0
    human.X[:, 0] = 1
    names = human.var_names.to_series()
    names.iloc[0] = "nothing"
    human.var_names = names
    with pytest.raises(InputError, match="No cell has a count of a gene"):
        _tokens(human)


# -- writing --------------------------------------------------------------------------------------


def test_the_caller_may_allow_what_is_replaced(human):
    human.var["a"] = "old"
    updates = {("var", "a"): np.full(human.n_vars, "new", object), ("uns", "b"): {}}
    write(human, updates, replaceable=[("var", "a")])
    assert set(human.var["a"]) == {"new"}
    human.uns["b"] = {"mine": 1}
    with pytest.raises(InputError, match=r'uns\["b"\] exists already'):
        write(human, updates, replaceable=[("var", "a")])


def _snapshot(adata: ad.AnnData) -> dict:
    return {
        "obs": adata.obs.copy(),
        "var": adata.var.copy(),
        "keys": [sorted(map(str, getattr(adata, s))) for s in ("obsm", "varm", "layers", "uns")],
        "uns": {key: id(value) for key, value in adata.uns.items()},
    }


def _assert_same(adata: ad.AnnData, before: dict) -> None:
    after = _snapshot(adata)
    pd.testing.assert_frame_equal(before["obs"], after["obs"])
    pd.testing.assert_frame_equal(before["var"], after["var"])
    assert before["keys"] == after["keys"]
    assert before["uns"] == after["uns"]


def _updates(adata: ad.AnnData) -> dict:
    return {
        ("obsm", "X_a"): np.ones((adata.n_obs, 2), np.float32),
        ("obs", "a_score"): np.arange(adata.n_obs),
        ("layers", "a"): sp.csr_matrix(adata.shape),
        ("uns", "a"): {"params": params(seed=np.int64(3), layer=None, of=("x", "y"))},
    }


def test_everything_is_written(counts, caplog):
    adata = _adata(counts)
    with caplog.at_level(logging.INFO, "scmix"):
        write(adata, _updates(adata))
    assert adata.obsm["X_a"].sum() == 2 * N_CELLS
    assert adata.obs["a_score"].tolist() == list(range(N_CELLS))
    made = adata.uns["a"]["params"]
    assert made == {"scmix_version": made["scmix_version"], "seed": 3, "of": ["x", "y"]}
    assert 'added obsm["X_a"], obs["a_score"], layers["a"], uns["a"]' in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("rerun", [False, True])
def test_a_failed_write_leaves_all_as_it_was(counts, error, rerun, monkeypatch):
    adata = _adata(counts)
    if rerun:
        write(adata, _updates(adata))
    before = _snapshot(adata)

    class Fails(pd.Series):
        @property
        def array(self):
            raise error("half way")

    updates = _updates(adata)
    updates["obs", "a_last"] = Fails(np.zeros(N_CELLS))
    updates["obs", "a_score"] = -np.arange(N_CELLS)
    with pytest.raises(error, match="half way"):
        write(adata, updates, overwrite=True)
    _assert_same(adata, before)


def test_a_taken_key_is_refused_unless_overwritten(counts):
    adata = _adata(counts)
    adata.obsm["X_a"] = np.zeros((N_CELLS, 2))
    before = _snapshot(adata)
    with pytest.raises(InputError, match=r'obsm\["X_a"\] exists already. Pass overwrite=True'):
        write(adata, _updates(adata))
    _assert_same(adata, before)
    write(adata, _updates(adata), overwrite=True)
    assert adata.obsm["X_a"].all()


def test_a_call_can_be_repeated_but_takes_no_other_keys(counts):
    adata = _adata(counts)
    updates = _updates(adata)
    del updates["obsm", "X_a"]
    write(adata, updates)
    write(adata, updates)
    adata.obsm["X_a"] = np.zeros((N_CELLS, 2))  # not a companion of uns["a"]
    with pytest.raises(InputError, match="X_a"):
        write(adata, _updates(adata))
    adata.uns["a"] = {"mine": 1}
    with pytest.raises(InputError, match="a_score"):
        write(adata, {("obs", "a_score"): np.ones(N_CELLS)} | {("uns", "a"): {"params": params()}})


def test_values_are_placed_by_position(counts):
    adata = _adata(counts)
    adata.obs_names = ["same"] * N_CELLS
    write(adata, {("obs", "a"): pd.Series(range(N_CELLS), index=range(5, 5 + N_CELLS))})
    assert adata.obs["a"].tolist() == list(range(N_CELLS))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (("obs", "a"), np.zeros(3), r"shape \(3,\); expected \(23,\)"),
        (("varm", "a"), np.zeros((23, 2)), r"expected \(60,\)"),
        (("layers", "a"), np.zeros((23, 2)), r"expected \(23, 60\)"),
        (("obsp", "a"), np.zeros((23, 23)), "slot 'obsp'"),
        (("obsm", "a/b"), np.zeros((23, 2)), "without '/'"),
        (("uns", "a"), {"params": {"b/c": 1}}, "without '/'"),
        (("uns", "a"), {"params": {3: 1}}, "the key 3"),
        (("uns", "a"), {"params": object()}, "is a object"),
        (("uns", "a"), {"params": {"x": None}}, "NoneType"),
        (("uns", "a"), {"params": [1, "x"]}, "mixed or nested"),
        (("uns", "a"), {"params": np.array([{}, 1])}, "array of objects"),
    ],
)
def test_what_does_not_fit_or_cannot_be_saved_is_refused(counts, key, value, message):
    adata = _adata(counts)
    before = _snapshot(adata)
    with pytest.raises(InputError, match=message):
        write(adata, {("obs", "first"): np.zeros(N_CELLS), key: value})
    _assert_same(adata, before)


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_what_was_written_survives_a_file(counts, form, tmp_path):
    adata = _adata(counts)
    updates = _updates(adata)
    updates["uns", "a"]["table"] = pd.DataFrame({"x": [1.5], "y": ["z"]})
    write(adata, updates)
    path = tmp_path / f"x.{form}"
    getattr(adata, f"write_{form}")(path)
    back = getattr(ad, f"read_{form}")(path)
    assert _slots.is_ours(back.uns["a"])
    assert back.uns["a"]["params"]["seed"] == 3
    assert list(back.uns["a"]["params"]["of"]) == ["x", "y"]
    pd.testing.assert_frame_equal(
        back.uns["a"]["table"], adata.uns["a"]["table"], check_dtype=False, check_index_type=False
    )
