import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scmix._errors import InputError
from scmix.decoders import Profiles, _predict, predict
from scmix.decoders._log_values import log_values
from scmix.decoders._profiles import by_token
from scmix.decoders._shown import likeliest_zeros, show
from scmix.ranks import rank_encode


@pytest.fixture
def genes(vocabulary):
    return np.flatnonzero(vocabulary.species_of_token.all(0))[:50]


def run(encoder, decoder, vocabulary, profiles, genes, **options):
    options = {"device": "cpu", "dtype": "float32", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return predict(encoder, decoder, vocabulary, profiles, genes, **options)


def test_order_is_that_of_rank_encode(profiles, vocabulary):
    rng = np.random.default_rng(3)
    columns = rng.permutation(vocabulary.n_tokens)[:300].astype(np.int32)
    columns[::7] = -1
    columns[1] = columns[2]  # two columns of one gene
    counts = sp.random(
        9, 300, 0.3, format="csr", random_state=3, data_rvs=lambda n: rng.integers(1, 9, n)
    )
    species = np.arange(9, dtype=np.int8) % 2
    expected = rank_encode(counts.astype(np.float32), columns, vocabulary.medians, species)
    tokens = by_token(counts, columns, vocabulary.n_tokens)
    found = Profiles.of(tokens, vocabulary.medians, species, np.ones(9))
    assert np.array_equal(found.cells.tokens, expected.tokens)
    assert np.array_equal(found.cells.indptr, expected.indptr)
    rows = np.repeat(np.arange(9), found.cells.lengths)
    assert np.array_equal(found.counts, tokens.toarray()[rows, found.cells.tokens])


def test_shown_are_the_genes_with_their_values(profiles, vocabulary):
    shown = show(profiles, vocabulary, total=1e4, max_length=30)
    for row, tokens in enumerate(shown.sequences):
        where = slice(*shown.sequences.indptr[[row, row + 1]])
        cell = profiles[np.array([row])]
        if not cell.cells.tokens.size:
            assert tokens.size == 0
            continue
        assert tokens.tolist() == [*vocabulary.prefix(cell.species[0]), *cell.cells.tokens[:29]]
        assert shown.known[where].tolist() == [False, *[True] * (tokens.size - 1)]
        expected = log_values(cell.counts[:29], cell.totals)
        np.testing.assert_array_equal(shown.values[where], [0, *expected])


def test_zeros_shown_are_the_likeliest_of_the_measured(profiles, vocabulary):
    rng = np.random.default_rng(0)
    mean = rng.random((2, vocabulary.n_tokens))
    measured = vocabulary.species_of_token & (rng.random(vocabulary.n_tokens) < 0.5)
    zeros = likeliest_zeros(profiles, mean, measured, most=100)
    for cell, chosen, species in zip(profiles.cells, zeros, profiles.species, strict=True):
        usable = measured[species].copy()
        usable[cell] = False
        order = np.argsort(-np.where(usable, mean[species], -1))
        assert chosen.tolist() == order[: min(cell.size, 100 - cell.size)].tolist()


def test_predictions_do_not_depend_on_cells_genes_or_batches(
    encoder, decoder, vocabulary, profiles, genes, monkeypatch
):
    together = run(encoder, decoder, vocabulary, profiles, genes)
    assert np.isnan(together).all(1).tolist() == (profiles.cells.lengths == 0).tolist()
    monkeypatch.setattr(_predict, "_QUERIES", 7)
    blocks = run(encoder, decoder, vocabulary, profiles, genes, batch_tokens=30)
    np.testing.assert_allclose(blocks, together, atol=1e-5)
    alone = [run(encoder, decoder, vocabulary, profiles[np.array([i])], genes) for i in range(7)]
    np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-5)
    few = run(encoder, decoder, vocabulary, profiles, genes[10:12])
    np.testing.assert_allclose(few, together[:, 10:12], atol=1e-5)
    assert together[~np.isnan(together)].min() >= 0


def test_bfloat16_follows_float32(encoder, decoder, vocabulary, profiles, genes):
    exact = run(encoder, decoder, vocabulary, profiles, genes)
    low = run(encoder, decoder, vocabulary, profiles, genes, dtype="bfloat16")
    kept = ~np.isnan(exact)
    assert np.corrcoef(low[kept], exact[kept])[0, 1] > 0.99


def test_unmeasured_differs_from_zero_for_restore_only(
    encoder, decoder, vocabulary, profiles, genes
):
    measured = vocabulary.species_of_token
    fewer = measured.copy()
    fewer[:, np.setdiff1d(np.flatnonzero(measured.any(0)), profiles.cells.tokens)[::2]] = False
    zero = run(encoder, decoder, vocabulary, profiles, genes, measured=measured)
    missing = run(encoder, decoder, vocabulary, profiles, genes, measured=fewer)
    kept = ~np.isnan(zero)
    same = np.array_equal(zero[kept], missing[kept])
    assert same == (decoder.settings.kind == "value_autoencoder")


def test_depth(encoder, trained, vocabulary, profiles, genes):
    decoder = trained("value_autoencoder", reads_depth=True)
    one = run(encoder, decoder, vocabulary, profiles, genes)
    deep = run(encoder, decoder, vocabulary, profiles, genes, depth=10.0)
    assert np.nanmax(np.abs(one - deep)) > 1e-3
    with pytest.raises(InputError, match=r"0\.1 to 100"):
        run(encoder, decoder, vocabulary, profiles, genes, depth=0.0)


def test_depth_needs_a_decoder_that_reads_it(encoder, decoder, vocabulary, profiles, genes):
    with pytest.raises(InputError, match="thinned"):
        run(encoder, decoder, vocabulary, profiles, genes, depth=2.0)


def test_the_decoder_is_left_as_it_is(encoder, decoder, vocabulary, profiles, genes):
    before = {name: x.clone() for name, x in decoder.state_dict().items()}
    run(encoder, decoder, vocabulary, profiles, genes, dtype="bfloat16")
    assert all(torch.equal(x, before[name]) for name, x in decoder.state_dict().items())
