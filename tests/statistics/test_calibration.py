import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from scmix._errors import InputError
from scmix.statistics import Calibration, fit_temperature, probabilities


def drawn(seed, temperature=1.0, n_cells=400, n_classes=4):
    """Logits, and labels drawn from their softmax at a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(n_cells, n_classes))
    chances = probabilities(logits, temperature)
    labels = (rng.random((n_cells, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    return logits, np.minimum(labels, n_classes - 1)


def test_two_classes_by_hand():
    # three of four right; Platt's targets give 1/6 of that to the other class: 2/3 in all
    assert fit_temperature([[4.0, 0.0]] * 4, [0, 0, 0, 1]) == pytest.approx(4 / np.log(2))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_true_temperature_is_found(temperature):
    logits, labels = drawn(0, temperature, n_cells=20_000)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10))
def test_no_other_temperature_is_more_likely(seed, scale):
    logits, labels = drawn(seed, n_cells=60)
    logits = logits * scale
    targets = np.full(logits.shape, 1 / 62 / 3)
    targets[np.arange(60), labels] = 61 / 62

    def loss(log_temperature):
        return -(targets * np.log(probabilities(logits, np.exp(log_temperature)))).sum()

    best = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-8})
    assert fit_temperature(logits, labels) == pytest.approx(np.exp(best.x), rel=1e-3)


@given(seed=st.integers(0, 1000), factor=st.floats(0.2, 5), shift=st.floats(-5, 5))
def test_scaled_and_shifted_logits_give_the_same_probabilities(seed, factor, shift):
    logits, labels = drawn(seed)
    first = probabilities(logits, fit_temperature(logits, labels))
    other = logits * factor + shift
    again = probabilities(other, fit_temperature(other, labels))
    np.testing.assert_allclose(again, first, atol=1e-6)
    assert (first.argmax(axis=1) == logits.argmax(axis=1)).all()
    np.testing.assert_allclose(first.sum(axis=1), 1)


@given(seed=st.integers(0, 1000))
def test_order_of_cells_and_classes_changes_nothing(seed):
    logits, labels = drawn(seed)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(400), rng.permutation(4)
    moved = np.argsort(columns)[labels[rows]]
    assert fit_temperature(logits[rows][:, columns], moved) == pytest.approx(
        fit_temperature(logits, labels), rel=1e-6
    )


def test_few_cells_without_a_mistake_are_not_taken_for_certainty():
    logits = np.array([[8.0, 0.0]] * 10)
    chance = probabilities(logits, fit_temperature(logits, [0] * 10))[0, 0]
    assert chance == pytest.approx(11 / 12)


def test_extremes_stay_within_bounds():
    assert fit_temperature([[1e-9, 0.0]] * 9, [0] * 9) == 1e-4
    assert fit_temperature([[9.0, 0.0]] * 9, [1] * 9) == 1e4  # always wrong
    assert fit_temperature([[3.0], [1.0]], [0, 0]) == 1.0
    assert fit_temperature([[3.0, 3.0]] * 4, [0, 1, 0, 0]) == 1.0


def test_rows_of_nan_stay_nan():
    out = probabilities([[np.nan, np.nan], [0.0, 0.0]])
    assert np.isnan(out[0]).all()
    np.testing.assert_array_equal(out[1], [0.5, 0.5])


def test_calibration_keeps_what_it_was_given():
    logits, labels = drawn(0)
    kept = Calibration(2.0, logits.astype(np.float32), labels.astype(np.int32))
    assert kept.n_cells == 400
    np.testing.assert_allclose(kept.probabilities, probabilities(logits, 2.0), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0; expected a positive number"),
        ({"temperature": np.nan}, "temperature=nan"),
        ({"labels": np.array([0, 4])}, "labels from 0 to 4; expected 0 to 1"),
        ({"labels": np.array([-1, 0])}, "labels from -1 to 0"),
        ({"labels": np.array([0.0, 1.0])}, "type float64; expected 2 integers"),
        ({"labels": np.array([0])}, r"shape \(1,\)"),
        ({"logits": np.array([[np.nan, 0], [0, 0]])}, "1 of 2 cells with NaN"),
        ({"logits": np.zeros((0, 2))}, r"shape \(0, 2\)"),
        ({"distances": np.zeros(3)}, "3 distances; expected 2"),
        ({"groups": np.zeros(1, int)}, "1 groups; expected 2"),
        ({"centroids": np.zeros((3, 5))}, "3 centroids; expected 2"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    good = {"temperature": 1.0, "logits": np.eye(2), "labels": np.array([0, 1])}
    with pytest.raises(InputError, match=message):
        Calibration(**{**good, **change})
