import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmix._errors import InputError
from scmix.classifiers._split import by_class, by_group, divide, named, set_aside


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=60), st.integers(0, 3))
def test_every_class_is_divided_and_none_is_used_up(codes, seed):
    codes = np.array(codes)
    aside = by_class(codes, 0.2, seed)
    assert not aside[codes < 0].any()
    for code in range(5):
        n, n_aside = (codes == code).sum(), aside[codes == code].sum()
        assert n_aside == (round(0.2 * n) if n >= 5 else 0)
    assert np.array_equal(aside, by_class(codes, 0.2, seed))


def test_rare_classes_give_no_more_than_the_share():
    codes = np.repeat([0, 1, 2], [9, 10, 40])
    aside = by_class(codes, 0.1, 0)
    assert np.bincount(codes[aside], minlength=3).tolist() == [0, 1, 4]
    few = by_class(codes[:13], 0.1, 0)
    assert codes[:13][few].tolist() == [0]  # better one than none


@given(st.integers(2, 8), st.integers(0, 3))
def test_groups_are_never_divided(n_groups, seed):
    rng = np.random.default_rng(seed)
    groups, codes = rng.integers(0, n_groups, 80), rng.integers(0, 3, 80)
    groups[:n_groups] = np.arange(n_groups)
    aside = by_group(codes, groups, 0.2, seed)
    assert 0 < aside.sum() < 80
    assert not set(groups[aside]) & set(groups[~aside])
    assert np.array_equal(aside, by_group(codes, groups, 0.2, seed))


def test_a_class_of_one_donor_stays_in_training():
    groups = np.repeat(np.arange(5), 20)
    for special in range(5):
        codes = np.tile([0, 1], 50)
        codes[groups == special] = 2
        aside = by_group(codes, groups, 0.2, 0)
        assert special not in groups[aside]


def test_seeds_differ():
    codes = np.zeros(100, int)
    assert not np.array_equal(by_class(codes, 0.3, 0), by_class(codes, 0.3, 1))


def test_named_cells():
    aside, used = named(pd.Series(["train", "validation", "test"], name="split"))
    assert (aside.tolist(), used.tolist()) == ([False, True, False], [True, True, False])
    aside, used = named(pd.Series([True, False]))
    assert (aside.tolist(), used.tolist()) == ([True, False], [True, True])


@pytest.mark.parametrize("values", [["train", "dev"], ["train", None], [0, 1]])
def test_other_names_are_refused(values):
    with pytest.raises(InputError, match="split"):
        named(pd.Series(values, name="split"))


def test_one_group_is_no_group():
    codes = np.zeros((20, 1), int)
    assert np.array_equal(set_aside(codes, np.ones(20), 0.2, 0), by_class(codes[:, 0], 0.2, 0))


def test_a_class_of_any_key_stays_in_training():
    groups = np.repeat(np.arange(5), 20)
    for special in range(5):
        codes = np.tile([[0, 0], [1, 1]], (50, 1))
        codes[groups == special, 1] = 2
        assert special not in groups[set_aside(codes, groups, 0.2, 0)]
    for seed in range(20):
        codes = np.stack([np.zeros(20, int), np.arange(20) == 7], axis=1).astype(int)
        aside = set_aside(codes, None, 0.5, seed)
        assert not aside[7]
        assert 9 <= aside.sum() <= 10


@given(st.integers(0, 3), st.booleans())
def test_cells_that_choose_do_not_calibrate(seed, grouped):
    rng = np.random.default_rng(seed)
    aside, codes = rng.random(600) < 0.5, rng.integers(-1, 3, 600)
    groups = rng.integers(0, 8, 600) if grouped else None
    chooses, calibrates = divide(aside, codes, groups, seed)
    assert np.array_equal(chooses | calibrates, aside)
    assert not (chooses & calibrates).any()
    assert min(chooses.sum(), calibrates.sum()) >= 50
    if grouped:
        assert not set(groups[chooses]) & set(groups[calibrates])
    else:
        for code in range(3):
            n = [(codes[which] == code).sum() for which in (chooses, calibrates)]
            assert 0 <= n[1] - n[0] <= 1
    assert np.array_equal(chooses, divide(aside, codes, groups, seed)[0])


def test_few_cells_do_both():
    aside = np.arange(200) < 99
    chooses, calibrates = divide(aside, np.zeros(200, int), None, 0)
    assert np.array_equal(chooses, aside)
    assert np.array_equal(calibrates, aside)
