"""Steps depend on the seed and the step only, and are balanced."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmix._errors import InputError
from scmix.pretrain.sampling import Sampler


def sampler(n=(900, 100, 100, 25), length=20, budget=400, seed=0, **options) -> Sampler:
    dataset = np.repeat(np.arange(4), n)
    species = np.array([0, 0, 1, 1])[dataset]
    lengths = np.full(dataset.size, length)
    return Sampler(species, dataset, lengths, tokens_per_step=budget, seed=seed, **options)


def test_a_step_needs_no_step_before_it():
    one, two = sampler(), sampler()
    forward = [one.rows(step) for step in range(20)]
    for step in reversed(range(20)):
        np.testing.assert_array_equal(forward[step], two.rows(step))


def test_steps_and_seeds_differ():
    rows = {tuple(sampler(seed=seed).rows(step)) for seed in range(3) for step in range(10)}
    assert len(rows) == 30


def test_species_take_turns_in_every_step():
    for step in range(30):
        rows = sampler().rows(step)
        n_human = (rows < 1000).sum()
        assert len(rows) == 20
        assert abs(n_human - 10) <= 2  # a cell drawn twice is dropped, and shifts the turns


def test_data_sets_are_drawn_by_the_square_root_of_their_size():
    drawn = np.concatenate([sampler(budget=200).rows(step) for step in range(3000)])
    shares = np.bincount(np.searchsorted([900, 1000, 1100], drawn, side="right")) / drawn.size
    # 30 : 10 among human data sets, 10 : 5 among mouse
    np.testing.assert_allclose(shares, [0.375, 0.125, 1 / 3, 1 / 6], atol=0.015)


def test_cells_of_a_data_set_are_drawn_alike():
    drawn = np.concatenate([sampler().rows(step) for step in range(4000)])
    times = np.bincount(drawn, minlength=1125)[900:1000]
    assert times.min() > 0.7 * times.mean()
    assert times.max() < 1.3 * times.mean()


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    budget=st.integers(1, 300),
    step=st.integers(0, 2**40),
)
def test_a_step_fills_its_budget_without_repeats(lengths, budget, step):
    lengths = np.array(lengths)
    code = np.arange(lengths.size) % 2
    drawn = Sampler(code, code, lengths, tokens_per_step=budget, seed=1).rows(step)
    assert len(set(drawn)) == len(drawn) >= 1
    total = lengths[drawn].sum()
    assert total <= budget or len(drawn) == 1
    assert (np.diff(lengths[drawn]) <= 0).all()
    if lengths.sum() > 3 * budget:
        assert total > budget - lengths.max()


def test_one_large_cell_makes_a_step():
    assert len(sampler(length=1000, budget=10).rows(0)) == 1


def test_few_data_sets_per_step():
    few = sampler(datasets_per_step=2)
    for step in range(20):
        found = np.unique(np.searchsorted([900, 1000, 1100], few.rows(step), side="right"))
        assert len(found) == 2
        assert found[0] < 2 <= found[1]  # one of each species


def test_one_species():
    rows = Sampler(np.ones(50), np.zeros(50), np.full(50, 3), tokens_per_step=30, seed=0).rows(4)
    assert len(rows) == 10


def test_strata_of_any_code_and_any_type_of_length():
    stratum = np.repeat([70_000, 3, 900], [50, 30, 20])
    species = (stratum == 3).astype(np.int8)
    lengths = np.random.default_rng(0).integers(1, 90, 100)
    draws = [
        Sampler(species, codes, lengths.astype(dtype), tokens_per_step=500, seed=3).rows(5)
        for codes in (stratum, np.unique(stratum, return_inverse=True)[1].astype(np.int16))
        for dtype in (np.int64, np.uint16)
    ]
    for rows in draws[1:]:
        np.testing.assert_array_equal(rows, draws[0])


def test_no_cells():
    with pytest.raises(InputError, match="no cells"):
        Sampler(np.zeros(0), np.zeros(0), np.zeros(0), tokens_per_step=30, seed=0)
