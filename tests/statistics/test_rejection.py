import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from scmix._errors import InputError
from scmix.statistics import (
    Calibration,
    class_centroids,
    distance_threshold,
    nearest_centroid,
    strangeness,
    unknown_detection,
)


def test_centroids_by_hand():
    vectors = [[0.0, 2.0], [0.0, 4.0], [np.nan, 1.0], [1.0, 0.0], [9.0, 9.0]]
    centroids = class_centroids(vectors, np.array([0, 0, 0, 2, -1]), 3)
    assert centroids.dtype == np.float32
    np.testing.assert_array_equal(centroids, [[0, 3], [np.nan, np.nan], [1, 0]])


def test_distance_is_the_cosine_to_the_nearest():
    centroids = np.array([[2.0, 0.0], [3.0, 3.0]])
    nearest, distances = nearest_centroid([[9.0, 0.0], [0.0, 4.0], [-1.0, 0.0]], centroids)
    np.testing.assert_array_equal(nearest, [0, 1, 1])
    half = 1 / np.sqrt(2)
    np.testing.assert_allclose(distances, [0, 1 - half, 1 + half], atol=1e-6)


def test_cells_and_classes_without_a_vector():
    centroids = [[np.nan, np.nan], [1.0, 0.0], [0.0, 1.0]]
    nearest, distances = nearest_centroid([[2.0, 0.0], [np.nan, 0.0]], centroids)
    np.testing.assert_array_equal(nearest, [1, -1])
    assert distances[0] == 0
    assert np.isnan(distances[1])


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10))
def test_length_of_vectors_changes_nothing(seed, scale):
    rng = np.random.default_rng(seed)
    vectors, centroids = rng.normal(size=(20, 6)), rng.normal(size=(4, 6))
    first, other = (
        nearest_centroid(vectors, centroids),
        nearest_centroid(vectors * scale, centroids),
    )
    np.testing.assert_array_equal(other[0], first[0])
    np.testing.assert_allclose(other[1], first[1], atol=1e-5)


def known_cells(n_cells=200, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n_cells, 3)) + 6 * np.eye(3)[np.arange(n_cells) % 3]
    labels = np.arange(n_cells) % 3
    return Calibration(1.0, logits, labels, rng.gamma(2, 0.1, n_cells), np.eye(3))


def test_strangeness_by_hand():
    kept = Calibration(
        1.0, np.array([[1.0, 1.0], [3.0, 3.0]]), np.array([0, 1]), np.array([0.1, 0.3])
    )  # energies -1 - log 2 and -3 - log 2: mean -2 - log 2, sd 1; distances: mean 0.2, sd 0.1
    score = strangeness(kept, [[2.0, 2.0], [0.0, 0.0], [np.nan, np.nan]], [0.2, 0.1, np.nan])
    np.testing.assert_allclose(score, [0, 2 - 1, np.nan], atol=1e-6)


def test_strange_in_either_way_is_strange():
    kept = known_cells()
    usual = strangeness(kept, kept.logits, kept.distances)
    assert usual.mean() == pytest.approx(0, abs=1e-5)
    far = strangeness(kept, kept.logits[:30], kept.distances[:30] + 1)
    flat = strangeness(kept, kept.logits[:30] * 0, kept.distances[:30])
    for score in (far, flat):
        assert unknown_detection(usual, score).auroc > 0.95
    assert strangeness(known_cells(3), [[1.0] * 3], [0.1]).dtype == np.float32


def test_known_cells_are_lost_as_often_as_asked():
    lost = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        threshold = distance_threshold(rng.random(49), alpha=0.1)
        lost.append((rng.random(50) > threshold).mean())
    # expected 1/10: the 45th of 49 uniform draws is 0.9 on average; sd over draws below 0.003
    assert np.mean(lost) == pytest.approx(0.1, abs=0.012)
    assert distance_threshold(np.arange(8.0), alpha=0.1) == np.inf


def test_detection_by_hand():
    # pairs won by the unknown cell: 0.5 beats two of three, 0.9 three, of six
    auroc, passed = unknown_detection([0.1, 0.2, 0.6], [0.5, 0.9])
    assert (auroc, passed) == (pytest.approx(5 / 6), 0.5)
    assert unknown_detection([1.0, 1.0], [1.0]) == (0.5, 1.0)
    assert unknown_detection([0.0, 0.1], [0.2]) == (1.0, 0.0)


def test_nineteen_of_twenty_known_cells_set_the_threshold():
    known = np.arange(20.0)  # the 19th smallest is 18
    assert unknown_detection(known, [18.0, 18.5]).fpr_at_95_tpr == 0.5


@given(seed=st.integers(0, 1000))
def test_auroc_is_that_of_sklearn(seed):
    rng = np.random.default_rng(seed)
    known, unknown = rng.integers(0, 6, 30), rng.integers(2, 9, 17)
    truth = np.repeat([0, 1], [30, 17])
    expected = roc_auc_score(truth, np.concatenate([known, unknown]))
    assert unknown_detection(known, unknown).auroc == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: unknown_detection([], [1.0]), r"known scores of shape \(0,\)"),
        (lambda: unknown_detection([0.0], [np.nan]), "unknown scores of shape .* with 1 NaN"),
        (lambda: distance_threshold([np.nan, 1.0], 0.1), "1 NaN among 2 scores"),
        (lambda: nearest_centroid(np.eye(2), np.eye(3)), "same number of dimensions"),
        (lambda: nearest_centroid(np.eye(2), np.full((2, 2), np.nan)), "no class centroid"),
        (
            lambda: strangeness(Calibration(1.0, np.eye(2), np.array([0, 1])), np.eye(2), [0, 0]),
            "calibration without distances",
        ),
        (lambda: class_centroids(np.eye(2), np.array([0]), 1), r"shape \(1,\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
