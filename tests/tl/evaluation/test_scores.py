import numpy as np
import pytest

from scmix import metrics
from scmix.tl._evaluation.methods import Method
from scmix.tl._evaluation.scores import Table, outcome
from scmix.tl._evaluation.splits import Design, Split


def method(**options):
    return Method("mine", "kNN", "yours", predict=lambda fold: None, **options)


def certain(codes, n_classes=2):
    return np.eye(n_classes)[np.asarray(codes)]


def design(n_cells, seeds=(0,)):
    rows = np.arange(n_cells)
    return Design("5-fold", {seed: [Split(seed, 0, rows[:0], rows)] for seed in seeds}, False)


def test_outcome_of_the_perfect_and_of_the_wrong():
    truth = np.array([0, 1, 1, 0])
    best = outcome(method(), certain(truth), truth).scores
    assert [best[name] for name in ("accuracy", "macro_f1", "ece", "brier", "aurc")] == [
        *(1, 1, 0, 0, 0)
    ]
    worst = outcome(method(), certain(1 - truth), truth).scores
    assert [worst[name] for name in ("accuracy", "ece", "brier", "aurc")] == [0, 1, 2, 1]


def test_scores_that_are_no_probabilities_have_no_calibration():
    truth = np.array([0, 1, 1])
    scores = outcome(method(calibrated=False), certain([0, 1, 0]) * 7, truth).scores
    assert np.isnan([scores["ece"], scores["brier"]]).all()
    assert scores["aurc"] > 0
    assert scores["accuracy"] == pytest.approx(2 / 3)


def test_row_has_mean_spread_interval_and_lead_over_the_reference():
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=300)
    donors = rng.integers(6, size=300)
    worse = {s: np.where(rng.random(300) < 0.4, 1 - truth, truth) for s in (0, 1)}
    better = {s: np.where(rng.random(300) < 0.1, 1 - truth, truth) for s in (0, 1)}
    found, base = (
        {s: outcome(method(), certain(codes), truth) for s, codes in part.items()}
        for part in (better, worse)
    )
    table = Table(design(300, (0, 1)), truth, 2, donors)
    row = table.row(method(), found, base)
    each = [metrics.label_scores(truth, better[s], 2)["macro_f1"] for s in (0, 1)]
    assert row["macro_f1"] == pytest.approx(np.mean(each))
    assert row["macro_f1_sd"] == pytest.approx(np.std(each, ddof=1))
    draws = metrics.bootstrap_label_scores(truth, list(better.values()), 2, units=donors)
    assert row["macro_f1_low"] == pytest.approx(np.quantile(draws["macro_f1"], 0.025))
    assert row["interval"] == "6 donors"
    assert row["majority_rate"] == np.bincount(truth).max() / 300
    assert 0 < row["lead_low"] < row["lead"] < row["lead_high"]
    same = table.row(method(), base, base)
    assert (same["lead"], same["lead_low"], same["lead_high"]) == (0, 0, 0)
    cells = Table(design(300), truth, 2, None).row(method(), base, base)
    assert cells["interval"] == "300 cells"


def test_one_seed_has_no_spread_and_a_missing_package_no_score():
    truth = np.array([0, 1, 1, 0])
    table = Table(design(4), truth, 2, None)
    found = {0: outcome(method(), certain(truth), truth)}
    row = table.row(method(), found, found)
    assert np.isnan(row["macro_f1_sd"])
    missing = table.missing(method(missing="celltypist"))
    assert missing["note"] == "not installed: pip install celltypist"
    assert np.isnan(missing["macro_f1"])
    assert list(missing) == list(row)
