import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scmix
from scmix import _slots, tl
from scmix._errors import InputError, MissingKeyError
from scmix.classifiers import CellClassifier
from scmix.classifiers._heads import Head
from scmix.classifiers._seen import fingerprints
from scmix.statistics import (
    Calibration,
    class_centroids,
    conformal_sets,
    conformal_threshold,
    fit_temperature,
    nearest_centroid,
    probabilities,
    strangeness,
)

EXACT = {"device": "cpu", "dtype": "float32"}
CLASSES = np.array(["zeta", "alpha", "mid"])
few = settings(max_examples=6, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def _no_bars():
    scmix.settings.progress = False


@pytest.fixture
def query(make_adata):
    return make_adata("human", n_obs=24, seed=1)


@pytest.fixture
def classifier(tiny, make_adata):
    return make_classifier(tiny, make_adata("human", n_obs=160))


def make_classifier(model, cells, classes=CLASSES, species=("human",)):
    """Heads at random; half of the cells are "training", half calibrate, with drawn labels."""
    rng = np.random.default_rng(0)
    keys = {"cell_type": classes, "organ": np.array(["gut", "skin"])}
    made = CellClassifier(
        model=model,
        classes=keys,
        heads={},
        pool="mean",
        hidden_layer=1,
        n_genes=100,
        calibration={},
        training={"species": list(species)},
        history=pd.DataFrame(),
        cells=np.empty(0, np.uint64),
    )
    sequences = sequences_of(made, cells)
    _, vectors = made.predict(sequences, **EXACT)
    for key, names in keys.items():  # logits of mean 0 and standard deviation 2
        weight = rng.normal(size=(len(names), vectors.shape[1]))
        weight *= 2 / (vectors @ weight.T).std(axis=0)[:, None]
        bias = -vectors.mean(axis=0) @ weight.T
        made.heads[key] = Head(weight.astype(np.float32), bias.astype(np.float32), None)
    logits, _ = made.predict(sequences, **EXACT)
    half = len(cells) // 2
    for key, names in keys.items():
        chances = probabilities(logits[key], 1.5)
        drawn = (rng.random((len(cells), 1)) > chances.cumsum(axis=1)).sum(axis=1)
        labels = np.minimum(drawn, len(names) - 1).astype(np.int32)
        centroids = class_centroids(vectors[:half], labels[:half], len(names))
        made.calibration[key] = Calibration(
            fit_temperature(logits[key][half:], labels[half:]),
            logits[key][half:],
            labels[half:],
            nearest_centroid(vectors[half:], centroids)[1],
            centroids,
        )
    return made


def sequences_of(classifier, adata, species="human"):
    blocks = _slots.iter_sequences(
        adata, classifier.model.vocabulary, species=species, n_genes=classifier.n_genes
    )
    block = next(iter(blocks))
    return classifier.prepare(block.sequences, block.species)


def annotate(adata, classifier, **options):
    options = {"label_key": "cell_type", **EXACT, **options}
    return tl.annotate(adata, classifier, copy=True, **options)


def test_labels_are_the_calibrated_argmax(query, classifier):
    out = annotate(query, classifier)
    logits, _ = classifier.predict(sequences_of(classifier, query), **EXACT)
    chances = probabilities(logits["cell_type"], classifier.calibration["cell_type"].temperature)
    np.testing.assert_allclose(out.obsm["scmix_label_probabilities"], chances, atol=1e-5)
    assert list(out.obs["scmix_label"]) == list(CLASSES[chances.argmax(axis=1)])
    np.testing.assert_allclose(out.obs["scmix_label_confidence"], chances.max(axis=1), atol=1e-5)
    assert list(out.obs["scmix_label"].cat.categories) == ["zeta", "alpha", "mid"]
    assert list(out.uns["scmix_label"]["classes"]) == ["zeta", "alpha", "mid"]
    assert out.uns["scmix_label"]["caveat"] == ""
    assert set(out.obs["scmix_label"]) == set(CLASSES)  # the test can tell them apart


def test_empty_conformal_sets_are_unknown(query, classifier):
    out = annotate(query, classifier, reject="conformal", alpha=0.6)
    kept = classifier.calibration["cell_type"]
    threshold = conformal_threshold(kept.probabilities, kept.labels, 0.6)
    sets = conformal_sets(out.obsm["scmix_label_probabilities"], threshold)
    unknown = out.obs["scmix_label"] == "unknown"
    np.testing.assert_array_equal(unknown, ~sets.any(axis=1))
    assert 0 < unknown.sum() < query.n_obs
    assert list(out.obs["scmix_label"].cat.categories) == [*CLASSES, "unknown"]
    assert out.uns["scmix_label"]["n_unknown"] == unknown.sum()
    assert out.uns["scmix_label"]["thresholds"] == {"reject": pytest.approx(threshold)}
    plain = annotate(query, classifier)
    known = ~unknown.to_numpy()
    assert list(out.obs["scmix_label"][known]) == list(plain.obs["scmix_label"][known])
    np.testing.assert_array_equal(
        out.obs["scmix_label_confidence"], plain.obs["scmix_label_confidence"]
    )


def test_far_cells_are_unknown(query, classifier):
    out = annotate(query, classifier, reject="distance", alpha=0.5)
    kept = classifier.calibration["cell_type"]
    logits, vectors = classifier.predict(sequences_of(classifier, query), **EXACT)
    nearest = nearest_centroid(vectors, kept.centroids)[1]
    distances = strangeness(kept, logits["cell_type"], nearest)
    np.testing.assert_allclose(out.obs["scmix_label_distance"], distances, atol=1e-3)
    threshold = np.sort(strangeness(kept, kept.logits, kept.distances))[40]  # ceil(81 / 2) of 80
    assert out.uns["scmix_label"]["thresholds"]["reject"] == pytest.approx(threshold)
    np.testing.assert_array_equal(out.obs["scmix_label"] == "unknown", distances > threshold)
    assert 0 < out.uns["scmix_label"]["n_unknown"] < query.n_obs


@pytest.mark.parametrize("sets", ["lac", "aps"])
@pytest.mark.parametrize("by_class", [False, True])
def test_sets_are_those_of_the_statistics(query, classifier, sets, by_class):
    out = annotate(query, classifier, sets=sets, by_class=by_class, alpha=0.3)
    kept = classifier.calibration["cell_type"]
    threshold = conformal_threshold(kept.probabilities, kept.labels, 0.3, sets, by_class=by_class)
    found = out.obsm["scmix_label_sets"]
    assert found.dtype == bool
    np.testing.assert_array_equal(
        found, conformal_sets(out.obsm["scmix_label_probabilities"], threshold, sets)
    )
    np.testing.assert_allclose(out.uns["scmix_label"]["thresholds"]["sets"], threshold)
    assert "unknown" not in out.obs["scmix_label"].cat.categories
    assert 0 < found.sum() < found.size


def test_known_cells_are_lost_as_often_as_asked(classifier, make_adata):
    """Cells drawn like the calibration's: about alpha of them are rejected, by distance."""
    new = make_adata("human", n_obs=160, seed=0)[80:].copy()  # the calibration cells themselves
    out = annotate(new, classifier, reject="distance", alpha=0.25)
    # ceil(81 x 0.75) = 61 of 80 are within
    assert out.uns["scmix_label"]["n_unknown"] == pytest.approx(19, abs=1)


@few
@given(seed=st.integers(0, 1000), budget=st.integers(1, 2000))
def test_order_company_and_batches_change_nothing(seed, budget, query, classifier):
    rows = np.random.default_rng(seed).permutation(query.n_obs)[:9]
    whole = annotate(query, classifier, reject="conformal", alpha=0.6)
    part = annotate(
        query[rows].copy(), classifier, reject="conformal", alpha=0.6, batch_tokens=budget
    )
    np.testing.assert_allclose(
        part.obsm["scmix_label_probabilities"],
        whole.obsm["scmix_label_probabilities"][rows],
        atol=1e-5,
    )
    assert list(part.obs["scmix_label"]) == list(whole.obs["scmix_label"].iloc[rows])


def test_cells_are_read_in_parts(query, classifier, monkeypatch):
    whole = annotate(query, classifier, reject="distance")
    monkeypatch.setattr("scmix.tl._predictions._CELLS_AT_ONCE", 5)
    original = _slots.iter_sequences
    monkeypatch.setattr(_slots, "iter_sequences", lambda *a, **k: original(*a, **k, block_cells=7))
    part = annotate(query, classifier, reject="distance")
    for column in ("scmix_label_confidence", "scmix_label_distance"):
        np.testing.assert_allclose(part.obs[column], whole.obs[column], atol=1e-3)


@pytest.mark.parametrize("kind", ["h5ad", "dask"])
def test_data_that_is_not_in_memory_gives_the_same(kind, query, classifier, tmp_path):
    expected = annotate(query, classifier).obsm["scmix_label_probabilities"]
    if kind == "dask":
        array = pytest.importorskip("dask.array")
        lazy = query.copy()
        lazy.X = array.from_array(query.X.toarray(), chunks=(5, -1))
    else:
        query.write_h5ad(tmp_path / "cells.h5ad")
        lazy = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    tl.annotate(lazy, classifier, label_key="cell_type", **EXACT)
    np.testing.assert_array_equal(lazy.obsm["scmix_label_probabilities"], expected)
    assert lazy.isbacked == (kind == "h5ad")


@pytest.mark.parametrize("file", ["h5ad", "zarr"])
def test_result_survives_writing_and_reading(file, query, classifier, clear, tmp_path):
    clear(query, cells=[3])
    options = {"sets": "aps", "by_class": True, "alpha": 0.3, "smooth": "cell_type"}
    with pytest.warns(UserWarning, match="1 of 24 cells have no"):
        tl.annotate(query, classifier, reject="distance", **options, **EXACT)
    getattr(query, f"write_{file}")(tmp_path / "cells")
    read = getattr(ad, f"read_{file}")(tmp_path / "cells")
    for key in ("cell_type", "organ"):
        name = f"scmix_label_{key}"
        assert list(read.obs[name].cat.categories) == list(query.obs[name].cat.categories)
        assert read.obs[name].isna().tolist() == [i == 3 for i in range(24)]
        for column in ("confidence", "distance"):
            np.testing.assert_array_equal(
                read.obs[f"{name}_{column}"], query.obs[f"{name}_{column}"]
            )
        for slot in ("probabilities", "sets"):
            np.testing.assert_array_equal(read.obsm[f"{name}_{slot}"], query.obsm[f"{name}_{slot}"])
        made, was = read.uns[name], query.uns[name]
        assert list(made["classes"]) == list(was["classes"])
        np.testing.assert_array_equal(made["thresholds"]["sets"], was["thresholds"]["sets"])
        assert {k: v for k, v in made["params"].items() if k != "sets"} == {
            k: v for k, v in was["params"].items() if k != "sets"
        }
    assert not read.obsm["scmix_label_organ_sets"][3].any()


def test_several_keys_in_one_pass_or_one_of_them(query, classifier):
    both = annotate(query, classifier, label_key=None)
    one = annotate(query, classifier, label_key="organ")
    assert list(both.obs["scmix_label_organ"]) == list(one.obs["scmix_label"])
    assert "scmix_label_cell_type" in both.obs
    assert "scmix_label" not in both.obs
    with pytest.raises(MissingKeyError, match="the classifier gives 'cell_type', 'organ'"):
        annotate(query, classifier, label_key="tissue")


def test_other_species_are_labelled_with_a_caveat(mouse, both, classifier):
    with pytest.warns(
        UserWarning, match="12 cells are mouse, the classifier was trained and"
    ) as said:
        out = annotate(mouse, classifier)
    assert {warning.filename for warning in said} == {__file__}
    assert out.obs["scmix_label"].notna().all()
    assert "no guarantee" in out.uns["scmix_label"]["caveat"]
    with pytest.warns(UserWarning, match="12 cells are mouse"):
        mixed = annotate(both, classifier, species_key="species")
    np.testing.assert_allclose(
        mixed.obsm["scmix_label_probabilities"][12:],
        out.obsm["scmix_label_probabilities"],
        atol=1e-5,
    )


def test_cells_of_the_training_are_said(query, classifier):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert annotate(query, classifier).uns["scmix_label"]["n_seen"] == 0
    marks, _ = fingerprints(sequences_of(classifier, query))
    object.__setattr__(classifier, "cells", np.unique(marks[:7]))
    query.obs_names = [f"renamed{i}" for i in range(query.n_obs)]
    with pytest.warns(UserWarning, match="calibrated on 7 of these 24 cells"):
        assert annotate(query, classifier).uns["scmix_label"]["n_seen"] == 7


def test_clusters_vote(query, classifier):
    plain = annotate(query, classifier, reject="conformal", alpha=0.6)
    chances = plain.obsm["scmix_label_probabilities"].astype(float)
    unknown = (plain.obs["scmix_label"] == "unknown").to_numpy()
    votes = np.column_stack([np.where(unknown[:, None], 0, chances), unknown])
    groups = np.arange(24) % 5
    query.obs["fine"] = pd.Categorical(groups)
    out = annotate(query, classifier, reject="conformal", alpha=0.6, smooth="fine")
    names = np.array([*CLASSES, "unknown"])
    for group in range(5):
        own = groups == group
        winner = names[votes[own].sum(axis=0).argmax()]
        assert set(out.obs["scmix_label"][own]) == {winner}
        column = chances[own].mean(axis=0)
        expected = column.max() if winner == "unknown" else column[list(names).index(winner)]
        np.testing.assert_allclose(out.obs["scmix_label_confidence"][own], expected, atol=1e-5)
    np.testing.assert_array_equal(
        out.obsm["scmix_label_probabilities"], plain.obsm["scmix_label_probabilities"]
    )
    assert (out.obs["scmix_label"].astype(str) != plain.obs["scmix_label"].astype(str)).any()
    assert out.uns["scmix_label"]["params"]["smooth"] == "fine"


@pytest.mark.filterwarnings("error::scipy.sparse.SparseEfficiencyWarning")
def test_neighbours_vote(query, classifier):
    query.obsm["X_any"] = np.random.default_rng(0).normal(size=(24, 4))
    sc.pp.neighbors(query, n_neighbors=6, use_rep="X_any")
    sc.pp.neighbors(query, n_neighbors=3, use_rep="X_any", key_added="other")
    chances = annotate(query, classifier).obsm["scmix_label_probabilities"]
    for smooth, graph in ((True, "connectivities"), ("other", "other_connectivities")):
        out = annotate(query, classifier, smooth=smooth)
        weights = query.obsp[graph].toarray()
        np.fill_diagonal(weights, 1)
        means = weights @ chances / weights.sum(axis=1, keepdims=True)
        assert list(out.obs["scmix_label"]) == list(CLASSES[means.argmax(axis=1)])
        np.testing.assert_allclose(out.obs["scmix_label_confidence"], means.max(axis=1), atol=1e-5)


def test_cells_alone_keep_their_label(query, classifier, clear):
    clear(query, cells=[2])
    query.obs["fine"] = pd.Categorical([None] * 12 + ["a"] * 12)
    with pytest.warns(UserWarning, match="no count"):
        plain = annotate(query, classifier).obs["scmix_label"]
    with pytest.warns(UserWarning, match="no count"):
        out = annotate(query, classifier, smooth="fine").obs["scmix_label"]
    assert list(out[:2]) == list(plain[:2])
    assert out.isna().tolist() == [i == 2 for i in range(24)]
    assert out[12:].nunique() == 1


def test_rerun_leaves_nothing_stale(query, classifier, unchanged):
    options = {"label_key": "cell_type", **EXACT}
    tl.annotate(query, classifier, reject="distance", sets="lac", **options)
    assert {"scmix_label_distance"} <= set(query.obs)
    tl.annotate(query, classifier, **options)
    assert "scmix_label_distance" not in query.obs
    assert "scmix_label_sets" not in query.obsm
    assert "reject" not in query.uns["scmix_label"]["params"]
    query.obs["mine_distance"] = 1.0
    with unchanged(query), pytest.raises(InputError, match=r"mine_distance.*exists already"):
        tl.annotate(query, classifier, key_added="mine", **options)
    tl.annotate(query, classifier, key_added="mine", overwrite=True, **options)
    assert (query.obs["mine_distance"] == 1.0).all()


def test_the_same_call_gives_the_same(query, classifier):
    first, again = (annotate(query, classifier, reject="conformal") for _ in range(2))
    pd.testing.assert_frame_equal(first.obs, again.obs)


def test_too_few_calibration_cells_are_said(query, classifier):
    kept = classifier.calibration["cell_type"]
    rows = np.r_[np.flatnonzero(kept.labels == 0)[:3], np.flatnonzero(kept.labels == 1)[:12]]
    classifier.calibration["cell_type"] = Calibration(
        kept.temperature, kept.logits[rows], kept.labels[rows]
    )
    message = r"few cells of zeta \(3\), mid \(0\); alpha=0.1 needs 9"
    with pytest.warns(UserWarning, match=message):
        out = annotate(query, classifier, sets="lac", by_class=True)
    assert out.obsm["scmix_label_sets"][:, [0, 2]].all()
    with pytest.warns(UserWarning, match="calibrated on 15 cells; alpha=0.02 needs 49"):
        annotate(query, classifier, reject="conformal", alpha=0.02)


def test_a_classifier_without_calibration(query, classifier):
    del classifier.calibration["cell_type"]
    with pytest.warns(UserWarning, match="was not calibrated for 'cell_type'"):
        out = annotate(query, classifier)
    logits, _ = classifier.predict(sequences_of(classifier, query), **EXACT)
    np.testing.assert_allclose(
        out.obsm["scmix_label_probabilities"], probabilities(logits["cell_type"]), atol=1e-5
    )
    for options in ({"reject": "conformal"}, {"reject": "distance"}, {"sets": "lac"}):
        with pytest.raises(InputError, match="no calibration of 'cell_type'"):
            annotate(query, classifier, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reject": "aps"}, InputError, "reject='aps'.*pass sets='aps'"),
        ({"reject": "msp"}, InputError, "reject='msp'; expected None or one of"),
        ({"sets": "raps"}, InputError, "sets='raps'"),
        ({"by_class": True}, InputError, "by_class=True without"),
        ({"reject": "conformal", "alpha": 1.5}, InputError, "alpha=1.5"),
        ({"smooth": True}, MissingKeyError, "Call scanpy.pp.neighbors first"),
        ({"smooth": "leiden"}, MissingKeyError, "smooth='leiden'"),
        ({"layer": "raw"}, MissingKeyError, "no layer 'raw'"),
        ({"key_added": "cell_type"}, InputError, "exists already"),
    ],
)
def test_bad_options_are_named_and_nothing_is_written(
    options, error, message, query, classifier, unchanged
):
    with unchanged(query), pytest.raises(error, match=message):
        tl.annotate(query, classifier, **{"label_key": "cell_type", **EXACT, **options})


def test_log_values_are_refused(query, classifier, unchanged):
    query.layers["counts"] = query.X
    query.X = sp.csr_matrix(np.log1p(query.X.toarray()))
    with unchanged(query), pytest.raises(InputError, match='Pass layer="counts"'):
        tl.annotate(query, classifier, label_key="cell_type", **EXACT)
    assert annotate(query, classifier, layer="counts").obs["scmix_label"].notna().all()


def test_what_is_stale_goes_with_the_write_or_not_at_all(query, unchanged):
    from scmix import _slots

    query.obs["old"] = 1.0
    made = {("uns", "label"): _slots.params()}
    with unchanged(query), pytest.raises(KeyError, match="missing"):
        _slots.write(query, made, stale=[("obs", "old"), ("obsm", "missing")])
    _slots.write(query, made, stale=[("obs", "old")])
    assert "old" not in query.obs


def test_cells_unlike_those_of_the_calibration_are_told(query, classifier, monkeypatch):
    kept = classifier.calibration["cell_type"]
    known = strangeness(kept, kept.logits, kept.distances)
    from scmix.tl._far import share_far

    assert share_far(kept, known) <= 0.1
    assert share_far(kept, np.append(known + 1e3, np.nan)) == 1.0
    monkeypatch.setattr("scmix.tl._annotate.share_far", lambda *_: 0.4)
    monkeypatch.setattr("scmix.tl._far._FEWEST", 2)
    with pytest.warns(UserWarning, match="40% of the cells lie farther from all types of"):
        found = scmix.tl.annotate(query, classifier, label_key="cell_type", copy=True)
    assert found.uns["scmix_label"]["share_far"] == 0.4
    assert "scmix_label_distance" not in found.obs
