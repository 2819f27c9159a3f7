import numpy as np
import pytest

from scmix.tl._evaluation.embedding import embedding_scores


@pytest.fixture(scope="module")
def apart():
    """Three types far apart, two batches and species without any difference."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], 40)
    points = np.eye(3)[np.repeat([0, 1, 2], 40)] + rng.normal(scale=0.02, size=(120, 3))
    return points, labels, rng.permutation(np.arange(120) % 2)


def test_types_apart_and_batches_mixed(apart):
    points, labels, batches = apart
    pytest.importorskip("igraph")
    scores = embedding_scores(points, labels, batches=batches, species=None)
    assert scores["nmi"] == scores["ari"] == 1.0
    assert scores["knn_purity"] == scores["graph_connectivity"] == 1.0
    assert scores["silhouette"] > 0.99
    assert np.isnan(scores["species_mixing"])
    again = embedding_scores(points, labels, batches=batches, species=None)
    assert {k: v for k, v in again.items() if v == v} == {k: v for k, v in scores.items() if v == v}


def test_labels_at_random_fall_to_the_floor(apart):
    points, labels, _ = apart
    shuffled = np.random.default_rng(1).permutation(labels)
    scores = embedding_scores(points, shuffled, batches=None, species=None)
    assert scores["knn_purity"] == pytest.approx(39 / 119, abs=0.06)
    assert scores["silhouette"] == pytest.approx(0, abs=0.08)
    if not np.isnan(scores["ari"]):
        assert scores["ari"] == pytest.approx(0, abs=0.05)


def test_lisi_of_scib_metrics(apart):
    pytest.importorskip("scib_metrics")
    points, labels, batches = apart
    mixed = embedding_scores(points, labels, batches=batches, species=None)
    assert mixed["clisi"] == pytest.approx(1, abs=0.05)
    assert mixed["ilisi"] > 0.8
    alone = embedding_scores(points, labels, batches=(labels == "a").astype(int), species=None)
    assert alone["ilisi"] < 0.1
    assert np.isnan(embedding_scores(points, labels, batches=None, species=None)["ilisi"])


def test_species_and_rows_without_a_vector(apart):
    points, labels, side = apart
    species = np.array(["human", "mouse"])[side]
    holes = points.copy()
    holes[:5] = np.nan
    scores = embedding_scores(holes, labels, batches=None, species=species)
    assert scores["n_cells"] == 115
    assert scores["species_mixing"] == pytest.approx(1, abs=0.1)
    none = embedding_scores(points, labels, batches=None, species=np.array(["human"] * 120))
    assert np.isnan(none["species_mixing"])
