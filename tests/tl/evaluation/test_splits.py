import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scmix.genes import SPECIES
from scmix.tl._evaluation.splits import between, within


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), n_splits=st.integers(2, 6), grouped=st.booleans())
def test_every_cell_is_tested_once_and_no_donor_is_on_both_sides(seed, n_splits, grouped):
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(120) % 3)
    donors = rng.integers(8, size=120) if grouped else None
    design = within(codes, donors, n_splits, [0, 1])
    for splits in design.by_seed.values():
        tested = np.concatenate([split.test for split in splits])
        assert np.array_equal(np.sort(tested), np.arange(120))
        for split in splits:
            assert not set(split.train) & set(split.test)
            assert split.train.size + split.test.size == 120
            if grouped:
                assert not set(donors[split.train]) & set(donors[split.test])
            else:
                assert np.ptp(np.bincount(codes[split.test])) <= 1  # stratified
    assert np.array_equal(design.tested, np.arange(120))


def test_few_donors_are_left_out_one_at_a_time():
    donors = np.repeat([0, 1, 2, 3], 10)
    design = within(np.arange(40) % 2, donors, 5, [0, 1], "patient")
    assert design.name == "leave one patient out"
    assert design.fixed
    first, again = design.by_seed.values()
    assert [set(donors[split.test]) for split in first] == [{0}, {1}, {2}, {3}]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.test, other.test)


def test_seeds_draw_other_folds_and_the_same_seed_the_same():
    codes = np.arange(60) % 3
    one, two = (within(codes, None, 5, [0, 1]) for _ in range(2))
    np.testing.assert_array_equal(one.by_seed[0][0].test, two.by_seed[0][0].test)
    assert not np.array_equal(one.by_seed[0][0].test, one.by_seed[1][0].test)
    assert (one.name, one.fixed) == ("5-fold", False)
    assert within(codes, np.arange(60) % 7, 5, [0], "batch").name == "5-fold by batch"


def test_between_species_goes_both_ways():
    species = np.array([1, 0, 0, 1, 1], dtype=np.int8)
    there, back = between(species, SPECIES, [3])
    assert (there.name, back.name) == ("human to mouse", "mouse to human")
    split = there.by_seed[3][0]
    assert (split.train.tolist(), split.test.tolist()) == ([1, 2], [0, 3, 4])
    assert there.tested.tolist() == [0, 3, 4]
    assert back.tested.tolist() == [1, 2]
    assert there.fixed


@pytest.mark.parametrize("n_splits", [2, 5])
def test_name_of_plain_folds(n_splits):
    assert within(np.arange(30) % 2, None, n_splits, [0]).name == f"{n_splits}-fold"
