"""What is shown and what is asked for, against loops over cells."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scmix.decoders._log_values import log_values
from scmix.pretrain import build_corpus, recipe
from scmix.pretrain.gene_values import value_moments
from scmix.pretrain.profiles import Profile
from scmix.pretrain.stream import Stream
from scmix.pretrain.value_views import at_most, expressed, panel, thinned

N_PANEL = 30


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, vocabulary):
    """Human and mouse cells with all 60 genes, and human cells with the first 30 only."""
    folder = tmp_path_factory.mktemp("values")
    rng = np.random.default_rng(5)
    files = []
    for name, prefix, n_genes, n_cells in (
        ("whole", "ENSG", 60, 50),
        ("mouse", "ENSMUSG", 60, 30),
        ("panel", "ENSG", N_PANEL, 40),
    ):
        counts = rng.poisson(rng.gamma(0.5, 4.0, (n_cells, n_genes))).astype(np.float32)
        genes = [f"{prefix}{i + 1:011d}" for i in range(n_genes)] + ["unknown"]
        counts = np.column_stack([counts, np.full(n_cells, 7, np.float32)])
        obs = pd.DataFrame(index=[f"{name}{i}" for i in range(n_cells)])
        adata = ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=genes))
        files.append(folder / f"{name}.h5ad")
        adata.write_h5ad(files[-1])
    options = {"vocabulary": vocabulary, "min_genes": 3, "n_genes": None, "values": True}
    return build_corpus(files, folder / "corpus", **options)


@pytest.fixture
def rows(corpus):
    return np.random.default_rng(1).permutation(len(corpus))[:40]


@pytest.fixture
def profile(corpus, rows):
    return Profile.read(corpus, rows)


def settled(**changes):
    return recipe("value-mini", max_length=64, tokens_per_step=500, **changes)


def of_cell(cells, i):
    where = slice(*cells.genes.indptr[[i, i + 1]])
    return cells.genes.tokens[where], cells.values[where]


def true_values(corpus, row):
    tokens = corpus.sequences([row]).tokens
    return dict(zip(tokens, log_values(corpus.counts([row]), corpus.totals[row]), strict=True))


def test_expressed_genes_are_shown_or_asked_for_and_zeros_are_measured(corpus, rows, profile):
    asked = expressed(
        profile,
        corpus.species[rows],
        corpus.vocabulary,
        settled(hide_nonzero=0.4, hide_zero=0.5),
        np.random.default_rng(0),
    )
    for i, row in enumerate(rows):
        truth = true_values(corpus, row)
        shown, shown_values = of_cell(asked.shown, i)
        hidden, hidden_values = of_cell(asked.hidden, i)
        n_hidden = np.count_nonzero(hidden_values)
        assert n_hidden == round(0.4 * len(truth))
        assert sorted([*shown, *hidden[hidden_values > 0]]) == sorted(truth)
        np.testing.assert_allclose(shown_values, [truth[token] for token in shown], rtol=1e-5)
        expected = [truth.get(token, 0) for token in hidden]
        np.testing.assert_allclose(hidden_values, expected, rtol=1e-5)
        zeros = hidden[hidden_values == 0]
        assert len(set(hidden)) == len(hidden)
        assert profile.measured[profile.group[i], zeros].all()
        order = [token for token in corpus.sequences([row]).tokens if token in set(shown)]
        assert shown.tolist() == order, "by rank"
    np.testing.assert_allclose(asked.depth[:, 0], np.log10(corpus.totals[rows]), rtol=1e-6)


def test_most_genes_asked_for(corpus, rows, profile):
    few = settled(value_autoencoder_targets=5, hide_zero=0.5)
    rng = np.random.default_rng(0)
    asked = expressed(profile, corpus.species[rows], corpus.vocabulary, few, rng)
    assert asked.hidden.lengths.max() == 5
    assert at_most(asked.hidden, 5, rng) is asked.hidden


def test_thinning_is_binomial_and_exact_in_mean(profile):
    n, share = len(profile.group), 0.3
    away = np.zeros(profile.genes.tokens.size, bool)
    rng = np.random.default_rng(0)
    draws = [thinned(profile, np.full(n, share), away, rng) for _ in range(600)]
    counts = np.stack([counts for counts, _ in draws])
    totals = np.stack([totals for _, totals in draws])
    error = np.sqrt(share * (1 - share) * profile.counts / 600)
    assert (np.abs(counts.mean(0) - share * profile.counts) < 5 * error).all()
    error = np.sqrt(share * (1 - share) * profile.totals / 600)
    assert (np.abs(totals.mean(0) - share * profile.totals) < 5 * error).all()
    np.testing.assert_allclose(
        counts.var(0).sum(), (share * (1 - share) * profile.counts).sum(), rtol=0.05
    )
    cell = np.repeat(np.arange(n), profile.genes.lengths)
    assert all((np.bincount(cell, c, n) <= t).all() for c, t in draws)


def test_a_cell_that_would_be_empty_stays_as_it_is(profile):
    n = len(profile.group)
    away = np.zeros(profile.genes.tokens.size, bool)
    counts, totals = thinned(profile, np.full(n, 1e-9), away, np.random.default_rng(0))
    assert np.array_equal(counts, profile.counts)
    assert np.array_equal(totals, profile.totals)


def test_thinned_cells_are_ranked_by_what_is_left(corpus, rows, profile):
    half = settled(value_autoencoder_thinning=1.0, hide_zero=0.0)
    asked = expressed(
        profile, corpus.species[rows], corpus.vocabulary, half, np.random.default_rng(3)
    )
    assert (asked.depth[:, 0] < asked.depth[:, 1]).mean() > 0.9
    for i, row in enumerate(rows):
        shown, values = of_cell(asked.shown, i)
        assert (np.diff(values) <= 1e-6).all(), "medians are equal, so ranks follow values"
        assert len(shown) > 0
        truth = true_values(corpus, row)
        hidden, hidden_values = of_cell(asked.hidden, i)
        np.testing.assert_allclose(hidden_values, [truth[token] for token in hidden], rtol=1e-5)


@pytest.mark.parametrize("draw", ["measured", "detected"])
def test_a_panel_is_of_measured_genes(corpus, rows, profile, draw):
    settings = settled(restore_genes=(10, 20), restore_share=(0.2, 0.5), restore_draw=draw)
    asked = panel(profile, settings, np.random.default_rng(0))
    lengths = asked.shown.lengths + asked.hidden.lengths
    assert lengths.min() >= 10
    assert lengths.max() <= 20
    share = asked.hidden.lengths / lengths
    assert share.min() > 0.1
    assert share.max() < 0.6
    zeros = 0
    for i, row in enumerate(rows):
        truth = true_values(corpus, row)
        for part in (asked.shown, asked.hidden):
            tokens, values = of_cell(part, i)
            zeros += np.count_nonzero(values == 0)
            assert corpus.measured_genes[corpus.group([row])[0], tokens].all()
            np.testing.assert_allclose(values, [truth.get(t, 0) for t in tokens], rtol=1e-5)
        tokens, values = of_cell(asked.shown, i)
        ranked = [token for token in corpus.sequences([row]).tokens if token in set(tokens)]
        assert tokens.tolist() == ranked + sorted(set(tokens) - set(ranked))
    assert zeros > 0


def test_detected_genes_are_those_of_the_batch(corpus, profile):
    settings = settled(restore_genes=(60, 60), restore_draw="detected")
    one = replace(profile, genes=profile.genes[[0]], group=profile.group[:1])
    one = replace(one, counts=profile.counts[: one.genes.tokens.size], totals=profile.totals[:1])
    asked = panel(one, settings, np.random.default_rng(0))
    drawn = [*asked.shown.genes.tokens, *asked.hidden.genes.tokens]
    assert sorted(drawn) == sorted(one.genes.tokens)


def test_views_of_a_stream(corpus):
    both = settled(objectives={"value_autoencoder": 1.0, "restore": 1.0}, restore_genes=(10, 20))
    batch = Stream(corpus, both, both.views).batch(3)
    n = len(batch["rows"])
    special = set(corpus.vocabulary.special_ids.tolist())
    for name in ("visible", "panel"):
        view = batch["views"][name]
        assert view["depth"].shape == (n, 2)
        assert len(view["hidden"]["indptr"]) == n + 1
        assert view["values"].shape == view["tokens"].shape
    view = batch["views"]["visible"]
    genes = np.array([token not in special for token in view["tokens"].tolist()])
    assert (view["values"].numpy()[genes] > 0).all(), "the encoder reads visible non-zeros only"
    n_hidden = (view["hidden"]["values"] > 0).sum()
    assert genes.sum() + n_hidden == corpus.sequences(batch["rows"]).tokens.size


@pytest.mark.parametrize("name", ["value_autoencoder", "restore"])
def test_batches_have_as_many_tokens_as_the_recipe_says(corpus, name):
    settings = settled(objectives={name: 1.0}, restore_genes=(10, 20))
    stream = Stream(corpus, settings, settings.views)
    tokens = [stream.batch(i)["views"][settings.views[0]]["tokens"].numel() for i in range(20)]
    assert 0.8 * 500 < np.mean(tokens) < 1.1 * 500


def test_moments_equal_those_of_a_dense_matrix(corpus):
    mean, spread = value_moments(corpus, 1e4)
    for species in (0, 1):
        for token in np.flatnonzero(corpus.vocabulary.species_of_token[species]):
            rows = np.flatnonzero(corpus.species == species)
            rows = rows[corpus.measured_genes[corpus.group(rows), token]]
            values = [true_values(corpus, row).get(token, 0) for row in rows]
            assert mean[species, token] == pytest.approx(np.mean(values), abs=1e-5)
            assert spread[species, token] == pytest.approx(np.std(values), abs=1e-4)
    few, _ = value_moments(corpus, 1e4, n_cells=20)
    assert not np.allclose(few, mean)
