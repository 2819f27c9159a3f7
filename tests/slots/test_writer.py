"""What is written: all or nothing, nothing of others, and nothing that a file cannot hold."""

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scmix._errors import InputError
from scmix._writer import is_ours, params, write

N_CELLS = 23  # of `counts`


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


def test_everything_is_written(counts, caplog, as_adata):
    adata = as_adata(counts)
    with caplog.at_level(logging.INFO, "scmix"):
        write(adata, _updates(adata))
    assert adata.obsm["X_a"].sum() == 2 * N_CELLS
    assert adata.obs["a_score"].tolist() == list(range(N_CELLS))
    made = adata.uns["a"]["params"]
    assert made == {"scmix_version": made["scmix_version"], "seed": 3, "of": ["x", "y"]}
    assert 'added obsm["X_a"], obs["a_score"], layers["a"], uns["a"]' in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("rerun", [False, True])
def test_a_failed_write_leaves_all_as_it_was(counts, error, rerun, monkeypatch, as_adata):
    adata = as_adata(counts)
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


def test_a_taken_key_is_refused_unless_overwritten(counts, as_adata):
    adata = as_adata(counts)
    adata.obsm["X_a"] = np.zeros((N_CELLS, 2))
    before = _snapshot(adata)
    with pytest.raises(InputError, match=r'obsm\["X_a"\] exists already. Pass overwrite=True'):
        write(adata, _updates(adata))
    _assert_same(adata, before)
    write(adata, _updates(adata), overwrite=True)
    assert adata.obsm["X_a"].all()


def test_a_call_can_be_repeated_but_takes_no_other_keys(counts, as_adata):
    adata = as_adata(counts)
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


def test_values_are_placed_by_position(counts, as_adata):
    adata = as_adata(counts)
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
def test_what_does_not_fit_or_cannot_be_saved_is_refused(counts, key, value, message, as_adata):
    adata = as_adata(counts)
    before = _snapshot(adata)
    with pytest.raises(InputError, match=message):
        write(adata, {("obs", "first"): np.zeros(N_CELLS), key: value})
    _assert_same(adata, before)


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_what_was_written_survives_a_file(counts, form, tmp_path, as_adata):
    adata = as_adata(counts)
    updates = _updates(adata)
    updates["uns", "a"]["table"] = pd.DataFrame({"x": [1.5], "y": ["z"]})
    write(adata, updates)
    path = tmp_path / f"x.{form}"
    getattr(adata, f"write_{form}")(path)
    back = getattr(ad, f"read_{form}")(path)
    assert is_ours(back.uns["a"])
    assert back.uns["a"]["params"]["seed"] == 3
    assert list(back.uns["a"]["params"]["of"]) == ["x", "y"]
    pd.testing.assert_frame_equal(
        back.uns["a"]["table"], adata.uns["a"]["table"], check_dtype=False, check_index_type=False
    )
