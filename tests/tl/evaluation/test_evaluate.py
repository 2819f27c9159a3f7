import sys
import warnings
from types import ModuleType

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scmix
from scmix._errors import InputError, MissingKeyError
from scmix.tl._evaluation import embedding

ALWAYS = [
    ("none", "majority"),
    ("PCA-50", "kNN, labels shuffled"),
    ("PCA-50", "kNN"),
    ("PCA-50", "logistic regression"),
    ("3,000 genes", "logistic regression"),
    ("untrained encoder", "kNN"),
    ("untrained encoder", "logistic regression"),
    ("tiny", "kNN"),
    ("tiny", "logistic regression"),
]


@pytest.fixture(autouse=True)
def _no_bars_and_no_jax(monkeypatch):
    """LISI has a test of its own: jax takes longer to start than all of this file."""
    scmix.settings.progress = False
    there = embedding.find_spec
    monkeypatch.setattr(embedding, "find_spec", lambda n: n != "scib_metrics" and there(n))


def evaluate(adata, model, **options):
    quick = {"others": (), "n_splits": 3, "seeds": [0, 1]}
    return scmix.tl.evaluate(adata, "cell_type", model=model, **quick | options)


def named(table):
    return list(zip(table["representation"], table["classifier"], strict=True))


def score(table, representation, classifier, column="macro_f1"):
    rows = (table["representation"] == representation) & (table["classifier"] == classifier)
    assert rows.sum() == 1
    return table.loc[rows, column].iloc[0]


def test_baselines_are_always_there_and_scores_are_where_they_should_be(make_cells, tiny):
    adata = make_cells(90)
    codes = adata.obs["cell_type"].cat.codes.to_numpy()
    adata.obsm["X_true"] = np.eye(3)[codes] + 0.01
    adata.obsm["X_noise"] = np.random.default_rng(0).normal(size=(90, 5))
    table = evaluate(adata, tiny, groups="donor", use_rep=["X_true", "X_noise"])
    assert named(table)[: len(ALWAYS)] == ALWAYS
    assert set(table["split"]) == {"3-fold by donor"}
    assert (table["n_test"] == 90).all()
    assert (table["interval"] == "6 donors").all()
    assert score(table, "X_true", "kNN") == 1.0
    assert score(table, "X_true", "kNN", "macro_f1_low") == 1.0
    assert score(table, "X_noise", "kNN") == pytest.approx(1 / 3, abs=0.15)
    assert score(table, "PCA-50", "kNN, labels shuffled") == pytest.approx(1 / 3, abs=0.15)
    assert score(table, "3,000 genes", "logistic regression") > 0.9
    assert score(table, "3,000 genes", "logistic regression", "lead") == 0
    assert score(table, "none", "majority", "accuracy") <= 0.4
    assert (table["macro_f1_low"] <= table["macro_f1"]).all()
    assert (table["macro_f1"] <= table["macro_f1_high"]).all()
    assert (table["kind"] == ["baseline"] * 7 + ["scmix"] * 2 + ["yours"] * 4).all()
    made = adata.uns["evaluation"]
    quality = made["embedding"].set_index("representation")
    assert list(quality.index) == ["PCA-50", "untrained encoder", "tiny", "X_true", "X_noise"]
    assert quality.loc["X_true", "knn_purity"] == 1.0
    assert quality.loc["X_true", "silhouette"] > 0.99
    assert quality.loc["X_true", "graph_connectivity"] == 1.0
    assert abs(quality.loc["X_noise", "silhouette"]) < 0.1
    assert quality["note"].str.fullmatch("not installed: (igraph, )?scib_metrics").all()
    assert quality["clisi"].isna().all()
    assert len(made["seeds"]) == 2 * len(table)
    means = made["seeds"].groupby(["representation", "classifier"], sort=False)["macro_f1"].mean()
    np.testing.assert_allclose(means.loc[named(table)], table["macro_f1"])


def test_same_seed_same_table_and_files_keep_it(make_cells, tiny, tmp_path):
    first, again = make_cells(60), make_cells(60)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    tables = [evaluate(adata, tiny, seeds=[3]) for adata in (first, again)]
    pd.testing.assert_frame_equal(*tables)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    first.write_h5ad(tmp_path / "one.h5ad")
    first.write_zarr(tmp_path / "one.zarr")
    for read in (ad.read_h5ad(tmp_path / "one.h5ad"), ad.read_zarr(tmp_path / "one.zarr")):
        kept = read.uns["evaluation"]
        for name in ("table", "seeds", "embedding", "left_out"):
            pd.testing.assert_frame_equal(
                kept[name].reset_index(drop=True),
                first.uns["evaluation"][name],
                check_dtype=False,
                check_column_type=False,
            )
        assert kept["params"]["model_sha256"] == tiny.sha256
        scmix.pl.evaluation(read, return_fig=True)
    other = evaluate(make_cells(60), tiny, seeds=[4])
    assert not other["macro_f1"].equals(tables[0]["macro_f1"])


def test_between_species_in_both_directions(make_cells, tiny):
    human, mouse = make_cells(60, n_donors=3), make_cells(45, "mouse", seed=1)
    adata = ad.concat([human, mouse], join="outer", fill_value=0)
    labels = adata.obs["cell_type"].astype(str).to_numpy().copy()
    labels[:5] = "human only"
    adata.obs["cell_type"] = pd.Categorical(labels)
    with pytest.warns(UserWarning, match="in one of the species and are left out: human only"):
        table = evaluate(adata, tiny, species_key="species", seeds=[0])
    there = table[table["split"] == "human to mouse"]
    back = table[table["split"] == "mouse to human"]
    assert len(there) == len(back) == len(table) / 2
    assert set(there["n_test"]) == {45}
    assert set(back["n_test"]) == {55}
    for part in (there, back):
        assert score(part, "3,000 genes", "logistic regression") > 0.85
        assert score(part, "PCA of orthologues", "kNN") > 0.85
        assert {"tiny, centred by species", "untrained encoder"} <= set(part["representation"])
    quality = adata.uns["evaluation"]["embedding"].set_index("representation")
    assert 0 <= quality.loc["tiny", "species_mixing"] <= 1
    left_out = adata.uns["evaluation"]["left_out"]
    assert left_out.to_dict("list") == {"type": ["human only"], "n_cells": [5]}


def test_fine_tuned_row(make_cells, tiny):
    adata = make_cells(60, signal=20.0)
    table = evaluate(
        adata, tiny, groups="donor", seeds=[0], n_splits=2, fine_tune={"epochs": 0, "n_genes": 60}
    )
    assert score(table, "tiny, fine-tuned", "classifier") > score(table, "none", "majority")
    assert np.isfinite(score(table, "tiny, fine-tuned", "classifier", "ece"))
    assert adata.uns["evaluation"]["params"]["fine_tune"] == {"epochs": "0", "n_genes": "60"}


def test_missing_packages_are_named_and_installed_ones_are_called(
    make_cells, tiny, monkeypatch, tmp_path
):
    from scmix.tl._evaluation import other_packages

    found = {"celltypist"}
    monkeypatch.setattr(other_packages, "find_spec", lambda name: name in found or None)
    fake = ModuleType("celltypist")
    asked = []

    def train(known, labels, **options):
        asked.append((list(known.obs[labels]), float(np.expm1(known.X.toarray()).sum(axis=1)[0])))
        return sorted(set(known.obs[labels]))

    class Found:
        def __init__(self, n_cells, names):
            self.probability_matrix = pd.DataFrame(
                np.tile([1.0, 3.0, 0.0], (n_cells, 1)), columns=names
            )

    fake.train = train
    fake.annotate = lambda test, model: Found(test.n_obs, model)
    monkeypatch.setitem(sys.modules, "celltypist", fake)
    adata = make_cells(60)
    table = evaluate(adata, tiny, others=["celltypist", "SingleR", "scANVI"], seeds=[0])
    last = table.tail(3)
    assert last["classifier"].tolist() == ["CellTypist", "SingleR", "scANVI"]
    assert last["note"].tolist() == [
        "",
        "not installed: pip install singler scranpy",
        "not installed: pip install scvi-tools",
    ]
    assert last["macro_f1"].isna().tolist() == [False, True, True]
    assert len(asked) == 3
    assert asked[0][1] == pytest.approx(10_000, rel=1e-4)
    assert len(asked[0][0]) == 40
    # "beta" always: the second of the names in alphabetical order, the first category
    assert score(table, "genes", "CellTypist", "accuracy") == pytest.approx(1 / 3)
    assert score(table, "genes", "CellTypist", "brier") == pytest.approx(
        ((0.25**2 + 0.25**2) + (0.75**2 + 0.75**2) + (1 + 0.25**2 + 0.75**2)) / 3
    )


def test_labels_and_donors_that_cannot_be_used(make_cells, tiny):
    adata = make_cells(40)
    adata.obs["one"] = "x"
    adata.obs["holes"] = np.where(np.arange(40) < 4, np.nan, 1.0)
    adata.obs["reserved"] = np.where(np.arange(40) < 9, "Unknown", "T cell")
    adata.obs["reserved"] = pd.Categorical(adata.obs["reserved"])
    adata.obsm["X_nan"] = np.full((40, 2), np.nan)
    before = set(adata.uns)
    for error, message, key, options in [
        (MissingKeyError, "no column 'cell_typ' in adata.obs", "cell_typ", {}),
        (InputError, "Found 1 classes", "one", {}),
        (InputError, "which means that a cell has none", "reserved", {}),
        (InputError, r'4 cells have no value in obs\["holes"\]', "cell_type", {"groups": "holes"}),
        (InputError, "the labels themselves", "cell_type", {"groups": "cell_type"}),
        (MissingKeyError, "no column 'patient'", "cell_type", {"groups": "patient"}),
        (MissingKeyError, "no 'X_mine' in adata.obsm", "cell_type", {"use_rep": "X_mine"}),
        (InputError, "all values are NaN", "cell_type", {"use_rep": "X_nan"}),
        (InputError, "n_splits=1", "cell_type", {"n_splits": 1}),
        (InputError, "different numbers", "cell_type", {"seeds": [1, 1]}),
        (InputError, "expected some of CellTypist", "cell_type", {"others": ["scPred"]}),
        (InputError, "0 types with at least 30 cells", "cell_type", {"n_splits": 30}),
    ]:
        with pytest.raises(error, match=message):
            scmix.tl.evaluate(adata, key, model=tiny, **options)
    assert set(adata.uns) == before


def test_cells_and_types_that_are_left_out_are_said(make_cells, tiny):
    adata = make_cells(60)
    labels = adata.obs["cell_type"].cat.add_categories(["NK/T", "unused"])
    labels.iloc[:2] = "NK/T"
    labels.iloc[2:6] = None
    adata.obs["cell_type"] = labels
    adata.obs["one_donor"] = "d"
    adata.obs_names = ["twin", "twin", *adata.obs_names[2:]]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        table = evaluate(adata, tiny, seeds=[0], groups="one_donor")
    texts = " ".join(str(warning.message) for warning in said)
    assert 'have no label in obs["cell_type"]' in texts
    assert "1 of 4 types have fewer than 3 cells and are left out: NK/T" in texts
    assert "one value only" in texts
    assert "copies of cells" in texts
    assert set(table["n_test"]) == {54}
    assert set(table["interval"]) == {"54 cells"}
    assert set(table["split"]) == {"3-fold"}


def test_a_key_that_scmix_did_not_write_is_kept(make_cells, tiny):
    adata = make_cells(40)
    adata.uns["evaluation"] = "mine"
    with pytest.raises(InputError, match=r'uns\["evaluation"\] exists already'):
        evaluate(adata, tiny)
    assert adata.uns["evaluation"] == "mine"
