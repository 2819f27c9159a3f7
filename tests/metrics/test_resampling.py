import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from scmix import metrics
from scmix._errors import InputError

CLASSES = 4


def labels(seed, n_cells=200, n_classes=CLASSES):
    rng = np.random.default_rng(seed)
    truth = rng.choice(n_classes, n_cells, p=rng.dirichlet(np.ones(n_classes) * 3))
    wrong = rng.random(n_cells) < 0.3
    return truth, np.where(wrong, rng.integers(n_classes, size=n_cells), truth)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), n_cells=st.integers(1, 60))
def test_scores_are_those_of_scikit_learn(seed, n_cells):
    truth, predicted = labels(seed, n_cells)
    present = np.unique(truth)
    scores = metrics.label_scores(truth, predicted, CLASSES)
    macro = f1_score(truth, predicted, labels=present, average="macro", zero_division=0)
    recalls = [(predicted[truth == c] == c).mean() for c in present]
    assert scores["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert scores["macro_f1"] == pytest.approx(macro)
    assert scores["balanced_accuracy"] == pytest.approx(np.mean(recalls))


def test_balanced_accuracy_is_scikit_learns_where_all_classes_are_there():
    truth, predicted = labels(1)
    score = metrics.label_scores(truth, predicted, CLASSES)["balanced_accuracy"]
    assert score == pytest.approx(balanced_accuracy_score(truth, predicted))


def test_perfect_is_one_and_permuted_is_the_analytic_floor():
    truth = np.repeat([0, 1], [6000, 2000])
    assert set(metrics.label_scores(truth, truth, 2).values()) == {1.0}
    guess = np.random.default_rng(0).permutation(truth)
    scores = metrics.label_scores(truth, guess, 2)
    shares = np.array([0.75, 0.25])
    assert scores["accuracy"] == pytest.approx((shares**2).sum(), abs=0.02)
    assert scores["balanced_accuracy"] == pytest.approx(0.5, abs=0.02)
    assert scores["macro_f1"] == pytest.approx(0.5, abs=0.02)  # recall = precision = the share


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_copies_of_cells_and_other_names_of_classes_change_nothing(seed):
    truth, predicted = labels(seed)
    scores = metrics.label_scores(truth, predicted, CLASSES)
    twice = metrics.label_scores(np.tile(truth, 2), np.tile(predicted, 2), CLASSES)
    names = np.random.default_rng(seed).permutation(CLASSES)
    renamed = metrics.label_scores(names[truth], names[predicted], CLASSES)
    assert twice == pytest.approx(scores)
    assert renamed == pytest.approx(scores)


def test_a_class_that_is_not_there_has_no_part_in_means_and_no_prediction_is_a_miss():
    scores = metrics.label_scores([0, 0, 1, 1], [0, 0, 1, 2], 5)
    assert scores["balanced_accuracy"] == 0.75
    assert scores["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.label_scores([0, 1], [0, -1], 2)["accuracy"] == 0.5


def test_a_draw_of_donors_is_the_score_of_their_cells():
    truth, predicted = labels(3)
    donor = np.arange(truth.size) % 3
    draws = metrics.bootstrap_label_scores(truth, predicted, CLASSES, units=donor, n_draws=400)
    possible = set()
    for drawn in np.ndindex(3, 3, 3):
        cells = np.concatenate([np.flatnonzero(donor == d) for d in drawn])
        score = metrics.label_scores(truth[cells], predicted[cells], CLASSES)["macro_f1"]
        possible.add(round(score, 10))
    assert set(np.round(draws["macro_f1"], 10)) == possible  # all ten multisets came up


def test_intervals_of_cells_are_binomial_and_of_donors_wider_when_donors_differ():
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(20), 50)
    chance = np.repeat(rng.choice([0.55, 0.95], 20), 50)
    truth = np.zeros(1000, dtype=int)
    predicted = (rng.random(1000) > chance).astype(int)
    cells = metrics.bootstrap_label_scores(truth, predicted, 2)["accuracy"]
    donors = metrics.bootstrap_label_scores(truth, predicted, 2, units=donor)["accuracy"]
    share = (predicted == 0).mean()
    assert cells.std() == pytest.approx(np.sqrt(share * (1 - share) / 1000), rel=0.1)
    by_donor = [(predicted[donor == d] == 0).mean() for d in range(20)]
    assert donors.std() == pytest.approx(np.std(by_donor) / np.sqrt(20), rel=0.1)
    assert donors.std() > 2 * cells.std()


def test_draws_are_paired_seeded_and_means_over_runs():
    truth, first = labels(4)
    second = np.where(np.arange(truth.size) % 10 == 0, truth, first)
    one, two = (metrics.bootstrap_label_scores(truth, p, CLASSES) for p in (first, second))
    assert (two["accuracy"] >= one["accuracy"]).all()  # only better cells, in every draw
    both = metrics.bootstrap_label_scores(truth, [first, second], CLASSES)
    for name in ("accuracy", "macro_f1"):
        np.testing.assert_allclose(both[name], (one[name] + two[name]) / 2)
    other = metrics.bootstrap_label_scores(truth, first, CLASSES, seed=1)
    assert (other["accuracy"] != one["accuracy"]).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.label_scores([], [], 2), "at least one cell"),
        (lambda: metrics.label_scores([0, 1], [0], 2), "one of each for every cell"),
        (lambda: metrics.label_scores([0, 2], [0, 0], 2), "from 0 to 2; expected 0 to 1"),
        (lambda: metrics.label_scores([0, -1], [0, 0], 2), "from -1"),
        (
            lambda: metrics.bootstrap_label_scores([0, 1], [0, 1], 2, units=[0]),
            "units of shape",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 8))
def test_knn_probabilities_say_what_the_vote_says(seed, k):
    rng = np.random.default_rng(seed)
    points, query = rng.normal(size=(30, 3)), rng.normal(size=(10, 3))
    codes = rng.integers(3, size=30)
    chances = metrics.knn_probabilities(points, codes, query, 3, k=k)
    assert chances.sum(axis=1) == pytest.approx(1)
    voted = metrics.knn_transfer(points, codes.astype(str), query, k=k)
    assert chances.argmax(axis=1).astype(str).tolist() == voted.tolist()
