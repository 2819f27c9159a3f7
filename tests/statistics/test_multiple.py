import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmix._errors import InputError
from scmix.statistics import benjamini_hochberg, fewest_at_floor

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def test_worked_out_by_hand():
    # sorted 0.01 0.02 0.03 0.5 -> times 4/rank: 0.04 0.04 0.04 0.5
    np.testing.assert_allclose(benjamini_hochberg([0.5, 0.02, 0.01, 0.03]), [0.5, 0.04, 0.04, 0.04])
    np.testing.assert_array_equal(benjamini_hochberg([np.nan, np.nan]), [np.nan, np.nan])
    assert benjamini_hochberg([]).shape == (0,)


@given(p_values, st.floats(0.001, 0.5))
def test_rejects_as_the_step_up_rule_does(p, alpha):
    values = np.sort(p)
    passing = np.flatnonzero(values <= alpha * np.arange(1, len(p) + 1) / len(p))
    n_rejected = passing[-1] + 1 if len(passing) else 0
    adjusted = benjamini_hochberg(values)
    near = np.isclose(adjusted, alpha, rtol=1e-9)
    assert (adjusted <= alpha)[~near].sum() == (np.arange(len(p)) < n_rejected)[~near].sum()


@given(p_values)
def test_missing_tests_do_not_count(p):
    with_missing = np.insert(np.array(p), 0, np.nan)
    adjusted = benjamini_hochberg(with_missing)
    assert np.isnan(adjusted[0])
    np.testing.assert_array_equal(adjusted[1:], benjamini_hochberg(p))
    assert (adjusted[1:] >= np.array(p) - 1e-12).all()


@pytest.mark.parametrize("p", [[-0.1, 0.5], [0.5, 1.5]])
def test_what_is_no_p_value_is_refused(p):
    with pytest.raises(InputError, match="expected 0 to 1"):
        benjamini_hochberg(p)


@given(n_tests=st.integers(1, 300), n_ways=st.integers(2, 6000))
def test_fewest_at_floor_is_what_the_adjustment_does(n_tests, n_ways):
    k = fewest_at_floor(1 / n_ways, n_tests)

    def called(n_at_floor):
        p = np.where(np.arange(n_tests) < n_at_floor, 1 / n_ways, 1.0)
        return (benjamini_hochberg(p) <= 0.05 * (1 + 1e-9)).sum()

    if k is None:
        assert called(n_tests) == 0
        return
    assert called(k) == k
    assert called(k - 1) == 0
