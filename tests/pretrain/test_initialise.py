"""Embeddings from co-expression find planted modules, and no batch or species."""

from copy import deepcopy

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scmix.pretrain import recipe
from scmix.pretrain.initialise import (
    coexpression_embeddings,
    discounted,
    principal_components,
    start_from_coexpression,
)
from scmix.pretrain.model import make_model

from .conftest import N_GENES, N_MODULES


def module_of(corpus, tokens):
    """Planted module of each token: the number of its gene modulo N_MODULES."""
    genes = corpus.vocabulary.genes.drop_duplicates("token").set_index("token")
    number = genes.ensembl_id.str[-11:].astype(int) - 1
    return number.loc[tokens].to_numpy() % N_MODULES


def test_planted_modules_are_nearest_neighbours(corpus):
    tokens, vectors = coexpression_embeddings(corpus, 16, max_genes=15, seed=0)
    module = module_of(corpus, tokens)
    assert len(tokens) > N_GENES  # genes of both species
    z = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = z @ z.T
    np.fill_diagonal(similarity, -1)
    assert (module[similarity.argmax(1)] == module).mean() > 0.95


def test_components_equal_those_of_the_dense_centred_matrix():
    rng = np.random.default_rng(0)
    dense = rng.random((60, 12)) * (rng.random((60, 12)) < 0.4) * np.linspace(3, 0.5, 12)
    group = rng.choice([3, 5, 9], 60)
    rows = dense.astype(np.float32)
    for code in np.unique(group):
        own = group == code
        rows[own] = (rows[own] - rows[own].mean(0)) * own.sum() ** -0.25
    _, expected, basis = np.linalg.svd(rows, full_matrices=False)
    matrix = sp.csr_matrix(dense.astype(np.float32))
    singular, loadings = principal_components(matrix, group, 4)
    np.testing.assert_allclose(singular, expected[:4], rtol=1e-3)
    np.testing.assert_allclose(np.abs((basis[:4] * loadings.T).sum(1)), 1, atol=0.01)


def test_genes_of_one_batch_are_not_alike_for_that():
    rng = np.random.default_rng(1)
    group = np.repeat([0, 1], 2000)
    chance = np.where(group[:, None] == (np.arange(10) < 5), 0.6, 0.05)  # genes follow the batch
    seen = sp.csr_matrix((rng.random((4000, 10)) < chance).astype(np.float32))
    apart, _ = principal_components(seen, group, 2)
    together, _ = principal_components(seen, np.zeros(4000), 2)
    assert apart[0] < 1.1 * apart[1]
    assert together[0] > 2 * together[1]


def test_values_fall_with_the_rank_and_sum_to_one(corpus):
    ranks = discounted(corpus, np.arange(4), 5)
    np.testing.assert_allclose(ranks.sum(1), 1, rtol=1e-6)
    cell = corpus.sequences(np.arange(1), max_genes=5).tokens
    weights = 1 / np.log2(1 + np.arange(1, len(cell) + 1))
    np.testing.assert_allclose(ranks[0].toarray()[0, cell], weights / weights.sum(), rtol=1e-6)


def started(corpus, init, **changes):
    """An encoder before and after it was started, and the number of genes set."""
    settings = recipe("scmix-mini", hidden_size=32, init=init, **changes)
    encoder = make_model(corpus.vocabulary, settings).encoder
    before = deepcopy(encoder)
    by_rank = init == "coexpression_by_rank"
    return before, encoder, start_from_coexpression(encoder, corpus, by_rank=by_rank, seed=0)


@pytest.mark.parametrize(("init", "own"), [("coexpression", 32), ("coexpression_by_rank", 30)])
def test_the_median_gene_has_the_length_of_the_random_start_and_the_unseen_are_short(
    corpus, init, own
):
    before, encoder, n = started(corpus, init)
    weight = encoder.bert.embeddings.word_embeddings.weight.detach()
    genes, vectors = coexpression_embeddings(corpus, own, seed=0)
    assert len(genes) == n > N_GENES
    length = weight[genes].norm(dim=1).numpy()
    assert np.median(length) == pytest.approx(encoder.config.initializer_range * 32**0.5, rel=1e-4)
    np.testing.assert_allclose(length / length[0], vectors.std(1) / vectors[0].std(), rtol=1e-3)
    old = before.bert.embeddings.word_embeddings.weight.detach()
    unseen = np.setdiff1d(corpus.vocabulary.genes.token, genes)
    torch.testing.assert_close(weight[unseen, :own], old[unseen, :own] / 10)
    special = corpus.vocabulary.special_ids.tolist()
    torch.testing.assert_close(weight[special, :own], old[special, :own])
    assert not weight[:, own:].any()
    bias = encoder.cls.predictions.bias.detach().double().exp()
    assert float(bias.sum()) == pytest.approx(1, rel=1e-4)
    counts = np.bincount(
        corpus.sequences(np.arange(len(corpus))).tokens, minlength=corpus.vocabulary.n_tokens
    )
    np.testing.assert_allclose(bias / bias[0], counts + 1, rtol=1e-3)
    assert not encoder.bert.embeddings.token_type_embeddings.weight.any()


def test_positions_start_small_and_layers_as_they_were_where_ranks_do_not_weigh(corpus):
    before, encoder, _ = started(corpus, "coexpression")
    new, old = encoder.bert.embeddings, before.bert.embeddings
    torch.testing.assert_close(new.position_embeddings.weight, old.position_embeddings.weight / 50)
    for name, weight in encoder.bert.encoder.state_dict().items():
        assert torch.equal(weight, before.bert.encoder.state_dict()[name])


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_the_mean_over_a_cell_starts_as_its_ranks_on_the_components(corpus, layers):
    _, encoder, _ = started(corpus, "coexpression_by_rank", num_hidden_layers=layers, max_length=64)
    encoder.eval()
    cell = corpus.sequences(np.arange(1), max_genes=40).tokens
    species = corpus.vocabulary.special["<human>"]
    tokens = torch.tensor([species, *cell])  # the first gene stands at position 1
    with torch.no_grad():
        mean = encoder(tokens, [0, len(tokens)], layer=-2)[1:].mean(0)
    assert not mean[-2:].any()  # no ballast
    words = encoder.bert.embeddings.word_embeddings.weight.detach()[cell.astype(int)]
    ranks = words / torch.log2(1 + torch.arange(1.0, len(cell) + 1))[:, None]
    alike, plain = (float(torch.cosine_similarity(mean, x.mean(0), dim=0)) for x in (ranks, words))
    assert alike > 0.95
    assert alike > plain


def test_the_seed_decides(corpus):
    one, two = (coexpression_embeddings(corpus, 8, seed=3)[1] for _ in range(2))
    np.testing.assert_array_equal(one, two)
