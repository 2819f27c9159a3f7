import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import scmix
from scmix import checkpoints, metrics, tl
from scmix._errors import GeneIdError, InputError, MissingKeyError
from scmix.tl import _spool
from scmix.tl._label_methods import by_centroids, by_neighbours, group_means
from scmix.tl._two_sides import with_pooler

EXACT = {"device": "cpu", "dtype": "float32"}
METHODS = ("knn", "centroid", "logistic")
few = settings(max_examples=8, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def _no_bars():
    scmix.settings.progress = False


def cells(n_cells, seed, species="human", shift=0.0):
    """Cells with an embedding in which three types are well apart."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n_cells) % 3
    vectors = 3 * np.eye(6)[codes] + rng.normal(scale=0.5, size=(n_cells, 6)) + shift
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(codes, ["zeta", "alpha", "mid"]),
            "species": species,
        },
        index=[f"{species}{seed}-{i}" for i in range(n_cells)],
    )
    return ad.AnnData(obs=obs, obsm={"X_any": vectors.astype(np.float32)})


def labelled(query, reference, **options):
    out = tl.transfer_labels(query, reference, "cell_type", use_rep="X_any", copy=True, **options)
    return out.obs["scmix_label"]


@pytest.mark.parametrize("method", METHODS)
def test_well_separated_types_are_found(method):
    query, reference = cells(60, 1), cells(90, 2)
    tl.transfer_labels(query, reference, "cell_type", use_rep="X_any", method=method)
    assert (query.obs["scmix_label"].astype(str) == query.obs["cell_type"].astype(str)).all()
    chances = query.obsm["scmix_label_probabilities"]
    assert chances.dtype == query.obs["scmix_label_confidence"].dtype == np.float32
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(query.obs["scmix_label_confidence"], chances.max(axis=1))


def test_neighbours_vote_as_in_the_metric():
    rng = np.random.default_rng(0)
    known, asked = rng.normal(size=(80, 4)), rng.normal(size=(50, 4))
    codes = rng.integers(0, 3, 80)
    shares, found = by_neighbours(known, codes, 3, k=4, metric="cosine")(asked)
    expected = metrics.knn_transfer(known, codes, asked, k=4)
    np.testing.assert_array_equal(found.astype(str), expected)
    assert set(np.unique(shares)) <= {0, 0.25, 0.5, 0.75, 1}


def test_centroids_by_hand():
    known = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 5.0]])
    asked = np.array([[1.0, 0.2], [1.0, 1.1]])
    label = by_centroids(known, np.array([0, 0, 1, 1]), 2, metric="euclidean")
    chances, found = label(asked)  # centroids (2, 0) and (0, 3)
    np.testing.assert_array_equal(found, [0, 0])
    away = np.hypot([1.0, 1.0], [0.2, 1.1]) - np.hypot([1.0, 1.0], [2.8, 1.9])
    ratio = np.log(chances[:, 0] / chances[:, 1]) / away
    assert ratio[0] == pytest.approx(ratio[1])  # one temperature
    assert ratio[0] < 0


def test_confidence_of_centroids_is_calibrated_on_the_reference():
    rng = np.random.default_rng(0)

    def blurred(n_cells):
        codes = rng.integers(0, 4, n_cells)
        return np.eye(30)[codes] + rng.normal(scale=0.35, size=(n_cells, 30)), codes

    (known, codes), (asked, truth) = blurred(300), blurred(2000)
    chances, found = by_centroids(known, codes, 4, metric="cosine")(asked)
    right = (found == truth).mean()
    assert 0.6 < right < 0.98
    assert chances.max(axis=1).mean() == pytest.approx(right, abs=0.06)


def test_regression_is_that_of_sklearn():
    query, reference = cells(30, 1), cells(45, 2)
    tl.transfer_labels(query, reference, "cell_type", use_rep="X_any", method="logistic")
    known, asked = reference.obsm["X_any"], query.obsm["X_any"]
    middle, spread = known.mean(axis=0), known.std(axis=0)
    model = LogisticRegression(max_iter=2000).fit(
        (known - middle) / spread, reference.obs["cell_type"].cat.codes
    )
    np.testing.assert_allclose(
        query.obsm["scmix_label_probabilities"],
        model.predict_proba((asked - middle) / spread),
        atol=1e-3,
    )


def test_categories_keep_the_order_of_the_reference():
    reference = cells(30, 2)
    reference.obs["cell_type"] = reference.obs["cell_type"].cat.add_categories("nobody")
    query = cells(9, 1)
    tl.transfer_labels(query, reference, "cell_type", use_rep="X_any")
    expected = ["zeta", "alpha", "mid"]
    assert list(query.obs["scmix_label"].cat.categories) == expected
    assert list(query.uns["scmix_label"]["classes"]) == expected
    assert list(query.uns["scmix_label"]["n_reference"]) == [10, 10, 10]


@pytest.mark.parametrize("kind", [str, "category", int, bool])
def test_labels_of_any_kind(kind):
    reference, query = cells(30, 2), cells(9, 1)
    codes = reference.obs["cell_type"].cat.codes
    values = codes.map({0: "b", 1: "a", 2: "c"}) if kind in (str, "category") else codes
    reference.obs["cell_type"] = values.astype(kind)
    tl.transfer_labels(query, reference, "cell_type", use_rep="X_any")
    names = {str: "abc", "category": "abc", int: "012", bool: ["False", "True"]}[kind]
    assert list(query.obs["scmix_label"].cat.categories) == list(names)


@few
@given(seed=st.integers(0, 1000), method=st.sampled_from(METHODS))
def test_order_of_cells_and_company_change_nothing(seed, method):
    rng = np.random.default_rng(seed)
    query, reference = cells(20, 1), cells(60, 2)
    whole = labelled(query, reference, method=method)
    asked, known = rng.permutation(20)[:7], rng.permutation(60)
    part = labelled(query[asked].copy(), reference[known].copy(), method=method)
    assert list(part) == list(whole.iloc[asked])


def test_centring_by_data_set_and_by_species():
    human, mouse = cells(60, 1), cells(90, 2, "mouse", shift=4 * np.eye(6)[1])
    truth = human.obs["cell_type"].astype(str)
    plain = (labelled(human, mouse, metric="euclidean").astype(str) == truth).mean()
    for center in ("dataset", "species"):
        moved = labelled(human, mouse, center=center, metric="euclidean", species_key="species")
        assert (moved.astype(str) == truth).mean() > plain
    mixed = ad.concat([human, mouse])  # one data set of both: only the species sets them apart
    third = cells(30, 3)
    found = labelled(third, mixed, center="species", metric="euclidean", species_key="species")
    assert (found.astype(str) == third.obs["cell_type"].astype(str)).all()


def test_centring_by_hand():
    vectors = np.array([[1.0], [3.0], [10.0], [np.nan], [20.0], [np.nan]])
    groups = np.array([0, 0, 1, 1, 1, 2])
    means = group_means([vectors[:1], vectors[1:3], vectors[3:]], groups, 1)
    np.testing.assert_array_equal(means[:, 0], [2, 15, 0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("center", [None, "dataset"])
def test_cells_are_labelled_some_at_a_time(method, center, monkeypatch):
    query, reference = cells(50, 1), cells(40, 2)
    query.obsm["X_any"][7] = np.nan
    options = {"method": method, "center": center, "use_rep": "X_any", "copy": True}
    whole = tl.transfer_labels(query, reference, "cell_type", **options)
    monkeypatch.setattr(_spool, "CELLS_AT_ONCE", 9)
    parts = tl.transfer_labels(query, reference, "cell_type", **options)
    assert list(parts.obs["scmix_label"]) == list(whole.obs["scmix_label"])
    key = "scmix_label_probabilities"
    np.testing.assert_allclose(parts.obsm[key], whole.obsm[key], atol=1e-6)
    assert np.isnan(parts.obsm[key][7]).all()


def test_embedding_is_computed_as_by_embed(human, mouse, tiny, unchanged):
    with unchanged(mouse):
        tl.transfer_labels(human, mouse, "cell_type", model=tiny, **EXACT)
    apart = [tl.embed(one, tiny, copy=True, **EXACT) for one in (human, mouse)]
    tl.transfer_labels(*apart, "cell_type", use_rep="X_scmix")
    assert list(human.obs["scmix_label"]) == list(apart[0].obs["scmix_label"])
    assert set(human.obsm) == {"scmix_label_probabilities"}
    made = human.uns["scmix_label"]["params"]
    assert made["model_sha256"] == tiny.sha256
    assert (made["method"], made["k"], made["hidden_layer"]) == ("knn", 5, -2)


def test_both_directions_of_real_cells():
    """Human and mouse pancreas: better than naming the commonest type, either way."""
    cells = scmix.datasets.pancreas()
    kinds = ["alpha", "beta", "macrophage"]
    rows = cells.obs[cells.obs["cell_type"].isin(kinds)].groupby(
        ["species", "cell_type"], observed=True
    )
    cells = cells[np.concatenate([part.index[:6] for _, part in rows])]
    human, mouse = (
        cells[cells.obs["species"] == name, cells.var["species"] == name].copy()
        for name in ("human", "mouse")
    )
    for query, reference in ((human, mouse), (mouse, human)):
        tl.transfer_labels(query, reference, "cell_type", center="species", n_genes=128)
        truth = query.obs["cell_type"].astype(str)
        scores = metrics.classification_scores(truth, query.obs["scmix_label"].astype(str))
        assert scores["accuracy"] > scores["majority_rate"] + 0.1


def test_published_read_out_is_that_of_transformers(human, mouse, tiny, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model = with_pooler(tiny, 3)
    checkpoints.save(
        tmp_path / "m", model.encoder, model.vocabulary,
        recipe={}, training_data=[], licence="CC0-1.0",
    )  # fmt: skip
    bert = transformers.BertModel.from_pretrained(tmp_path / "m").eval()
    cell = human[[4]].copy()
    blocks = scmix._slots.iter_sequences(cell, tiny.vocabulary, species="human", n_genes=255)
    tokens = [tiny.vocabulary.special["<human>"], *next(iter(blocks)).sequences[0]]
    with torch.no_grad():
        expected = bert(torch.tensor([tokens])).pooler_output.numpy()
    tl.embed(cell, model, pool="pooler", **EXACT)
    np.testing.assert_allclose(cell.obsm["X_scmix"], expected, atol=1e-5)
    options = {"pool": "published", "seed": 3, "key_added": "named"}
    tl.transfer_labels(human, mouse, "cell_type", model=tiny, **options, **EXACT)
    pooled = [tl.embed(one, model, pool="pooler", copy=True, **EXACT) for one in (human, mouse)]
    tl.transfer_labels(*pooled, "cell_type", use_rep="X_scmix")
    assert list(human.obs["named"]) == list(pooled[0].obs["scmix_label"])
    made = human.uns["named"]["params"]
    assert (made["pool"], made["pooler"], made["seed"]) == ("published", "random", 3)


def test_published_pooler_depends_on_the_seed_and_on_nothing_else(tiny):
    weights = [with_pooler(tiny, seed).encoder.state_dict() for seed in (0, 0, 1)]
    name = "bert.pooler.dense.weight"
    assert (weights[0][name] == weights[1][name]).all()
    assert not (weights[0][name] == weights[2][name]).all()
    assert not weights[0]["bert.pooler.dense.bias"].any()
    for key, value in tiny.encoder.state_dict().items():
        assert (weights[2][key] == value).all()
    own = with_pooler(tiny, 0)
    assert with_pooler(own, 1) is own  # a trained pooler is never replaced


@pytest.mark.parametrize("file", ["h5ad", "zarr"])
def test_result_survives_writing_and_reading(file, tmp_path):
    query, reference = cells(12, 1), cells(30, 2)
    query.obsm["X_any"][4] = np.nan
    with pytest.warns(UserWarning, match="1 of 12 cells have no"):
        tl.transfer_labels(query, reference, "cell_type", use_rep="X_any")
    getattr(query, f"write_{file}")(tmp_path / "cells")
    read = getattr(ad, f"read_{file}")(tmp_path / "cells")
    assert read.obs["scmix_label"].isna().tolist() == [i == 4 for i in range(12)]
    assert list(read.obs["scmix_label"].cat.categories) == ["zeta", "alpha", "mid"]
    for slot, key in (("obs", "scmix_label_confidence"), ("obsm", "scmix_label_probabilities")):
        np.testing.assert_array_equal(getattr(read, slot)[key], getattr(query, slot)[key])
    assert dict(read.uns["scmix_label"]["params"]) == query.uns["scmix_label"]["params"]


def test_backed_query_and_reference(human, mouse, tiny, tmp_path):
    expected = tl.transfer_labels(human, mouse, "cell_type", model=tiny, copy=True, **EXACT).obsm[
        "scmix_label_probabilities"
    ]
    lazy = []
    for one in (human, mouse):
        one.write_h5ad(tmp_path / f"{one.obs_names[0]}.h5ad")
        lazy.append(ad.read_h5ad(tmp_path / f"{one.obs_names[0]}.h5ad", backed="r"))
    tl.transfer_labels(*lazy, "cell_type", model=tiny, **EXACT)
    np.testing.assert_array_equal(lazy[0].obsm["scmix_label_probabilities"], expected)


def test_a_key_is_used_in_the_object_that_has_it(human, mouse, tiny):
    expected = labels_of(human, mouse, tiny)
    human.layers["raw"] = human.X
    human.X = sp.csr_matrix(human.shape, dtype=np.float32)
    human.var["ids"] = human.var_names
    human.var_names = [f"gene{i}" for i in range(human.n_vars)]
    assert labels_of(human, mouse, tiny, layer="raw", gene_ids="ids") == expected


def labels_of(query, reference, model, **options):
    out = tl.transfer_labels(
        query, reference, "cell_type", model=model, copy=True, **options, **EXACT
    )
    return list(out.obs["scmix_label"])


def test_cells_without_a_label_are_left_out_and_said():
    query, reference = cells(12, 1), cells(30, 2)
    whole = labelled(query, reference[5:].copy())
    reference.obs.loc[reference.obs_names[:5], "cell_type"] = None
    with pytest.warns(UserWarning, match="5 of 30 cells of the reference"):
        part = labelled(query, reference)
    assert list(part) == list(whole)


def test_cells_in_both_objects_are_said():
    both = cells(30, 2)
    with pytest.warns(UserWarning, match=r"12 of 12 cells have the name .*'human2-0'"):
        labelled(both[:12].copy(), both)
    query, reference = cells(12, 1), cells(30, 2)
    for one in (query, reference):
        one.obs_names = [str(i) for i in range(one.n_obs)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labelled(query, reference)  # running numbers say nothing


def test_reruns_and_other_peoples_keys():
    query, reference = cells(12, 1), cells(30, 2)
    tl.transfer_labels(query, reference, "cell_type", use_rep="X_any")
    tl.transfer_labels(query, reference, "cell_type", use_rep="X_any", method="centroid")
    assert query.uns["scmix_label"]["params"]["method"] == "centroid"
    assert "k" not in query.uns["scmix_label"]["params"]
    for key in ("cell_type", "mine"):
        query.obs["mine_confidence"] = 1.0
        with pytest.raises(InputError, match="exists already"):
            tl.transfer_labels(query, reference, "cell_type", use_rep="X_any", key_added=key)
    tl.transfer_labels(
        query, reference, "cell_type", use_rep="X_any", key_added="mine", overwrite=True
    )
    assert "mine" in query.obs


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "svm"}, InputError, "method='svm'; expected 'knn'"),
        ({"k": 0}, InputError, "k=0"),
        ({"metric": "cosin"}, InputError, "metric='cosin'"),
        ({"center": "donor"}, InputError, "center='donor'"),
        ({"use_rep": "X_an"}, MissingKeyError, "Did you mean 'X_any'"),
        ({"use_rep": None, "layer": "raw"}, MissingKeyError, "layer='raw'; expected it in layers"),
        ({"use_rep": None, "pool": "tokens"}, InputError, "pool='tokens'"),
        (
            {"use_rep": None, "pool": "published", "hidden_layer": -2},
            InputError,
            "pool='published', which reads the last",
        ),
        ({"key_added": "a/b"}, InputError, "without '/'"),
    ],
)
def test_bad_options_are_named(options, error, message, tiny, unchanged):
    query, reference = cells(12, 1), cells(30, 2)
    with unchanged(query), unchanged(reference), pytest.raises(error, match=message):
        tl.transfer_labels(
            query, reference, "cell_type", **{"use_rep": "X_any", "model": tiny, **options}
        )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda obs: obs.assign(cell_type="one"), InputError, "Found 1 classes"),
        (
            lambda obs: obs.assign(cell_type=["Unknown", "b"] * 15),
            InputError,
            r"the label .*'Unknown'",
        ),
        (lambda obs: obs.assign(cell_type=["", "b"] * 15), InputError, r"the label .*''"),
        (lambda obs: obs.rename(columns={"cell_type": "celltype"}), MissingKeyError, "'celltype'"),
    ],
)
def test_labels_that_cannot_be_used_are_named(change, error, message):
    query, reference = cells(12, 1), cells(30, 2)
    reference.obs = change(reference.obs)
    with pytest.raises(error, match=message):
        labelled(query, reference)


def test_embeddings_that_do_not_fit_are_named(human, tiny):
    query, reference = cells(12, 1), cells(30, 2)
    reference.obsm["X_any"] = reference.obsm["X_any"][:, :4]
    with pytest.raises(InputError, match=r"\(12, 6\) \(query\) and \(30, 4\)"):
        labelled(query, reference)
    query, reference = cells(12, 1), cells(30, 2)
    reference.obsm["X_any"][:] = np.nan
    with pytest.raises(InputError, match="no cell of the reference with a vector"):
        labelled(query, reference)
    query, reference = cells(12, 1), cells(30, 2)
    reference.obsm["X_any"][::3] = np.nan
    with pytest.raises(InputError, match="no reference cell of 'zeta' with a vector"):
        labelled(query, reference)
    with pytest.raises(GeneIdError):  # no genes to tell the species by, and no column
        labelled(cells(12, 1), cells(30, 2), center="species")
