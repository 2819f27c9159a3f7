import dataclasses
import logging
import warnings

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scmix
from scmix import _slots, checkpoints, inference, pp, tl
from scmix._errors import InputError, MissingKeyError
from scmix.batches import Sequences, add_special
from scmix.genes import Vocabulary, match
from scmix.ranks import rank_encode_numpy

EXACT = {"device": "cpu", "dtype": "float32"}
few = settings(max_examples=8, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def _no_bars():
    scmix.settings.progress = False


def vectors(adata, model, **options):
    result = tl.embed(adata, model, **EXACT, copy=True, **options)
    return result.obsm["X_scmix"]


def test_it_is_ranks_special_tokens_and_the_mean_over_genes(human, tiny):
    vocabulary = tiny.vocabulary
    tokens = match(human.var_names, vocabulary, species="human", on_duplicate="error").tokens
    species = np.zeros(human.n_obs, dtype=np.int8)
    ranks = rank_encode_numpy(human.X, tokens, vocabulary.medians, species, n_genes=255)
    sequences = add_special(ranks, vocabulary, 0, max_length=256)
    expected = []
    for cell in sequences:
        row = Sequences(cell, [0, len(cell)])
        states = inference.run(
            tiny.encoder,
            row,
            special_ids=[],
            pool="tokens",
            layer=-2,
            device="cpu",
            dtype="float32",
        )
        expected.append(states[~np.isin(cell, vocabulary.special_ids)].mean(axis=0))
    assert sequences[0][0] == vocabulary.special["<human>"]
    np.testing.assert_allclose(vectors(human, tiny), expected, atol=1e-5)


@few
@given(seed=st.integers(0, 1000))
def test_order_of_genes_and_cells_changes_nothing(seed, human, tiny):
    rng = np.random.default_rng(seed)
    cells, genes = rng.permutation(human.n_obs), rng.permutation(human.n_vars)
    np.testing.assert_allclose(
        vectors(human[cells, genes], tiny), vectors(human, tiny)[cells], atol=1e-5
    )


@few
@given(cell=st.integers(0, 11), factor=st.integers(1, 50))
def test_a_cell_alone_and_scaled_equals_the_same_cell_in_a_batch(cell, factor, human, tiny):
    alone = human[[cell]].copy()
    alone.X = alone.X * np.float32(factor)
    np.testing.assert_allclose(vectors(alone, tiny)[0], vectors(human, tiny)[cell], atol=1e-5)


@few
@given(budget=st.integers(1, 3000), block=st.integers(1, 13))
def test_batches_and_blocks_change_nothing(budget, block, human, tiny):
    whole = vectors(human, tiny)
    original = _slots.iter_sequences

    def in_blocks(*arguments, **options):
        return original(*arguments, **options | {"block_cells": block})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_slots, "iter_sequences", in_blocks)
        np.testing.assert_allclose(vectors(human, tiny, batch_tokens=budget), whole, atol=1e-5)


KINDS = [
    sp.csr_matrix.copy,  # zeros are stored
    sp.csc_matrix,
    sp.csr_array,
    lambda x: x.toarray(),
    lambda x: x.toarray().astype(np.int64),
    lambda x: x.astype(np.float64),
]


@few
@given(share=st.floats(0, 0.9), seed=st.integers(0, 1000), kind=st.sampled_from(KINDS))
def test_sparsity_and_kind_of_matrix_change_nothing(share, seed, kind, human, tiny):
    stored, sparse = human.copy(), human.copy()
    lost = np.random.default_rng(seed).random(human.X.nnz) < share
    stored.X.data[lost] = 0
    sparse.X = stored.X.copy()
    sparse.X.eliminate_zeros()
    stored.X = kind(stored.X)
    np.testing.assert_array_equal(vectors(stored, tiny), vectors(sparse, tiny))


def test_unknown_genes_and_a_layer_change_nothing(human, tiny):
    extra = ad.AnnData(sp.csr_matrix(np.full((human.n_obs, 5), 9.0, np.float32)))
    extra.var_names, extra.obs_names = [f"ERCC-{i}" for i in range(5)], human.obs_names
    more = ad.concat([human, extra], axis="var")
    more.layers["raw"] = more.X
    more.X = sp.csr_matrix(more.shape, dtype=np.float32)
    np.testing.assert_array_equal(vectors(more, tiny, layer="raw"), vectors(human, tiny))


def test_stored_ranks_give_the_same(human, tiny, caplog):
    ranked = pp.rank_encode(human, copy=True)
    ranked.X = sp.csr_matrix(ranked.shape, dtype=np.float32)  # counts are not looked at
    with caplog.at_level(logging.INFO, logger="scmix"):
        np.testing.assert_array_equal(vectors(ranked, tiny), vectors(human, tiny))
    assert 'Using the ranks in layers["rank"]' in caplog.text


def test_two_species_are_read_each_with_its_own_token(both, human, mouse, tiny):
    together = vectors(both, tiny, species_key="species")
    np.testing.assert_allclose(together[: human.n_obs], vectors(human, tiny), atol=1e-5)
    np.testing.assert_allclose(together[human.n_obs :], vectors(mouse, tiny), atol=1e-5)


def test_two_species_need_a_column(both, tiny, unchanged):
    with unchanged(both), pytest.raises(InputError, match="species"):
        tl.embed(both, tiny)


@pytest.mark.parametrize("backed", ["h5ad", "csc", "dask"])
def test_data_that_is_not_in_memory_gives_the_same(backed, human, tiny, tmp_path):
    expected = vectors(human, tiny)
    if backed == "dask":
        array = pytest.importorskip("dask.array")
        lazy = human.copy()
        lazy.X = array.from_array(human.X.toarray(), chunks=(5, -1))
    else:
        human.X = sp.csc_matrix(human.X) if backed == "csc" else human.X
        human.write_h5ad(tmp_path / "cells.h5ad")
        lazy = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    tl.embed(lazy, tiny, **EXACT)
    np.testing.assert_array_equal(lazy.obsm["X_scmix"], expected)
    assert lazy.isbacked == (backed != "dask")


@pytest.mark.parametrize("file", ["h5ad", "zarr"])
def test_result_survives_writing_and_reading(file, human, tiny, clear, tmp_path):
    clear(human, cells=[3])
    with pytest.warns(UserWarning, match="1 of 12 cells"):
        tl.embed(human, tiny, **EXACT)
    path = tmp_path / f"cells.{file}"
    getattr(human, f"write_{file}")(path)
    read = getattr(ad, f"read_{file}")(path)
    np.testing.assert_array_equal(read.obsm["X_scmix"], human.obsm["X_scmix"])
    assert read.uns["X_scmix"]["n_empty_cells"] == 1
    assert read.uns["X_scmix"]["coverage"] == 1
    assert dict(read.uns["X_scmix"]["params"]) == human.uns["X_scmix"]["params"]


def test_params_say_what_was_done(human, tiny):
    tl.embed(human, tiny, pool="first", hidden_layer=-2, n_genes=40, key_added="first", **EXACT)
    assert human.obsm["first"].dtype == np.float32
    assert human.uns["first"]["params"] == {
        "scmix_version": scmix.__version__,
        "model": tiny.name,
        "model_sha256": tiny.sha256,
        "vocabulary_sha256": tiny.vocabulary.sha256,
        "pool": "first",
        "hidden_layer": -2,
        "n_genes": 40,
        "device": "cpu",
        "dtype": "float32",
        "on_duplicate": "error",
        "allow_noninteger": False,
    }


def test_coverage_is_kept_with_the_result(human, tiny, caplog):
    human.var_names = ["no gene", *human.var_names[1:]]
    with caplog.at_level(logging.INFO, logger="scmix"):
        tl.embed(human, tiny, **EXACT)
    made = human.uns["X_scmix"]
    assert (made["coverage"], made["n_genes_matched"]) == (199 / 200, 199)
    assert isinstance(made["coverage"], float)
    assert sum("genes of the vocabulary" in line for line in caplog.messages) == 1


def test_empty_cells_are_nan_and_said_once(human, tiny, clear):
    full = vectors(human, tiny)
    clear(human, cells=[2, 5])
    with pytest.warns(UserWarning, match=r"2 of 12 cells have no count") as caught:
        tl.embed(human, tiny, **EXACT)
    assert len(caught) == 1
    result = human.obsm["X_scmix"]
    assert np.isnan(result[[2, 5]]).all()
    kept = np.setdiff1d(np.arange(12), [2, 5])
    np.testing.assert_allclose(result[kept], full[kept], atol=1e-5)


@pytest.mark.parametrize("file", ["h5ad", "zarr"])
def test_cells_with_few_genes_are_named(human, tiny, file, tmp_path):
    counts = human.X.toarray()
    for cell, n_genes in ((2, 9), (5, 10)):
        counts[cell] = 0
        counts[cell, :n_genes] = 1
    human.X = sp.csr_matrix(counts)
    with pytest.warns(UserWarning, match=r"1 of 12 cells have fewer than 10 genes"):
        tl.embed(human, tiny, **EXACT)
    getattr(human, f"write_{file}")(tmp_path / "few")
    read = getattr(ad, f"read_{file}")(tmp_path / "few")
    assert list(read.uns["X_scmix"]["few_genes"]) == [human.obs_names[2]]


def test_hidden_layers_are_counted_as_python_indices(human, tiny):
    last, first, embeddings = (vectors(human, tiny, hidden_layer=i) for i in (-1, -2, 0))
    np.testing.assert_array_equal(first, vectors(human, tiny))
    np.testing.assert_array_equal(last, vectors(human, tiny, hidden_layer=2))
    np.testing.assert_array_equal(first, vectors(human, tiny, hidden_layer=1))
    np.testing.assert_array_equal(embeddings, vectors(human, tiny, hidden_layer=-3))
    assert not np.allclose(last, first, atol=0.01)
    assert not np.allclose(first, embeddings, atol=0.01)


def test_n_genes_reads_the_first_genes_only(human, tiny):
    tokens = match(human.var_names, tiny.vocabulary, species="human", on_duplicate="error").tokens
    species = np.zeros(human.n_obs, dtype=np.int8)
    ranks = rank_encode_numpy(human.X, tokens, tiny.vocabulary.medians, species, n_genes=7)
    columns = np.isin(tokens, ranks[0])
    short = human[[0], columns].copy()
    np.testing.assert_allclose(
        vectors(human[[0]], tiny, n_genes=7), vectors(short, tiny), atol=1e-5
    )


def test_copy_and_rerun(human, tiny, unchanged):
    with unchanged(human):
        copied = tl.embed(human, tiny, copy=True, **EXACT)
    assert "X_scmix" in copied.obsm
    assert tl.embed(human, tiny, **EXACT) is None
    first = human.obsm["X_scmix"].copy()
    tl.embed(human, tiny, hidden_layer=-1, **EXACT)  # a notebook cell that is run again
    assert not np.allclose(human.obsm["X_scmix"], first)


def test_a_view_gets_the_result_and_its_parent_stays(human, tiny, unchanged):
    view = human[3:7]
    with unchanged(human), warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.ImplicitModificationWarning)
        tl.embed(view, tiny, **EXACT)
    np.testing.assert_allclose(view.obsm["X_scmix"], vectors(human, tiny)[3:7], atol=1e-5)


def test_copy_of_a_file_is_refused_before_any_work(human, tiny, tmp_path, monkeypatch):
    human.write_h5ad(tmp_path / "cells.h5ad")
    lazy = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    monkeypatch.setattr(_slots, "iter_sequences", None)
    with pytest.raises(InputError, match="copy=True for data in a backed file"):
        tl.embed(lazy, tiny, copy=True, **EXACT)


def test_a_foreign_key_is_refused_before_any_work(human, tiny, unchanged, monkeypatch):
    human.obsm["X_scmix"] = np.zeros((human.n_obs, 2))
    monkeypatch.setattr(_slots, "iter_sequences", None)
    with unchanged(human), pytest.raises(InputError, match=r'obsm\["X_scmix"\] exists already'):
        tl.embed(human, tiny, **EXACT)
    monkeypatch.undo()
    tl.embed(human, tiny, overwrite=True, **EXACT)
    assert human.obsm["X_scmix"].shape == (human.n_obs, 16)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_an_error_half_way_leaves_adata_as_it_was(error, human, tiny, unchanged, monkeypatch):
    calls = []
    original = inference.run

    def fail(*arguments, **options):
        calls.append(1)
        if len(calls) > 3:
            raise error("half way")
        return original(*arguments, **options)

    monkeypatch.setattr("scmix.tl._reading.inference.run", fail)
    monkeypatch.setattr("scmix.tl._reading._BATCHES_AT_ONCE", 1)
    with unchanged(human), pytest.raises(error, match="half way"):
        tl.embed(human, tiny, batch_tokens=100, **EXACT)
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pool": "max"}, InputError, "pool='max'"),
        ({"pool": "tokens"}, InputError, "pool='tokens'"),
        ({"pool": "pooler"}, InputError, "no pooler"),
        ({"pool": "cls"}, InputError, "<cls>"),
        ({"hidden_layer": 3}, InputError, "layer=3"),
        ({"n_genes": 256}, InputError, "at most 255 genes"),
        ({"n_genes": 0}, InputError, "n_genes=0"),
        ({"batch_tokens": 0}, InputError, "batch_tokens=0"),
        ({"dtype": "float8"}, InputError, "dtype='float8'"),
        ({"device": "gpu"}, InputError, "device='gpu'"),
        ({"layer": "count"}, MissingKeyError, "'count'"),
        ({"species_key": "specie"}, MissingKeyError, "'species'"),
        ({"key_added": "a/b"}, InputError, "a/b"),
    ],
)
def test_bad_options_are_named_and_nothing_changes(options, error, message, human, tiny, unchanged):
    with unchanged(human), pytest.raises(error, match=message):
        tl.embed(human, tiny, **EXACT | options)


@pytest.mark.parametrize("bad", ["log", "negative", "nan"])
def test_values_that_are_no_counts_are_refused(bad, human, tiny, unchanged):
    if bad == "log":
        human.X = human.X.log1p()
    else:
        human.X.data[0] = {"negative": -1, "nan": np.nan}[bad]
    with unchanged(human), pytest.raises(InputError, match=r"\.X"):
        tl.embed(human, tiny, **EXACT)


def test_the_global_random_state_is_left_alone(human, tiny):
    import torch

    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    vectors(human, tiny)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


def test_one_line_names_each_slot(human, tiny, caplog):
    with caplog.at_level(logging.INFO, logger="scmix"):
        tl.embed(human, tiny, **EXACT)
    added = [line for line in caplog.messages if line.startswith("added")]
    assert added == ['added obsm["X_scmix"], uns["X_scmix"]']


def test_separate_vocabulary(both, tiny):
    vocabulary = Vocabulary.bundled("separate")
    config = dataclasses.replace(tiny.config, vocab_size=vocabulary.n_tokens)
    model = checkpoints.untrained(config, vocabulary, seed=0)
    assert np.isfinite(vectors(both, model, species_key="species")).all()


def test_a_model_that_reads_values_is_refused(human, tiny, unchanged):
    recipe = {"name": "wced", "objectives": {"wced": 1.0}, "value_input": "mlp"}
    model = dataclasses.replace(tiny, manifest={**tiny.manifest, "recipe": recipe})
    with unchanged(human), pytest.raises(InputError, match="recipe 'wced' to read values"):
        tl.embed(human, model, **EXACT)
