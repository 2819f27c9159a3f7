from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from scmix._errors import InputError
from scmix.statistics import bootstrap_interval


def test_equals_the_quantiles_of_all_resamples():
    effects = np.array([0.1, 0.5, 0.2, 0.9, 0.4])
    every = [np.mean(chosen) for chosen in product(effects, repeat=5)]
    reach = np.sqrt(5 / 4) * t.ppf(0.9, 4)  # level 0.8
    expected = np.quantile(every, [norm.cdf(-reach), norm.cdf(reach)])
    found = bootstrap_interval(effects[:, None], 0.8, n_resamples=100_000)
    np.testing.assert_allclose(np.ravel(found), expected, atol=0.005)


def test_many_donors_give_the_interval_of_t():
    effects = np.random.default_rng(0).normal(size=(400, 1))
    low, high = bootstrap_interval(effects, n_resamples=10_000)
    mean, half = effects.mean(), t.ppf(0.975, 399) * effects.std(ddof=1) / 20
    np.testing.assert_allclose([low[0], high[0]], [mean - half, mean + half], atol=0.05 * half)


@pytest.mark.parametrize(("n_donors", "least"), [(4, 0.84), (8, 0.92)])
def test_covers_the_mean_about_as_often_as_it_says(n_donors, least):
    """Of 2,000 normal means; plain percentiles cover 0.80 and 0.89."""
    effects = np.random.default_rng(1).normal(size=(n_donors, 2000))
    low, high = bootstrap_interval(effects, n_resamples=1000)
    covered = ((low <= 0) & (high >= 0)).mean()
    assert least < covered < 0.97


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), n_donors=st.integers(1, 7))
def test_properties(seed, n_donors):
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=(n_donors, 12))
    effects[rng.random(effects.shape) < 0.3] = np.nan
    low, high = bootstrap_interval(effects, n_resamples=200)
    seen = (~np.isnan(effects)).sum(axis=0)
    assert (np.isnan(low) == (seen < 3)).all()
    tested = seen >= 3
    mean = np.nanmean(effects[:, tested], axis=0)
    assert (low[tested] <= mean).all()
    assert (mean <= high[tested]).all()
    order = rng.permutation(n_donors)
    again = bootstrap_interval(effects[order], n_resamples=200)
    np.testing.assert_allclose(again, (low, high))


def test_seed():
    effects = np.random.default_rng(2).normal(size=(9, 1))
    one, same, other = (bootstrap_interval(effects, seed=seed)[0] for seed in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize(("effects", "level"), [(np.ones(3), 0.95), (np.ones((3, 1)), 95)])
def test_bad_input_is_named(effects, level):
    with pytest.raises(InputError, match="expected a matrix"):
        bootstrap_interval(effects, level)
