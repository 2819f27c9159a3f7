import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from scmix import metrics
from scmix._errors import InputError


def blobs(n_labels=4, n_cells=60, spread=0.01, seed=0):
    """Cells tight around orthogonal directions: labels are perfectly separable."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([f"type{i}" for i in range(n_labels)], n_cells)
    centres = np.repeat(np.eye(n_labels), n_cells, axis=0)
    return centres + rng.normal(scale=spread, size=centres.shape), labels


def test_perfect_embedding_scores_one():
    points, labels = blobs()
    predicted = metrics.knn_transfer(points, labels, points)
    scores = metrics.classification_scores(labels, predicted)
    assert scores["accuracy"] == scores["balanced_accuracy"] == scores["macro_f1"] == 1.0
    assert scores["majority_rate"] == 0.25
    assert metrics.knn_purity(points, labels) == 1.0
    assert metrics.silhouette(points, labels) > 0.99


def test_permuted_labels_fall_to_the_analytic_floor():
    points, labels = blobs(n_labels=3, n_cells=400, spread=1.0)
    labels = np.where(labels == "type2", "type1", labels)  # shares 1/3 and 2/3
    shuffled = np.random.default_rng(1).permutation(labels)
    sizes = np.unique(labels, return_counts=True)[1]
    chance = (sizes / sizes.sum() * (sizes - 1) / (sizes.sum() - 1)).sum()
    assert metrics.knn_purity(points, shuffled) == pytest.approx(chance, abs=0.02)
    assert metrics.silhouette(points, shuffled) == pytest.approx(0, abs=0.01)
    half = len(points) // 2
    order = np.random.default_rng(2).permutation(len(points))
    known, asked = order[:half], order[half:]
    predicted = metrics.knn_transfer(points[known], shuffled[known], points[asked])
    scores = metrics.classification_scores(shuffled[asked], predicted)
    # a vote of 5 independent draws: P(majority wins) = P(Binomial(5, 2/3) >= 3)
    win = sum(c * (2 / 3) ** i * (1 / 3) ** (5 - i) for i, c in ((3, 10), (4, 5), (5, 1)))
    assert scores["accuracy"] == pytest.approx(2 / 3 * win + 1 / 3 * (1 - win), abs=0.05)
    assert scores["balanced_accuracy"] == pytest.approx(0.5, abs=0.05)


def test_knn_transfer_equals_scikit_learn_when_no_vote_is_tied():
    rng = np.random.default_rng(3)
    points, query = rng.normal(size=(300, 8)), rng.normal(size=(100, 8))
    labels = rng.choice(["a", "b"], 300)
    expected = KNeighborsClassifier(5, metric="cosine").fit(points, labels).predict(query)
    np.testing.assert_array_equal(metrics.knn_transfer(points, labels, query), expected)


def test_tied_vote_goes_to_the_nearest():
    reference = np.array([[1.0], [2.0], [3.0], [4.0], [90.0]])
    labels = ["far", "near", "near", "far", "lone"]

    def predict(x, k):
        return metrics.knn_transfer(reference, labels, [[x]], k=k, metric="euclidean")[0]

    assert predict(2.4, 4) == "near"
    assert predict(0.9, 4) == "far"
    assert predict(100.0, 5) == "far"  # 90 is nearest but alone; of the tied, 4 is nearest


def test_duplicated_cells_change_nothing():
    points, labels = blobs(spread=0.6)
    half = np.arange(len(points)) % 2 == 0
    once = metrics.classification_scores(
        labels[~half], metrics.knn_transfer(points[half], labels[half], points[~half])
    )
    twice = metrics.classification_scores(
        np.tile(labels[~half], 2),
        metrics.knn_transfer(points[half], labels[half], np.tile(points[~half], (2, 1))),
    )
    assert {k: v for k, v in once.items() if k != "n_cells"} == {
        k: v for k, v in twice.items() if k != "n_cells"
    }


def test_relabelling_changes_nothing():
    points, labels = blobs(spread=0.6)
    names = {"type0": "z", "type1": "y", "type2": "x", "type3": "w"}
    renamed = np.array([names[label] for label in labels])
    species = np.tile(["human", "mouse"], len(points) // 2)
    for score in (metrics.silhouette, metrics.knn_purity):
        assert score(points, labels) == pytest.approx(score(points, renamed), abs=1e-12)
    mixed = metrics.species_mixing_by_type(points, species, labels)
    again = metrics.species_mixing_by_type(points, species, renamed)
    assert mixed == {old: pytest.approx(again[new], abs=0.1) for old, new in names.items()}
    predicted = metrics.knn_transfer(points[::2], labels[::2], points[1::2])
    renamed_prediction = np.array([names[label] for label in predicted])
    assert metrics.classification_scores(labels[1::2], predicted) == pytest.approx(
        metrics.classification_scores(renamed[1::2], renamed_prediction)
    )


def test_scores_by_hand():
    truth = ["a", "a", "a", "b", "c"]
    scores = metrics.classification_scores(truth, ["a", "a", "b", "b", "unassigned"])
    assert scores == {
        "n_cells": 4,
        "n_left_out": 1,
        "majority_rate": 0.75,
        "accuracy": 0.75,
        "balanced_accuracy": pytest.approx((2 / 3 + 1) / 2),
        "macro_f1": pytest.approx((0.8 + 2 / 3) / 2),
    }


def test_a_prediction_outside_the_true_labels_is_a_miss_and_no_class():
    scores = metrics.classification_scores(["a", "b"], ["a", "other"])
    assert scores["macro_f1"] == scores["balanced_accuracy"] == 0.5


@pytest.mark.parametrize("sizes", [(100, 100), (60, 240), (30, 400)])
def test_species_mixing_is_one_when_mixed_and_zero_when_apart(sizes):
    rng = np.random.default_rng(0)
    species = np.repeat(["human", "mouse"], sizes)
    points = rng.normal(size=(sum(sizes), 10))
    labels = np.array(["T"] * sum(sizes))
    by_type = metrics.species_mixing_by_type(points, species, labels, n_repeats=20)
    assert by_type["T"] == pytest.approx(1.0, abs=0.05)
    points[species == "mouse", 0] += 1000
    assert metrics.species_mixing(points, species, labels, metric="euclidean") == 0.0


def test_species_mixing_looks_within_types_only():
    points, labels = blobs(n_labels=2, n_cells=100, spread=0.05)
    species = np.tile(["human", "mouse"], 100)
    assert metrics.species_mixing(points, species, labels) == pytest.approx(1.0, abs=0.05)
    one_each = np.where(labels == "type0", "human", "mouse")
    with pytest.raises(InputError, match="no cell type"):
        metrics.species_mixing(points, one_each, labels)


def test_species_mixing_refuses_one_species():
    points, labels = blobs()
    with pytest.raises(InputError, match="1 species; expected two"):
        metrics.species_mixing(points, ["human"] * len(points), labels)


def test_rows_without_a_vector_are_left_out():
    points, labels = blobs()
    species = np.tile(["human", "mouse"], len(points) // 2)
    holes = np.arange(len(points)) % 10 == 3
    broken = points.copy()
    broken[holes, 1] = np.nan
    assert (metrics.has_vector(broken) == ~holes).all()
    for score in (metrics.silhouette, metrics.knn_purity):
        assert score(broken, labels) == score(points[~holes], labels[~holes])
    assert metrics.species_mixing(broken, species, labels) == metrics.species_mixing(
        points[~holes], species[~holes], labels[~holes]
    )
    predicted = metrics.knn_transfer(broken, labels, broken)
    assert set(predicted[holes]) == {"unassigned"}
    scores = metrics.classification_scores(labels, predicted)
    assert scores["n_left_out"] == holes.sum()
    assert scores["accuracy"] == 1.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), angle=st.floats(-3, 3), scale=st.floats(0.1, 10))
def test_procrustes_undoes_any_similarity(seed, angle, scale):
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(20, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirror = np.diag([1.0, rng.choice([-1.0, 1.0])])
    layout = scale * reference @ turn @ mirror + rng.normal(size=2)
    np.testing.assert_allclose(metrics.procrustes(reference, layout), reference, atol=1e-8)
    labels = np.repeat(["a", "b"], 10)
    assert metrics.centroid_distance(
        reference, reference + np.array([3, 4]), labels
    ) == pytest.approx(5)


def test_procrustes_fits_on_shared_rows_and_moves_all():
    reference = np.array([[0, 0], [1, 0], [0, 1], [np.nan, np.nan]])
    layout = np.array([[5, 5], [7, 5], [5, 7], [9, 9]], dtype=float)
    np.testing.assert_allclose(
        metrics.procrustes(reference, layout), [[0, 0], [1, 0], [0, 1], [2, 2]], atol=1e-12
    )


def test_large_silhouette_is_subsampled_by_seed():
    points, labels = blobs(spread=0.8)
    first = metrics.silhouette(points, labels, max_cells=100, seed=1)
    assert first == metrics.silhouette(points, labels, max_cells=100, seed=1)
    assert first != metrics.silhouette(points, labels, max_cells=100, seed=2)
    assert first == pytest.approx(metrics.silhouette(points, labels), abs=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.silhouette(np.eye(3), ["a"] * 3), "Found 1 labels among 3 cells"),
        (lambda: metrics.knn_purity(np.eye(3), ["a"]), "Found 1 labels for 3 cells"),
        (lambda: metrics.knn_purity(np.zeros(3), ["a"] * 3), "1 dimensions; expected 2"),
        (lambda: metrics.classification_scores(["a"], []), "1 true and 0 predicted"),
        (lambda: metrics.classification_scores(["a"], ["unassigned"]), "no cell with a predicted"),
        (lambda: metrics.procrustes(np.eye(2), np.eye(3)), "expected equal shapes"),
        (lambda: metrics.knn_transfer([[np.nan]], ["a"], [[1.0]]), "no reference cell"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_purity_of_many_cells_looks_at_a_subset_among_all():
    points, labels = blobs(spread=0.8)
    full = metrics.knn_purity(points, labels)
    assert metrics.knn_purity(points, labels, max_cells=len(points)) == full
    assert metrics.knn_purity(points, labels, max_cells=120) == pytest.approx(full, abs=0.1)


def test_a_cell_is_not_its_own_neighbour_even_among_copies():
    points = np.repeat([[1.0, 0.0], [0.0, 1.0]], 20, axis=0)
    labels = np.array([f"cell{i}" for i in range(40)])
    assert metrics.knn_purity(points, labels, k=3) == 0.0
