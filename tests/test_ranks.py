"""Ranks: the kernels against plain numpy and the published tokenizer, and what must not matter."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anndata as ad
import numba
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from scmix import ranks
from scmix._errors import InputError
from scmix._jit import jit
from scmix.batches import Sequences
from scmix.ranks import (
    layer_to_sequences,
    rank_encode,
    rank_encode_numpy,
    ranks_to_layer,
)

N_TOKENS = 40


def _lists(cells: Sequences) -> list[list[int]]:
    return [cell.tolist() for cell in cells]


def _same(a: Sequences, b: Sequences) -> bool:
    return np.array_equal(a.tokens, b.tokens) and np.array_equal(a.indptr, b.indptr)


@st.composite
def _cases(draw, distinct_tokens=False):
    """Counts with many ties; columns that share a token or have none; genes of one species."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_cells, n_columns = draw(st.integers(1, 6)), draw(st.integers(1, 35))
    highest = draw(st.sampled_from([1, 3, 1000]))
    counts = rng.integers(0, highest + 1, (n_cells, n_columns)) * rng.integers(
        0, 2, (n_cells, n_columns)
    )
    if distinct_tokens:
        tokens = rng.permutation(N_TOKENS)[:n_columns]
    else:
        tokens = rng.integers(-1, N_TOKENS, n_columns)
    medians = rng.choice(draw(st.sampled_from([[1.0], [0.5, 1.0, 2.0]])), (2, N_TOKENS))
    if draw(st.booleans()):
        medians = rng.lognormal(1, 1, (2, N_TOKENS))
    medians[rng.random((2, N_TOKENS)) < 0.2] = np.nan
    species = rng.integers(0, 2, n_cells)
    return counts.astype(np.float32), tokens, medians.astype(np.float32), species


def _encode(case, **options) -> Sequences:
    counts, tokens, medians, species = case
    return rank_encode(sp.csr_matrix(counts), tokens, medians, species, **options)


@pytest.mark.parametrize("n_genes", [1, 7, 2048])
@given(case=_cases())
def test_kernel_is_the_numpy_reference(case, n_genes):
    counts, *rest = case
    expected = rank_encode_numpy(sp.csr_matrix(counts), *rest, n_genes=n_genes)
    assert _same(_encode(case, n_genes=n_genes), expected)


@given(case=_cases())
def test_numpy_reference_is_the_definition(case):
    """Written out with Python lists: sum by token, divide, sort."""
    counts, tokens, medians, species = case
    expected = []
    for cell, code in zip(counts, species, strict=True):
        total: dict[int, float] = {}
        for token, count in zip(tokens.tolist(), cell.tolist(), strict=True):
            if token >= 0 and count > 0 and not np.isnan(medians[code, token]):
                total[token] = total.get(token, 0.0) + count
        score = {token: n / float(medians[code, token]) for token, n in total.items()}
        expected.append(sorted(score, key=lambda token: (-score[token], token)))
    assert _lists(rank_encode_numpy(sp.csr_matrix(counts), tokens, medians, species)) == expected


def _many_counts(n_cells: int = 40, n_columns: int = 9000, seed: int = 0):
    rng = np.random.default_rng(seed)
    counts = sp.random(n_cells, n_columns, 0.3, format="csr", dtype=np.float32, random_state=rng)
    counts.data[:] = rng.geometric(0.4, counts.nnz)
    tokens = rng.permutation(n_columns)
    medians = rng.lognormal(1, 0.8, (2, n_columns)).astype(np.float32)
    return counts, tokens, medians, rng.integers(0, 2, n_cells)


@pytest.mark.parametrize("n_genes", [300, 2048, 65_535])
def test_long_cells_are_the_numpy_reference(n_genes):
    case = _many_counts()
    assert _same(rank_encode(*case, n_genes=n_genes), rank_encode_numpy(*case, n_genes=n_genes))


def test_long_runs_of_ties_are_in_the_order_of_tokens():
    counts, tokens, medians, species = _many_counts(n_cells=4)
    counts.data[:] = 1
    cells = rank_encode(counts, tokens, np.ones_like(medians), species, n_genes=65_535)
    for i, cell in enumerate(cells):
        assert np.array_equal(cell, np.sort(tokens[counts[i].indices]))


def test_scores_that_float32_cannot_tell_apart():
    medians = np.array([[1.0, 1.0 + 2**-40, 1.0 - 2**-40, 3e-38, 3e38]])
    counts = sp.csr_matrix(np.array([[1.0, 1.0, 1.0, 1e30, 1e-30]]))
    tokens = np.arange(5)
    assert _lists(rank_encode(counts, tokens, medians, 0)) == [[3, 2, 0, 1, 4]]


def test_counts_that_float32_cannot_hold_are_exact():
    counts = sp.csr_matrix(np.array([[2**24, 2**24 + 1]], dtype=np.int64))
    assert _lists(rank_encode(counts, np.array([0, 1]), np.ones((1, 2)), 0)) == [[1, 0]]


def test_columns_of_one_token_are_summed_before_they_are_ranked():
    counts = sp.csr_matrix(np.array([[3, 4, 3], [0, 4, 3]], dtype=np.float32))
    assert _lists(rank_encode(counts, np.array([5, 2, 5]), np.ones((1, 6)), 0)) == [[5, 2], [2, 5]]


def test_genes_of_the_other_species_are_left_out():
    medians = np.array([[1.0, np.nan], [np.nan, 1.0]])
    counts = sp.csr_matrix(np.ones((2, 2), dtype=np.float32))
    assert _lists(rank_encode(counts, np.array([0, 1]), medians, np.array([0, 1]))) == [[0], [1]]


def test_explicit_zeros_unsorted_and_duplicate_entries_do_not_matter():
    messy = sp.csr_matrix(
        (np.array([2.0, 0, 5, 1], np.float32), np.array([3, 1, 0, 3]), np.array([0, 4])),
        shape=(1, 4),
    )
    before = messy.data.copy(), messy.indices.copy()
    tidy = sp.csr_matrix(np.array([[5, 0, 0, 3]], dtype=np.float32))
    tokens, medians = np.arange(4), np.ones((1, 4))
    assert _same(rank_encode(messy, tokens, medians, 0), rank_encode(tidy, tokens, medians, 0))
    assert np.array_equal(messy.data, before[0])
    assert np.array_equal(messy.indices, before[1])


# -- what must not matter -------------------------------------------------------------------------


@given(case=_cases(), seed=st.integers(0, 1000))
def test_order_of_genes(case, seed):
    counts, tokens, medians, species = case
    order = np.random.default_rng(seed).permutation(tokens.size)
    assert _same(_encode(case), _encode((counts[:, order], tokens[order], medians, species)))


@given(case=_cases(), seed=st.integers(0, 1000))
def test_order_of_cells_and_company(case, seed):
    counts, tokens, medians, species = case
    order = np.random.default_rng(seed).permutation(len(counts))
    shuffled = _encode((counts[order], tokens, medians, species[order]))
    assert _same(_encode(case)[order], shuffled)
    alone = _encode((counts[:1], tokens, medians, species[:1]))
    assert np.array_equal(alone[0], _encode(case)[0])


@given(case=_cases(), factor=st.integers(2, 1000))
def test_integer_scaling_of_counts(case, factor):
    counts, *rest = case
    assert _same(_encode(case), _encode((counts * factor, *rest)))


@given(case=_cases())
def test_columns_without_counts(case):
    counts, tokens, medians, species = case
    wider = np.hstack([counts, np.zeros((len(counts), 3), np.float32)])
    assert _same(_encode(case), _encode((wider, np.r_[tokens, 0, 1, -1], medians, species)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint16", "int64", "bool"])
@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csr_array])
def test_type_of_counts(dtype, make):
    counts = np.array([[1, 0, 1, 1], [0, 1, 1, 0]], dtype=dtype)
    medians = np.array([[2.0, 1.0, 4.0, 0.5]])
    assert _lists(rank_encode(make(counts), np.arange(4), medians, 0)) == [[3, 0, 2], [1, 2]]


def test_read_only_arrays_are_taken():
    counts, *rest = _many_counts(n_cells=2)
    for array in (counts.data, counts.indices, counts.indptr):
        array.flags.writeable = False
    assert _same(rank_encode(counts, *rest), rank_encode_numpy(counts, *rest))


def test_no_cells_and_empty_cells():
    assert len(rank_encode(sp.csr_matrix((0, 3)), np.arange(3), np.ones((1, 3)), 0)) == 0
    empty = rank_encode(sp.csr_matrix((2, 3)), np.arange(3), np.ones((1, 3)), 0)
    assert empty.lengths.tolist() == [0, 0]


# -- threads --------------------------------------------------------------------------------------


def test_threads_change_nothing(monkeypatch):
    case = _many_counts()
    serial = rank_encode(*case)
    monkeypatch.setattr(ranks, "_SMALL", 0)
    monkeypatch.setattr(numba, "get_num_threads", lambda: 3)
    assert ranks.n_threads() == 3
    assert _same(rank_encode(*case), serial)
    assert _same(rank_encode(*[case[0][:1], *case[1:3], case[3][:1]]), serial[:1])


def test_serial_in_a_thread_pool(monkeypatch):
    monkeypatch.setattr(ranks, "_SMALL", 0)
    monkeypatch.setattr(ranks, "ThreadPoolExecutor", None)  # not callable: threads of threads
    monkeypatch.setattr(numba, "get_num_threads", lambda: 3)
    case = _many_counts(n_cells=4)
    with ThreadPoolExecutor(2) as pool:
        assert pool.submit(ranks.n_threads).result() == 1
        results = list(pool.map(lambda _: rank_encode(*case), range(4)))
    assert all(_same(result, rank_encode_numpy(*case)) for result in results)
    assert threading.current_thread() is threading.main_thread()


def test_kernels_compile_where_nothing_can_be_written(monkeypatch):
    compile_, seen = numba.njit, []

    def njit(**options):
        seen.append(options.pop("cache", False))
        if seen[-1]:
            raise RuntimeError("cannot cache function: no locator available")
        return compile_(**options)

    monkeypatch.setattr(numba, "njit", njit)
    assert jit()(lambda x: x + 1)(2) == 3
    assert seen == [True, False]


# -- layers of ranks ------------------------------------------------------------------------------


@given(case=_cases())
def test_ranks_survive_as_a_layer(case):
    counts, tokens, _, _ = case
    cells = _encode(case)
    layer = ranks_to_layer(cells, tokens, sp.csr_matrix(counts))
    assert layer.dtype == np.uint16
    assert layer.has_canonical_format
    assert _same(layer_to_sequences(layer, tokens), cells)
    for row, cell in zip(layer.toarray(), cells, strict=True):
        assert sorted(row[row > 0].tolist()) == list(range(1, cell.size + 1))
        assert tokens[row.argmax()] == cell[-1] if cell.size else True


def test_first_column_with_a_count_carries_the_rank_of_a_sum():
    counts = sp.csr_matrix(np.array([[1, 9, 1], [0, 1, 1]], dtype=np.float32))
    tokens = np.array([5, 2, 5])
    cells = rank_encode(counts, tokens, np.ones((1, 6)), 0)
    assert ranks_to_layer(cells, tokens, counts).toarray().tolist() == [[2, 1, 0], [0, 1, 2]]


def test_sliced_layer_keeps_the_order_of_what_is_left():
    layer = sp.csr_matrix(np.array([[3, 1, 2], [0, 2, 1]], dtype=np.uint16))[:, [0, 2]]
    tokens = np.array([7, 9])
    assert _lists(layer_to_sequences(layer, tokens)) == [[9, 7], [9]]
    assert _lists(layer_to_sequences(layer, tokens, n_genes=1)) == [[9], [9]]


def test_layer_as_floats_is_read():
    layer = sp.csr_matrix(np.array([[3.0, 1.0, 2.0]]))
    assert _lists(layer_to_sequences(layer, np.arange(3))) == [[1, 2, 0]]


@pytest.mark.parametrize(
    ("values", "tokens", "message"),
    [
        ([[1, 1, 2]], [0, 1, 2], "ranks of cell 0 are not one per gene"),
        ([[1, 2, 3]], [0, -1, 2], "stand at a gene without a token"),
        ([[0.5, 2, 3]], [0, 1, 2], "no ranks"),
        ([[1, 2, 3]], [0, 1], "3 columns and 2 column_tokens"),
    ],
)
def test_layer_that_holds_no_ranks_is_refused(values, tokens, message):
    with pytest.raises(InputError, match=message):
        layer_to_sequences(sp.csr_matrix(np.array(values)), np.array(tokens))


def test_sequence_of_other_counts_is_refused():
    counts = sp.csr_matrix(np.array([[1, 0]], dtype=np.float32))
    cells = Sequences(np.array([1]), np.array([0, 1]))
    with pytest.raises(InputError, match="no count of"):
        ranks_to_layer(cells, np.array([0, 1]), counts)


def test_too_long_a_sequence_for_a_layer_is_refused():
    n = 65_536
    cells = Sequences(np.arange(n), np.array([0, n]))
    with pytest.raises(InputError, match="65,536 genes"):
        ranks_to_layer(cells, np.arange(n), sp.csr_matrix(np.ones((1, n))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"column_tokens": np.arange(2)}, "3 columns and 2 column_tokens"),
        ({"column_tokens": np.array([0, 1, 9])}, "tokens from 0 to 9"),
        ({"column_tokens": np.array([0, 1, -2])}, "tokens from -2 to 1"),
        ({"species": 1}, "species codes from 0 to 0"),
        ({"n_genes": 0}, "n_genes = 0"),
        ({"n_genes": 65_536}, "n_genes = 65536"),
    ],
)
@pytest.mark.parametrize("encode", [rank_encode, rank_encode_numpy])
def test_arguments_that_do_not_fit_are_refused(encode, change, message):
    arguments = {
        "column_tokens": np.arange(3),
        "medians": np.ones((1, 3)),
        "species": 0,
        **change,
    }
    with pytest.raises(InputError, match=message):
        encode(sp.csr_matrix(np.ones((1, 3))), **arguments)


# -- the published tokenizer ----------------------------------------------------------------------


def _tie_groups(cell: np.ndarray, score: np.ndarray) -> list[frozenset]:
    starts = np.flatnonzero(np.r_[True, np.diff(score) != 0])
    return [frozenset(group.tolist()) for group in np.split(cell, starts[1:])]


def test_equal_to_geneformer_v1(scmix_data: Path):
    """191 cells; runs of exactly tied scores are compared as sets."""
    folder = scmix_data / "reference" / "tokens"
    adata = ad.read_h5ad(folder / "input.h5ad")
    adata = adata[adata.obs["filter_pass"] == 1]
    table = pd.read_csv(scmix_data / "genes" / "geneformer_gc30M_vocabulary.csv.gz")
    genes = table[table["median"].notna()].set_index("gene_id")
    medians = np.full((1, len(table)), np.nan)
    medians[0, genes["token"]] = genes["median"]
    tokens = genes["token"].reindex(adata.var["ensembl_id"]).fillna(-1).to_numpy(int)
    counts = sp.csr_matrix(adata.X)
    cells = rank_encode(counts, tokens, medians, 0)

    published = np.load(folder / "expected_geneformer_v1.npz")
    expected = Sequences(published["tokens"], published["indptr"])
    assert np.array_equal(cells.indptr, expected.indptr)
    assert len(cells) == 191
    column = {token: i for i, token in enumerate(tokens.tolist()) if token >= 0}
    for row, ours, theirs in zip(counts.toarray(), cells, expected, strict=True):
        ours_score = row[[column[t] for t in ours]].astype(float) / medians[0, ours]
        theirs_score = row[[column[t] for t in theirs]].astype(float) / medians[0, theirs]
        assert np.array_equal(ours_score, theirs_score)
        ours_groups = _tie_groups(ours, ours_score)
        theirs_groups = _tie_groups(theirs, theirs_score)
        cut = ours.size == 2048  # the last run of ties may be cut differently
        assert ours_groups[: -1 if cut else None] == theirs_groups[: -1 if cut else None]
