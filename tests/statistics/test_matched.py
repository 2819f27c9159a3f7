import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, median_abs_deviation, norm, rankdata

from scmix._errors import InputError
from scmix.statistics import matched_null


def genes(n_genes=400, seed=0, n_species=1):
    rng = np.random.default_rng(seed)
    species = np.array(["human", "mouse"])[rng.integers(n_species, size=n_genes)]
    return rng.normal(size=n_genes), rng.random(n_genes), rng.random(n_genes), species


def by_hand(effects, rank, detection, species, min_matched, family, gene):
    """z of one gene, from the words of the docstring."""
    own = np.flatnonzero((species == species[gene]) & np.isfinite(effects))
    tenth = {}
    for name, values in (("rank", rank), ("detection", detection)):
        tenth[name] = dict(
            zip(own, np.floor((rankdata(values[own]) - 0.5) * 10 / len(own)), strict=True)
        )
    here = [own_gene for own_gene in own if all(t[own_gene] == t[gene] for t in tenth.values())]
    largest = max((family[own] == family[g]).sum() for g in here)
    for ring in range(10):
        like = [g for g in own if all(abs(t[g] - t[gene]) <= ring for t in tenth.values())]
        if len(like) >= min_matched + largest:
            break
    others = effects[[g for g in like if family[g] != family[gene]]]
    spread = median_abs_deviation(others, scale="normal")
    return (effects[gene] - np.median(others)) / spread, len(others)


@pytest.mark.parametrize("min_matched", [30, 100])
def test_equals_the_definition(min_matched):
    effects, rank, detection, species = genes(400, n_species=2)
    effects[[3, 50]] = np.nan
    family = np.arange(400)
    family[100:104] = 100
    found = matched_null(
        effects, rank, detection, species, min_matched=min_matched, exclude=family.astype(str)
    )
    for gene in (0, 1, 100, 103, 399):
        z, n_matched = by_hand(effects, rank, detection, species, min_matched, family, gene)
        assert found.z[gene] == pytest.approx(z)
        assert found.n_matched[gene] == n_matched
        assert found.p[gene] == pytest.approx(2 * norm.sf(abs(z)))
    assert np.isnan(found.z[[3, 50]]).all()
    assert np.isnan(found.p[[3, 50]]).all()


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), n_genes=st.integers(0, 300), min_matched=st.integers(1, 400))
def test_properties(seed, n_genes, min_matched):
    effects, rank, detection, species = genes(n_genes, seed, n_species=2)
    z, p, n_matched = matched_null(effects, rank, detection, species, min_matched=min_matched)
    sizes = np.array([(species == name).sum() - 1 for name in species], dtype=int)
    assert (n_matched >= np.minimum(min_matched, sizes)).all()
    assert (n_matched <= sizes).all()
    assert (np.isnan(z) == (n_matched < 20)).all()
    assert ((p >= 0) & (p <= 1) | np.isnan(p)).all()
    shifted = matched_null(3 + 2 * effects, rank, detection, species, min_matched=min_matched)
    np.testing.assert_allclose(shifted.z, z)


def test_rank_and_detection_alone_make_no_gene_stand_out():
    """Effects grow with rank and spread with rarity, three-fold and more, without any driver."""
    rng = np.random.default_rng(1)
    rank, detection = rng.random(3000), rng.random(3000)
    effects = np.exp(-2 * rank) * (1 + rng.normal(size=3000) / np.sqrt(0.05 + detection))
    matched = matched_null(effects, rank, detection, ["human"] * 3000).p
    unmatched = 2 * norm.sf(np.abs((effects - effects.mean()) / effects.std()))
    top = rank < 0.1
    assert (matched <= 0.05).mean() < 0.08
    # genes of the first tenth have neighbours on one side only: better, not perfect
    assert (matched <= 0.05)[top].mean() < 0.13 < 0.2 < (unmatched <= 0.05)[top].mean()


def test_p_is_uniform_when_no_gene_is_special_and_a_tenth_of_drivers_does_not_hide_the_rest():
    effects, rank, detection, species = genes(4000, seed=2)
    drivers = np.random.default_rng(3).random(4000) < 0.1
    null = matched_null(effects, rank, detection, species).p
    assert kstest(null, "uniform").statistic < 0.03
    effects[drivers] += 8
    found = matched_null(effects, rank, detection, species).p
    assert (found[drivers] < 0.001).mean() > 0.99
    assert (found[~drivers] < 0.05).mean() < 0.06


def test_a_gene_and_its_family_are_not_their_own_null():
    effects, rank, detection, species = genes(61, seed=4)
    effects[:40] = 50  # a large family that moves alone
    alone = matched_null(effects, rank, detection, species, exclude=["f"] * 40 + [""] * 21)
    together = matched_null(effects, rank, detection, species)
    assert (alone.n_matched == [21] * 40 + [60] * 21).all()
    assert (alone.p[:40] < 1e-9).all()
    assert not (together.p[:40] < 0.1).any()


def test_like_that_do_not_spread_give_no_z():
    found = matched_null(np.r_[np.zeros(40), 1], np.arange(41), np.ones(41), ["human"] * 41)
    assert np.isnan(found.z).all()


def test_lengths_must_agree():
    with pytest.raises(InputError, match="Found 3 effects, 2 ranks"):
        matched_null([1, 2, 3], [1, 2], [1, 2, 3], ["human"] * 3)
