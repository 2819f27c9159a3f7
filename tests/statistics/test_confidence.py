import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmix._errors import InputError
from scmix.statistics import (
    aurc,
    brier_score,
    expected_calibration_error,
    reliability,
    risk_coverage,
)


def test_bins_by_hand():
    curve = reliability([0.0, 0.5, 0.51, 0.9, 1.0], [False, True, False, True, True], n_bins=4)
    np.testing.assert_array_equal(curve.lower, [0, 0.25, 0.5, 0.75])
    np.testing.assert_array_equal(curve.n_cells, [1, 1, 1, 2])
    np.testing.assert_allclose(curve.confidence, [0, 0.5, 0.51, 0.95])
    np.testing.assert_array_equal(curve.accuracy, [0, 1, 0, 1])
    assert curve.error == pytest.approx((0 + 0.5 + 0.51 + 2 * 0.05) / 5)


def test_empty_bins_count_for_nothing():
    curve = reliability([0.9, 0.9], [True, False], n_bins=15)
    assert np.isnan(curve.accuracy).sum() == 14
    assert curve.error == pytest.approx(0.4)


def test_calibration_error_of_labels():
    chances = [[0.8, 0.2], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]
    # 0.8 (one of two right), 0.7 (right), 0.6 (wrong): each in a bin of its own
    assert expected_calibration_error(chances, [0, 1, 1, 1]) == pytest.approx(
        (2 * 0.3 + 0.3 + 0.6) / 4
    )


def test_probabilities_that_hold_have_a_small_error():
    rng = np.random.default_rng(0)
    chance = rng.random(50_000)
    both = np.column_stack([chance, 1 - chance])
    labels = (rng.random(50_000) > chance).astype(int)
    assert expected_calibration_error(both, labels) < 0.01
    assert brier_score(both, labels) == pytest.approx(1 / 3, abs=0.01)  # 2 E[p (1 - p)]


def test_brier_by_hand():
    assert brier_score([[0.7, 0.2, 0.1]], [1]) == pytest.approx(0.49 + 0.64 + 0.01)
    assert brier_score([[1.0, 0.0]], [1]) == 2.0
    assert brier_score([[0.0, 1.0]], [1]) == 0.0


def test_risk_by_hand():
    share, risk = risk_coverage([0.6, 0.9, 0.7, 0.8], [True, True, False, True])
    np.testing.assert_allclose(share, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 0, 1 / 3, 1 / 4])
    assert aurc([0.6, 0.9, 0.7, 0.8], [True, True, False, True]) == pytest.approx(7 / 48)


def test_ties_are_taken_in_random_order():
    _, risk = risk_coverage([0.9, 0.5, 0.5], [False, True, False])
    np.testing.assert_allclose(risk, [1, 3 / 4, 2 / 3])


@given(seed=st.integers(0, 1000))
def test_order_of_cells_and_scale_of_the_score_change_nothing(seed):
    rng = np.random.default_rng(seed)
    sure, right = rng.integers(0, 8, 40) / 10, rng.random(40) < 0.7
    rows = rng.permutation(40)
    first, other = risk_coverage(sure, right)[1], risk_coverage(sure[rows] * 3, right[rows])[1]
    np.testing.assert_allclose(other, first)
    assert first[-1] == pytest.approx(1 - right.mean())
    assert aurc(np.ones(40), right) == pytest.approx(1 - right.mean())


@given(seed=st.integers(0, 1000))
def test_no_score_beats_the_one_that_knows(seed):
    rng = np.random.default_rng(seed)
    right = rng.random(30) < 0.7
    score = rng.random(30)
    assert aurc(right, right) <= aurc(score, right) <= aurc(~right, right)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reliability([], []), r"shape \(0,\)"),
        (lambda: reliability([0.5], [True, False]), r"shape \(2,\)"),
        (lambda: reliability([1.2], [True]), "confidence from 1.2 to 1.2"),
        (lambda: reliability([0.5], [True], n_bins=0), "n_bins=0"),
        (lambda: aurc([np.nan, 1.0], [True, True]), "1 of 2 confidences that are not finite"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
