"""Nothing is found where there is nothing, and planted drivers are: benchmarks/bench_nulls.py,
on few simulated data sets."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import average_precision_score

from scmix import statistics


@pytest.fixture(scope="module")
def bench():
    path = Path(__file__).parents[2] / "benchmarks" / "bench_nulls.py"
    if not path.exists():
        pytest.skip("the benchmarks are not here")
    return runpy.run_path(str(path))


@pytest.mark.parametrize("halves", [True, False], ids=["random halves", "random donors"])
def test_false_positive_rate_lies_in_the_binomial_band(bench, halves):
    """One gene of each data set counts, so that calls are independent of each other."""
    n_sets, n_per_state = 150, 2 if halves else 3
    world = bench["World"](n_genes=60, n_per_state=n_per_state, n_cells=6, halves=halves)
    p = []
    for number in range(n_sets):
        shifts = bench["simulate"](world, np.random.default_rng(number))
        deltas, n_cells = shifts.means()
        commonest = shifts.detection.argmax()
        null = statistics.state_null(
            deltas, n_cells, shifts.vectors, shifts.is_goal, donors=shifts.donors
        )
        p.append(null.p[commonest])
    alpha = 2 / 16 if halves else 2 / 20
    low, high = binom.interval(0.999, n_sets, alpha)
    assert not np.isnan(p).any()
    assert low <= (np.array(p) <= alpha * (1 + 1e-9)).sum() <= high


def test_planted_drivers_are_found_by_effect_and_not_by_expression_or_chance(bench):
    """Of 300 genes, 40 change with the state and 15 others drive it, which the encoder knows."""
    world = bench["World"](n_targets=40, n_drivers=15, knowledge=1.0)
    shifts = bench["simulate"](world, np.random.default_rng(0))
    found = bench["rankings"](shifts, np.random.default_rng(1))
    auprc = {name: average_precision_score(shifts.is_driver, x) for name, x in found.items()}
    assert auprc["effect"] > 0.6
    assert auprc["effect"] > 3 * auprc["differential expression"]
    assert auprc["effect"] > 3 * auprc["random"]
    p = bench["p_values"](shifts)
    both = (p["states shuffled over donors"] <= 0.05) & (p["matched genes"] <= 0.05)
    assert both[shifts.is_driver].mean() > 0.5
    assert both[~shifts.is_driver].mean() < 0.05


def test_an_encoder_that_knows_no_drivers_finds_none(bench):
    world = bench["World"](n_targets=40, n_drivers=15, knowledge=0.0)
    found = []
    for number in range(2):
        shifts = bench["simulate"](world, np.random.default_rng(number))
        ranking = bench["rankings"](shifts, np.random.default_rng(number))["effect"]
        found.append(average_precision_score(shifts.is_driver, ranking))
    assert np.mean(found) < 0.15  # 0.05 by chance
