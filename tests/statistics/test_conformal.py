import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from scmix._errors import InputError
from scmix.statistics import (
    class_coverage,
    conformal_sets,
    conformal_threshold,
    coverage,
    probabilities,
)


def drawn(rng, n_cells, n_classes=5):
    """Probabilities of a classifier that is too sure, and true labels."""
    logits = rng.normal(scale=2, size=(n_cells, n_classes))
    upto = probabilities(logits).cumsum(axis=1)
    labels = (rng.random((n_cells, 1)) > upto).sum(axis=1)
    return probabilities(logits, 0.5), np.minimum(labels, n_classes - 1)


def test_lac_by_hand():
    chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]])
    labels = [0, 0, 1, 1]  # scores 0.1, 0.2, 0.4, 0.7
    # ceil(5 x 0.6) = 3, ceil(5 x 0.75) = 4, ceil(5 x 0.9) = 5 of 4
    assert conformal_threshold(chances, labels, alpha=0.4) == pytest.approx(0.4)
    assert conformal_threshold(chances, labels, alpha=0.25) == pytest.approx(0.7)
    assert conformal_threshold(chances, labels, alpha=0.1) == np.inf
    np.testing.assert_array_equal(
        conformal_sets([[0.95, 0.05], [0.5, 0.5], [0.35, 0.65]], 0.4),
        [[True, False], [False, False], [False, True]],
    )
    assert conformal_sets([[0.95, 0.05]], np.inf).all()


def test_aps_by_hand():
    chances = [[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.45, 0.35, 0.2]]
    # sums down to the true label: 0.9, 0.5, 1.0
    assert conformal_threshold(chances, [1, 2, 2], alpha=0.25, method="aps") == pytest.approx(1.0)
    assert conformal_threshold(chances, [1, 2, 2], alpha=0.5, method="aps") == pytest.approx(0.9)
    np.testing.assert_array_equal(
        conformal_sets([[0.6, 0.1, 0.3], [0.95, 0.04, 0.01]], 0.9 + 1e-12, method="aps"),
        [[True, False, True], [True, False, False]],  # the second holds its likeliest at least
    )


def test_rank_is_exact_where_floats_are_not():
    # (9 + 1)(1 - 0.1) is 9, not 9.000000000000002: the largest of nine, not infinity
    chances = np.column_stack([np.linspace(0.1, 0.9, 9), np.linspace(0.9, 0.1, 9)])
    assert conformal_threshold(chances, [0] * 9, alpha=0.1) == pytest.approx(0.9)
    assert conformal_threshold(chances[:8], [0] * 8, alpha=0.1) == np.inf


def test_thresholds_by_class():
    chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]])
    both = conformal_threshold(chances, [0, 0, 1], alpha=0.4, by_class=True)
    np.testing.assert_allclose(both, [0.2, np.inf])
    np.testing.assert_array_equal(
        conformal_sets([[0.9, 0.1], [0.5, 0.5]], both), [[True, True], [False, True]]
    )


@pytest.mark.parametrize(
    ("method", "seed"), [("lac", None), ("aps", None), ("aps", 3)], ids=["lac", "aps", "random"]
)
def test_coverage_is_what_was_asked(method, seed):
    """Mean over 200 draws of 99 calibration cells: Beta(90, 10) for continuous scores."""
    held, n_draws, n_new = [], 200, 100
    for draw in range(n_draws):
        rng = np.random.default_rng(draw)
        calibration, new = drawn(rng, 99), drawn(rng, n_new)
        threshold = conformal_threshold(*calibration, 0.1, method, seed=seed)
        held.append(coverage(conformal_sets(new[0], threshold, method, seed=seed), new[1]))
    lowest, highest = binom.ppf([0.001, 0.999], n_draws * n_new, 0.9) / (n_draws * n_new)
    spread = 3.1 * np.sqrt(90 * 10 / 100**2 / 101 / n_draws)  # of the threshold itself
    assert lowest - spread < np.mean(held)
    if (method, seed) != ("aps", None):  # without chance, APS covers more than asked
        assert np.mean(held) < highest + spread


def test_every_class_is_covered_by_class():
    rng = np.random.default_rng(0)
    chances, labels = drawn(rng, 4000)
    chances[:, 0] *= 0.3  # a class the classifier is bad at
    chances /= chances.sum(axis=1, keepdims=True)
    new, truth = chances[2000:], labels[2000:]
    marginal = conformal_threshold(chances[:2000], labels[:2000], 0.1)
    by_class = conformal_threshold(chances[:2000], labels[:2000], 0.1, by_class=True)
    assert class_coverage(conformal_sets(new, marginal), truth)[0] < 0.85
    assert (class_coverage(conformal_sets(new, by_class), truth) > 0.86).all()


@given(seed=st.integers(0, 1000), method=st.sampled_from(["lac", "aps"]))
def test_a_smaller_alpha_only_adds_labels(seed, method):
    rng = np.random.default_rng(seed)
    (chances, labels), (new, _) = drawn(rng, 80), drawn(rng, 20)
    sets = [
        conformal_sets(new, conformal_threshold(chances, labels, alpha, method), method)
        for alpha in (0.4, 0.2, 0.05)
    ]
    assert (sets[0] <= sets[1]).all()
    assert (sets[1] <= sets[2]).all()


@given(seed=st.integers(0, 1000), method=st.sampled_from(["lac", "aps"]))
def test_sets_hold_the_likeliest_labels_whatever_the_order(seed, method):
    rng = np.random.default_rng(seed)
    chances, labels = drawn(rng, 50)
    threshold = conformal_threshold(chances, labels, 0.2, method)
    sets = conformal_sets(chances, threshold, method)
    inside = np.where(sets, chances, 2).min(axis=1)
    outside = np.where(sets, -1, chances).max(axis=1)
    assert (inside > outside).all()
    rows, columns = rng.permutation(50), rng.permutation(5)
    moved = conformal_sets(chances[rows][:, columns], threshold, method)
    np.testing.assert_array_equal(moved, sets[rows][:, columns])


def test_random_sets_are_smaller_and_need_the_same_seed():
    rng = np.random.default_rng(0)
    (chances, labels), (new, _) = drawn(rng, 2000), drawn(rng, 2000)
    plain = conformal_sets(new, conformal_threshold(chances, labels, 0.1, "aps"), "aps")
    threshold = conformal_threshold(chances, labels, 0.1, "aps", seed=1)
    random = conformal_sets(new, threshold, "aps", seed=1)
    assert random.sum() < plain.sum()
    assert random.any(axis=1).all()
    np.testing.assert_array_equal(random, conformal_sets(new, threshold, "aps", seed=1))


def test_a_cell_without_a_vector_has_no_label():
    for method in ("lac", "aps"):
        sets = conformal_sets([[np.nan, np.nan], [0.9, 0.1]], np.inf, method)
        np.testing.assert_array_equal(sets, [[False, False], [True, True]])


def test_coverage_by_hand():
    sets = [[True, False, False], [True, True, False], [False, False, False]]
    assert coverage(sets, [0, 0, 1]) == pytest.approx(2 / 3)
    np.testing.assert_array_equal(class_coverage(sets, [0, 0, 1]), [1.0, 0.0, np.nan])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha=0.0; expected a number between 0 and 1"),
        ({"alpha": 1.0}, "alpha=1.0"),
        ({"method": "best"}, "method='best'; expected one of"),
    ],
)
def test_unknown_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        conformal_threshold(np.eye(2), [0, 1], **options)
