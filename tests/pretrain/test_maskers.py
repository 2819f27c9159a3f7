"""Each masker hides as many genes as it says, of each cell or of the batch, and no others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmix._errors import InputError
from scmix.batches import Sequences, add_special
from scmix.pretrain import recipe
from scmix.pretrain.maskers import (
    KeepK,
    Masker,
    NonzeroZero,
    Subset,
    Uniform,
    make_part_masker,
    masked_as,
)


@pytest.fixture
def batch(corpus):
    rows = np.arange(len(corpus))
    cells = corpus.sequences(rows)
    whole = add_special(cells, corpus.vocabulary, corpus.species[rows], max_length=200)
    return whole.tokens, np.repeat(corpus.species[rows], whole.lengths)


def test_shares_are_exact(batch, vocabulary):
    tokens, species = batch
    out = Masker(vocabulary)(tokens, species, np.random.default_rng(0))
    n_genes = (~np.isin(tokens, vocabulary.special_ids)).sum()
    n = round(0.15 * n_genes)
    assert len(out.positions) == n
    shown = out.tokens[out.positions]
    n_masked = (shown == vocabulary.special["<mask>"]).sum()
    assert n_masked == round(0.8 * n)
    # a replacement can be the gene itself by chance: 1 in 60
    n_changed = ((shown != out.labels) & (shown != vocabulary.special["<mask>"])).sum()
    assert 0.8 * 0.1 * n < n_changed <= round(0.1 * n)


def test_only_targets_change_and_labels_are_what_stood_there(batch, vocabulary):
    tokens, species = batch
    before = tokens.copy()
    out = Masker(vocabulary)(tokens, species, np.random.default_rng(1))
    np.testing.assert_array_equal(tokens, before)
    np.testing.assert_array_equal(out.labels, tokens[out.positions])
    others = np.delete(np.arange(tokens.size), out.positions)
    np.testing.assert_array_equal(out.tokens[others], tokens[others])
    assert (np.diff(out.positions) > 0).all()


@given(seed=st.integers(0, 2**32), share=st.floats(0.01, 0.99), replaced=st.floats(0.0, 1.0))
def test_replacements_are_of_the_cells_species_and_special_tokens_stay(
    vocabulary, separate, seed, share, replaced
):
    for voc in (vocabulary, separate):
        rng = np.random.default_rng(seed)
        species = np.repeat([0, 1], 150)
        genes = [np.flatnonzero(voc.species_of_token[code]) for code in (0, 1)]
        tokens = np.concatenate([rng.choice(genes[0], 150), rng.choice(genes[1], 150)])
        special = rng.choice(300, 40, replace=False)
        tokens[special] = rng.choice(voc.special_ids, 40)
        masker = Masker(voc, share=share, masked=1 - replaced, replaced=replaced)
        out = masker(tokens, species, rng)
        np.testing.assert_array_equal(out.tokens[special], tokens[special])
        assert not np.isin(out.positions, special).any()
        shown = out.tokens != voc.special["<mask>"]
        shown[special] = False
        assert voc.species_of_token[species[shown], out.tokens[shown]].all()


def test_every_gene_can_be_a_replacement(vocabulary):
    masker = Masker(vocabulary, share=0.99, masked=0.0, replaced=1.0)
    mouse = np.flatnonzero(vocabulary.species_of_token[1])
    tokens = np.full(5000, mouse[0])
    out = masker(tokens, np.ones(5000, np.int8), np.random.default_rng(0))
    np.testing.assert_array_equal(np.unique(out.tokens), mouse)


def test_the_same_generator_gives_the_same_masks(batch, vocabulary):
    tokens, species = batch
    one, two, other = (
        Masker(vocabulary)(tokens, species, np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(one.tokens, two.tokens)
    np.testing.assert_array_equal(one.positions, two.positions)
    assert not np.array_equal(one.positions, other.positions)


def test_wrong_shares_are_refused(vocabulary):
    with pytest.raises(InputError, match="share=0"):
        Masker(vocabulary, share=0)
    with pytest.raises(InputError, match="at most 1"):
        Masker(vocabulary, masked=0.8, replaced=0.3)


def cells_of(*lengths: int) -> Sequences:
    return Sequences.from_list([range(100 * i, 100 * i + n) for i, n in enumerate(lengths)])


def hidden_of_cells(cells: Sequences, hidden: np.ndarray) -> list[int]:
    return [int(part.sum()) for part in np.split(hidden, cells.indptr[1:-1])]


@given(seed=st.integers(0, 2**32), share=st.floats(0.01, 0.99))
def test_uniform_hides_the_share_of_each_cell_and_never_all(seed, share):
    cells = cells_of(20, 0, 1, 3, 50)
    hidden = Uniform(share)(cells, np.random.default_rng(seed))
    expected = [min(round(share * n), max(n - 1, 0)) for n in (20, 0, 1, 3, 50)]
    assert hidden_of_cells(cells, hidden) == expected


@given(seed=st.integers(0, 2**32), k=st.integers(1, 60))
def test_keep_k_shows_k_genes_exactly(seed, k):
    cells = cells_of(20, 0, 1, 3, 50)
    shown = ~KeepK(k)(cells, np.random.default_rng(seed))
    assert hidden_of_cells(cells, shown) == [min(k, n) for n in (20, 0, 1, 3, 50)]


@pytest.mark.parametrize("masker", [Uniform(0.3), KeepK(7)], ids=["uniform", "keep_k"])
def test_every_gene_has_the_same_chance(masker):
    cells, rng = cells_of(10), np.random.default_rng(0)
    often = np.mean([masker(cells, rng) for _ in range(4000)], axis=0)
    np.testing.assert_allclose(often, 0.3, atol=0.03)


def test_a_subset_has_a_share_of_its_own_in_each_cell_and_is_never_empty():
    cells, rng = cells_of(0, 1, 300, 0, 2, 0), np.random.default_rng(0)
    for _ in range(50):
        shown = hidden_of_cells(cells, ~Subset(0.01, 0.02)(cells, rng))
        assert min(shown[1], shown[2], shown[4]) >= 1
    share = [1 - Subset(0.3, 1.0)(cells, rng)[1:301].mean() for _ in range(300)]
    assert min(share) > 0.2
    assert max(share) > 0.95
    assert np.mean(share) == pytest.approx(0.65, abs=0.05)
    assert not Subset(1.0, 1.0)(cells, rng).any()


def test_zeros_are_hidden_at_their_own_rate_where_they_were_measured():
    cells, rng = cells_of(100, 40), np.random.default_rng(0)
    measured = np.ones((2, 1100), bool)
    measured[1, 600:] = False
    masker = NonzeroZero(0.3, 0.03)
    assert hidden_of_cells(cells, masker(cells, rng)) == [30, 12]
    drawn = [masker.zeros(cells, measured, rng) for _ in range(200)]
    for zeros in drawn:
        assert not np.isin(zeros[0], cells[0]).any()
        assert not np.isin(zeros[1], cells[1]).any()
        assert measured[1, zeros[1]].all()
    means = np.mean([zeros.lengths for zeros in drawn], axis=0)
    np.testing.assert_allclose(means, [0.03 * 1000, 0.03 * 560], rtol=0.1)


def test_masked_as_shows_masks_and_keeps_what_stood_there():
    tokens, hidden = np.array([5, 6, 7, 8]), np.array([False, True, False, True])
    out = masked_as(tokens, hidden, 1)
    assert out.tokens.tolist() == [5, 1, 7, 1]
    assert (out.positions.tolist(), out.labels.tolist()) == ([1, 3], [6, 8])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("uniform", Uniform), ("keep_k", KeepK), ("subset", Subset), ("nonzero_zero", NonzeroZero)],
)
def test_recipes_name_the_masker_of_visible_genes(name, kind):
    assert isinstance(make_part_masker(recipe("wced-rank", part_masker=name)), kind)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Uniform(0.0),
        lambda: KeepK(0),
        lambda: Subset(0.5, 0.2),
        lambda: NonzeroZero(0.3, 1.0),
    ],
)
def test_shares_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="expected"):
        wrong()
