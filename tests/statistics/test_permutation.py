from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from scmix._errors import InputError
from scmix.statistics import state_null
from scmix.statistics._labellings import design, labellings


def unit(vector):
    return vector / np.linalg.norm(vector)


def donors(rng, n_per_state=3, n_genes=5, n_dimensions=6, pull=-1.0, lacking=0.0):
    """Donors without states: shifts of a gene have a part of their own and point away from the
    donor's own vector, as those of real edits do."""
    n_rows = 2 * n_per_state
    vectors = rng.normal(size=(n_rows, n_dimensions))
    genes = rng.normal(size=(n_genes, n_dimensions)) * 0.3
    noise = rng.normal(size=(n_rows, n_genes, n_dimensions)) * 0.1
    n_cells = (rng.random((n_rows, n_genes)) >= lacking).astype(int)
    return genes + pull * vectors[:, None] + noise, n_cells, vectors


def mean_along(deltas, n_cells, labelling, direction):
    """Mean over start donors that have the gene, in a loop; zero where none has it."""
    found = []
    for gene in range(deltas.shape[1]):
        rows = [d for d in np.flatnonzero(~labelling) if n_cells[d, gene] > 0]
        found.append(np.mean([deltas[d, gene] @ direction for d in rows]) if rows else 0.0)
    return np.array(found)


def by_hand(deltas, n_cells, vectors, labelling):
    """The statistic of each gene: along the difference of the states' mean vectors."""
    direction = vectors[labelling].mean(axis=0) - vectors[~labelling].mean(axis=0)
    return mean_along(deltas, n_cells, labelling, direction)


def effect_by_hand(deltas, n_cells, vectors, is_goal):
    """The effect of each gene: along the difference of the states' unit vectors."""
    goal, start = unit(vectors[is_goal].mean(axis=0)), unit(vectors[~is_goal].mean(axis=0))
    return mean_along(deltas, n_cells, is_goal, goal - start)


def p_by_hand(deltas, n_cells, vectors, is_goal):
    observed = by_hand(deltas, n_cells, vectors, is_goal)
    values = []
    for chosen in combinations(range(len(is_goal)), int(is_goal.sum())):
        labelling = np.isin(np.arange(len(is_goal)), chosen)
        values.append(by_hand(deltas, n_cells, vectors, labelling))
    values = np.array(values)
    scaled = values / np.sqrt((values**2).mean(axis=0))
    own = observed / np.sqrt((values**2).mean(axis=0))
    p = (np.abs(values) >= np.abs(observed) * (1 - 1e-9)).mean(axis=0)
    largest = np.abs(scaled).max(axis=1)
    p_family = (largest[:, None] >= np.abs(own) * (1 - 1e-9)).mean(axis=0)
    return p, p_family


@pytest.mark.parametrize(("n_goal", "n_start"), [(3, 3), (4, 3), (3, 5)])
def test_equals_the_definition_over_all_labellings(n_goal, n_start):
    rng = np.random.default_rng(1)
    deltas, n_cells, vectors = donors(rng, 4, lacking=0.2)
    rows = n_goal + n_start
    deltas, n_cells, vectors = deltas[:rows], n_cells[:rows], vectors[:rows]
    is_goal = np.arange(rows) < n_goal
    n_cells[-3:] = 1  # every gene in at least three start donors
    found = state_null(deltas, n_cells, vectors, is_goal)
    p, p_family = p_by_hand(deltas, n_cells, vectors, is_goal)
    np.testing.assert_allclose(found.p, p)
    np.testing.assert_allclose(found.p_family, p_family)
    assert found.exact
    assert found.n_possible == len(list(combinations(range(rows), n_goal)))
    assert found.p_min == pytest.approx(1 / found.n_possible)
    expected = effect_by_hand(deltas, n_cells, vectors, is_goal)
    np.testing.assert_allclose(found.effect, expected)
    np.testing.assert_allclose(np.nanmean(found.per_donor, axis=0), expected)


def test_smallest_p_is_reached_and_worked_out_by_hand():
    """Start donors at -x, goal donors at +x; the gene moves start cells along +x and is inert in
    goal cells. Only the observed labelling has all moving donors in start and the full direction.
    """
    vectors = np.array([[-1.0, 0.1], [-1, 0.2], [-1, 0.3], [1, 0.1], [1, 0.2], [1, 0.3]])
    is_goal = np.arange(6) >= 3
    deltas = np.zeros((6, 1, 2))
    deltas[:3, 0, 0] = 0.5
    found = state_null(deltas, np.ones((6, 1)), vectors, is_goal)
    assert found.p[0] == found.p_family[0] == found.p_min == 1 / 20
    # both state vectors have the y part 0.2 / sqrt(1.04): the direction is (2 / sqrt(1.04), 0)
    assert found.effect[0] == pytest.approx(0.5 * 2 / np.sqrt(1.04))


def test_paired_donors_swap_with_themselves_only():
    rng = np.random.default_rng(2)
    deltas, n_cells, vectors = donors(rng, 4)
    is_goal = np.array([0, 1, 0, 1, 1, 0, 0, 1], dtype=bool)
    names = ["d1", "d1", "d2", "d2", "d3", "d3", "d4", "d4"]
    found = state_null(deltas, n_cells, vectors, is_goal, donors=names)
    flips = (np.arange(16)[:, None] >> np.arange(4)) & 1
    observed = np.abs(by_hand(deltas, n_cells, vectors, is_goal))
    values = np.array(
        [by_hand(deltas, n_cells, vectors, is_goal ^ np.repeat(f, 2).astype(bool)) for f in flips]
    )
    assert found.n_possible == 16
    np.testing.assert_allclose(found.p, (np.abs(values) >= observed * (1 - 1e-9)).mean(axis=0))


def test_pairs_and_single_donors_together():
    is_goal = np.array([0, 1, 0, 0, 1, 1], dtype=bool)
    plan = design(is_goal, ["pair", "pair", "a", "b", "c", "d"])
    others, exact = labellings(plan, 10, np.random.default_rng(0))
    assert (plan.n_possible, exact, len(others)) == (12, True, 11)
    assert len(np.unique(others, axis=0)) == 11
    assert (others[:, 0] != others[:, 1]).all()
    assert (others[:, 2:].sum(axis=1) == 2).all()
    drawn = plan.draws(50, np.random.default_rng(0))
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert (drawn[:, 2:].sum(axis=1) == 2).all()
    assert 0 < drawn[:, 0].mean() < 1


def test_many_donors_are_sampled_with_a_seed():
    rng = np.random.default_rng(3)
    deltas, n_cells, vectors = donors(rng, 8, n_genes=3)
    is_goal = np.repeat([False, True], 8)
    first, again, other = (
        state_null(deltas, n_cells, vectors, is_goal, n_permutations=200, seed=seed)
        for seed in (0, 0, 1)
    )
    assert not first.exact
    assert (first.n_possible, first.p_min) == (12870, 1 / 201)
    np.testing.assert_array_equal(first.p, again.p)
    assert (first.p != other.p).any()
    exact, _ = p_by_hand(deltas, n_cells, vectors, is_goal)
    many = state_null(deltas, n_cells, vectors, is_goal, n_permutations=4999)
    assert np.abs(many.p - exact).max() < 4 * np.sqrt(0.25 / 5000)


@pytest.mark.parametrize("n_start", [1, 2])
def test_fewer_than_three_donors_give_no_p(n_start):
    deltas, n_cells, vectors = donors(np.random.default_rng(4), 4)
    rows = slice(4 - n_start, None)
    is_goal = np.repeat([False, True], 4)[rows]
    found = state_null(deltas[rows], n_cells[rows], vectors[rows], is_goal)
    assert found.inference == "descriptive"
    assert np.isnan(found.p).all()
    assert np.isnan(found.p_family).all()
    np.testing.assert_allclose(
        found.effect,
        effect_by_hand(deltas[rows], n_cells[rows], vectors[rows], is_goal),
    )


def test_shifts_of_start_donors_alone_give_no_p():
    deltas, n_cells, vectors = donors(np.random.default_rng(5), 4)
    is_goal = np.repeat([False, True], 4)
    n_cells[is_goal] = 0
    found = state_null(deltas, n_cells, vectors, is_goal)
    assert found.inference == "descriptive"
    assert np.isnan(found.p).all()


def test_a_gene_of_two_start_donors_is_not_tested_and_does_not_disturb_the_others():
    rng = np.random.default_rng(6)
    deltas, n_cells, vectors = donors(rng, 4, n_genes=4)
    is_goal = np.repeat([False, True], 4)
    n_cells[:2, 3] = 0
    deltas[:, 3] *= 1e6
    deltas[:2, 3] = np.nan  # what an absent gene holds is not looked at
    found = state_null(deltas, n_cells, vectors, is_goal)
    without = state_null(deltas[:, :3], n_cells[:, :3], vectors, is_goal)
    assert found.inference == "permutation"
    assert np.isnan(found.p[3])
    assert np.isnan(found.per_donor[:2, 3]).all()
    np.testing.assert_allclose(found.p[:3], without.p)
    np.testing.assert_allclose(found.p_family[:3], without.p_family)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), n=st.integers(3, 4))
def test_properties(seed, n):
    rng = np.random.default_rng(seed)
    deltas, n_cells, vectors = donors(rng, n, lacking=0.1)
    is_goal = rng.permutation(np.repeat([False, True], n))
    found = state_null(deltas, n_cells, vectors, is_goal)
    known = ~np.isnan(found.p)
    assert (found.p[known] >= found.p_min * (1 - 1e-12)).all()
    assert (found.p_family[known] >= found.p[known] - 1e-12).all()
    assert (found.p_family[known] <= 1).all()
    order = rng.permutation(2 * n)
    moved = state_null(deltas[order], n_cells[order], vectors[order], is_goal[order])
    np.testing.assert_allclose(moved.p, found.p)
    np.testing.assert_allclose(moved.effect, found.effect)
    scaled = state_null(3 * deltas, n_cells, 5 * vectors, is_goal)
    np.testing.assert_allclose(scaled.p, found.p)
    np.testing.assert_allclose(scaled.effect, 3 * found.effect)


def test_a_clear_driver_reaches_the_floor_although_most_labellings_mix_the_states():
    """Three of four goal donors with one of start point almost where the goal does: with unit
    state vectors half of all labellings would be as extreme as the true one.
    """
    rng = np.random.default_rng(10)
    is_goal, axis = np.repeat([False, True], 4), np.eye(8)[0]
    vectors = np.outer(np.where(is_goal, 1, -1), axis) + 0.1 * rng.normal(size=(8, 8))
    deltas = 0.3 * axis + 0.01 * rng.normal(size=(8, 1, 8))
    found = state_null(deltas, np.ones((8, 1)), vectors, is_goal)
    assert found.p[0] <= 2 / 70 + 1e-9  # the true labelling and its mirror image


def rate(p, alpha):
    return (p <= alpha * (1 + 1e-9)).mean()


def test_false_positives_keep_to_alpha_under_donor_effects_without_state_effect():
    """Shifts point away from each donor's own vector; one gene of each of 800 data sets counts.

    Permuting the direction alone, with the shifts of start donors, calls nearly all of them.
    """
    rng = np.random.default_rng(7)
    is_goal, alpha, n_sets = np.repeat([False, True], 3), 0.1, 800
    right, direction_only = [], []
    for _ in range(n_sets):
        deltas, n_cells, vectors = donors(rng, 3, n_genes=1, n_dimensions=16)
        right.append(state_null(deltas, n_cells, vectors, is_goal).p[0])
        direction_only.append(p_of_direction_only(deltas[:, 0], vectors, is_goal))
    low, high = binom.interval(0.999, n_sets, alpha)
    assert low <= rate(np.array(right), alpha) * n_sets <= high
    assert rate(np.array(direction_only), alpha) > 0.5


def test_false_positives_keep_to_alpha_when_the_goal_is_half_of_each_donors_cells():
    rng = np.random.default_rng(8)
    is_goal, alpha, n_sets = np.tile([False, True], 4), 1 / 8, 800
    p = []
    for _ in range(n_sets):
        deltas, n_cells, vectors = donors(rng, 4, n_genes=1, n_dimensions=16)
        own = np.repeat(vectors[::2], 2, axis=0)  # both halves have their donor's vector, but ...
        halves = own + rng.normal(size=own.shape) * 0.2  # ... for which cells fell into them
        deltas = deltas + vectors[:, None] - halves[:, None]
        p.append(state_null(deltas, n_cells, halves, is_goal, donors=np.repeat(range(4), 2)).p[0])
    low, high = binom.interval(0.999, n_sets, alpha)
    assert low <= rate(np.array(p), alpha) * n_sets <= high


def test_family_wise_error_keeps_to_alpha():
    rng = np.random.default_rng(9)
    is_goal, alpha, n_sets = np.repeat([False, True], 3), 0.1, 400
    calls = 0
    for _ in range(n_sets):
        deltas, n_cells, vectors = donors(rng, 3, n_genes=30, pull=-0.2)
        calls += state_null(deltas, n_cells, vectors, is_goal).p_family.min() <= alpha * (1 + 1e-9)
    assert calls <= binom.ppf(0.999, n_sets, alpha)


def p_of_direction_only(deltas, vectors, is_goal):
    values = []
    for chosen in combinations(range(len(is_goal)), int(is_goal.sum())):
        labelling = np.isin(np.arange(len(is_goal)), chosen)
        goal, start = (vectors[s].mean(axis=0) for s in (labelling, ~labelling))
        values.append(abs(deltas[~is_goal].mean(axis=0) @ (goal - start)))
        if (labelling == is_goal).all():
            observed = values[-1]
    return (np.array(values) >= observed * (1 - 1e-9)).mean()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"is_goal": np.zeros(6, bool)}, "donors of one state only"),
        ({"deltas": np.zeros((5, 2, 3))}, "Found shifts of 5 rows"),
        ({"donor_vectors": np.ones((6, 4))}, r"donor_vectors \(6, 4\)"),
        ({"donor_vectors": np.full((6, 3), np.nan)}, "not finite"),
        ({"donors": ["a", "a", "b", "c", "d", "e"]}, "donor 'a' twice"),
    ],
)
def test_bad_input_is_named(change, found):
    given_ = {
        "deltas": np.zeros((6, 2, 3)),
        "n_cells": np.ones((6, 2)),
        "donor_vectors": np.ones((6, 3)),
        "is_goal": np.arange(6) >= 3,
    }
    with pytest.raises(InputError, match=found):
        state_null(**given_ | change)
