"""15 % of genes are targets; 80 % of them masked, 10 % replaced by genes of the same species."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmix._errors import InputError
from scmix.batches import add_special
from scmix.pretrain.maskers import Masker


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
