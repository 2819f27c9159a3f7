"""`pp.rank_encode`: what it writes, for which inputs, and that errors leave nothing behind."""

import warnings

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scmix
from scmix import _slots, ranks
from scmix._errors import GeneIdError, InputError, MissingKeyError
from scmix.genes import Vocabulary
from scmix.pp import rank_encode


def _ranks(adata: ad.AnnData, **options) -> np.ndarray:
    result = rank_encode(adata, copy=True, **options)
    return result.layers[options.get("key_added", "rank")].toarray()


def _state(adata: ad.AnnData) -> dict:
    matrix = adata.X
    data = (matrix.data, matrix.indices, matrix.indptr) if sp.issparse(matrix) else (matrix,)
    return {
        "X": [array.copy() for array in data],
        "tables": [adata.obs.copy(), adata.var.copy()],
        "keys": [
            sorted(map(str, getattr(adata, slot))) for slot in ("obsm", "varm", "layers", "uns")
        ],
    }


def _assert_same(adata: ad.AnnData, before: dict) -> None:
    after = _state(adata)
    for old, new in zip(before["X"], after["X"], strict=True):
        np.testing.assert_array_equal(old, new)  # NaN equals NaN
    for old, new in zip(before["tables"], after["tables"], strict=True):
        pd.testing.assert_frame_equal(old, new)
    assert before["keys"] == after["keys"]


def test_ranks_are_count_by_median_descending(human):
    before = _state(human)
    assert rank_encode(human) is None
    layer = human.layers["rank"]
    assert isinstance(layer, sp.csr_matrix)
    assert layer.dtype == np.uint16
    genes = Vocabulary.bundled().genes.query("species == 'human'").set_index("ensembl_id")
    median = genes.loc[human.var_names, "median"].to_numpy(np.float64)
    token = genes.loc[human.var_names, "token"].to_numpy()
    for counts, row in zip(human.X.toarray(), layer.toarray(), strict=True):
        detected = np.flatnonzero(counts)
        order = detected[np.lexsort((token[detected], -counts[detected] / median[detected]))]
        assert row[order].tolist() == list(range(1, detected.size + 1))
        assert np.count_nonzero(row) == detected.size
    assert np.array_equal(human.var["scmix_token"], token)
    assert human.var["ensembl_id"].tolist() == human.var_names.tolist()
    assert all(np.array_equal(a, b) for a, b in zip(before["X"], _state(human)["X"], strict=True))


def test_options_are_kept_with_the_result(human):
    human.layers["counts"] = human.X
    rank_encode(human, layer="counts", n_genes=20, key_added="top")
    made = human.uns["top"]["params"]
    assert made["scmix_version"] == scmix.__version__
    assert made["vocabulary_sha256"] == Vocabulary.bundled().sha256
    assert (made["layer"], made["n_genes"], made["species"]) == ("counts", 20, ["human"])
    assert made["coverage"] == 1
    assert human.layers["top"].max() == 20


def test_copy_leaves_the_original(human):
    before = _state(human)
    result = rank_encode(human, copy=True)
    _assert_same(human, before)
    assert "rank" in result.layers


@pytest.mark.parametrize(
    "make",
    [
        sp.csc_matrix,
        sp.csr_array,
        lambda x: x.toarray(),
        lambda x: x.astype(np.int64),
        lambda x: x.toarray().astype(np.uint16),
        lambda x: da.from_array(x.toarray(), chunks=(5, 50)),
    ],
)
def test_any_matrix_gives_the_same_ranks(human, make):
    expected = _ranks(human)
    human.X = make(human.X)
    assert np.array_equal(_ranks(human), expected)


def test_backed_is_as_in_memory(human, tmp_path):
    expected = _ranks(human)
    for name, make in {"csr": sp.csr_matrix, "dense": lambda x: x.toarray()}.items():
        other = human.copy()
        other.X = make(human.X)
        other.write_h5ad(tmp_path / f"{name}.h5ad")
        backed = ad.read_h5ad(tmp_path / f"{name}.h5ad", backed="r")
        rank_encode(backed)
        assert np.array_equal(backed.layers["rank"].toarray(), expected)
        backed.file.close()


def test_view_becomes_an_object_and_its_parent_is_untouched(human):
    expected = _ranks(human)
    before = _state(human)
    view = human[[5, 2]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.ImplicitModificationWarning)
        rank_encode(view)
    assert np.array_equal(view.layers["rank"].toarray(), expected[[5, 2]])
    _assert_same(human, before)


def test_columns_of_one_gene_are_summed(human):
    expected = _ranks(human)
    counts = human.X.toarray()
    rng = np.random.default_rng(0)
    part = np.minimum(counts, rng.integers(0, 3, counts.shape))
    split = ad.AnnData(
        sp.csr_matrix(np.hstack([part, counts - part]).astype(np.float32)),
        var=pd.DataFrame(index=[*human.var_names, *(f"{x}.2" for x in human.var_names)]),
    )
    with pytest.warns(UserWarning, match="added up"):
        rank_encode(split)
    layer = split.layers["rank"].toarray()
    assert np.array_equal(layer[:, :200] + layer[:, 200:], expected)
    assert not (layer[:, :200] * layer[:, 200:]).any()
    assert (layer[:, :200] > 0)[part > 0].all()


def test_two_species_in_one_object(both, human, mouse):
    rank_encode(both, species_key="species")
    layer = both.layers["rank"].toarray()
    names = both.var_names
    assert np.array_equal(layer[:12, names.get_indexer(human.var_names)], _ranks(human))
    assert np.array_equal(layer[12:, names.get_indexer(mouse.var_names)], _ranks(mouse))
    assert both.uns["rank"]["params"]["species"] == ["human", "mouse"]


def test_empty_cells_are_warned_about(human):
    human.X[[2, 5]] = 0
    with pytest.warns(UserWarning, match="2 of 12 cells have no count of a known gene"):
        rank_encode(human)
    assert np.diff(human.layers["rank"].indptr)[[2, 5]].tolist() == [0, 0]


def test_genes_that_are_not_known_change_nothing(human):
    expected = _ranks(human)
    extra = ad.AnnData(
        sp.csr_matrix(np.full((12, 30), 7, np.float32)),
        obs=human.obs[[]],
        var=pd.DataFrame(index=[f"unknown{i}" for i in range(30)]),
    )
    wider = ad.concat([human, extra], axis=1)
    layer = rank_encode(wider, copy=True).layers["rank"].toarray()
    assert np.array_equal(layer[:, :200], expected)
    assert not layer[:, 200:].any()


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_ranks_survive_a_file(human, form, tmp_path):
    rank_encode(human, species_key="species")
    getattr(human, f"write_{form}")(tmp_path / f"x.{form}")
    back = getattr(ad, f"read_{form}")(tmp_path / f"x.{form}")
    assert back.layers["rank"].dtype == np.uint16
    assert np.array_equal(back.layers["rank"].toarray(), human.layers["rank"].toarray())
    assert back.var["ensembl_id"].tolist() == human.var["ensembl_id"].tolist()
    assert np.array_equal(back.var["scmix_token"], human.var["scmix_token"])
    made, kept = human.uns["rank"]["params"], back.uns["rank"]["params"]
    assert set(made) == set(kept)
    assert all(np.array_equal(made[key], kept[key]) for key in made)
    vocabulary = Vocabulary.bundled()
    back.X = back.X * 0  # the stored ranks are taken, from the file as well
    cells = [block.sequences for block in _slots.iter_sequences(back, vocabulary)]
    original = [block.sequences for block in _slots.iter_sequences(human, vocabulary)]
    assert np.array_equal(cells[0].tokens, original[0].tokens)


def test_a_repeated_call_replaces_its_result(human):
    rank_encode(human)
    rank_encode(human, n_genes=5)
    assert human.layers["rank"].max() == 5


def test_a_layer_of_somebody_else_is_kept(human):
    human.layers["rank"] = human.X
    before = _state(human)
    with pytest.raises(InputError, match=r'layers\["rank"\] exists already'):
        rank_encode(human)
    _assert_same(human, before)
    rank_encode(human, overwrite=True)
    assert human.layers["rank"].dtype == np.uint16


def test_ids_that_the_user_has_are_kept(human):
    human.var["ensembl_id"] = [f"{name}.3" for name in human.var_names]
    for _ in range(2):
        rank_encode(human)
    assert human.var["ensembl_id"].str.endswith(".3").all()


@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"),
    [
        (lambda a: a.X.data.__setitem__(3, np.nan), {}, InputError, "NaN"),
        (lambda a: a.X.data.__setitem__(3, -1), {}, InputError, "scaled"),
        (lambda a: np.log1p(a.X.data, out=a.X.data), {}, InputError, "log-transformed"),
        (lambda a: None, {"layer": "cuonts"}, MissingKeyError, "no layer 'cuonts'"),
        (lambda a: None, {"species_key": "specie"}, MissingKeyError, "species"),
        (lambda a: None, {"species": "mouse"}, GeneIdError, "human"),
        (lambda a: None, {"n_genes": 0}, InputError, "n_genes = 0"),
        (lambda a: None, {"key_added": "a/b"}, InputError, "without '/'"),
    ],
)
def test_errors_leave_all_as_it_was(human, spoil, options, error, message):
    spoil(human)
    before = _state(human)
    with pytest.raises(error, match=message):
        rank_encode(human, **options)
    _assert_same(human, before)


def test_no_cell_with_a_known_gene_is_refused(human):
    known = human.X.toarray()
    known[:, :150] = 0
    human.X = sp.csr_matrix(known)
    human.var_names = [*human.var_names[:150], *(f"unknown{i}" for i in range(50))]
    before = _state(human)
    with pytest.raises(InputError, match="No cell has a count of a gene"):
        rank_encode(human)
    _assert_same(human, before)


@pytest.mark.parametrize("where", ["iteration", "write"])
def test_ctrl_c_leaves_all_as_it_was(human, where, monkeypatch):
    before = _state(human)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    if where == "iteration":
        monkeypatch.setattr("scmix.pp._rank_encode.ranks_to_layer", interrupt)
    else:  # the layer is in place, the columns of var are not
        original = pd.DataFrame.__setitem__
        monkeypatch.setattr(
            pd.DataFrame,
            "__setitem__",
            lambda self, key, value: (
                interrupt() if key == "ensembl_id" else original(self, key, value)
            ),
        )
    with pytest.raises(KeyboardInterrupt):
        rank_encode(human)
    monkeypatch.undo()
    _assert_same(human, before)


def test_thread_counts_and_random_state_are_left_alone(human):
    import numba

    def state() -> tuple:
        drawn = np.random.get_state()[1].tolist()  # noqa: NPY002
        return numba.get_num_threads(), drawn, warnings.filters[:]

    before = state()
    rank_encode(human)
    assert state() == before


def test_many_blocks_are_one(human, monkeypatch):
    expected = _ranks(human)
    monkeypatch.setattr("scmix._row_blocks.BLOCK_ENTRIES", 50)
    assert np.array_equal(_ranks(human), expected)
    monkeypatch.setattr(ranks, "_SMALL", 0)
    assert np.array_equal(_ranks(human), expected)
