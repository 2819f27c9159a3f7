"""Embeddings from co-expression find planted modules, and no batch or species."""

import numpy as np
import scipy.sparse as sp
import torch

from scmix.pretrain import recipe
from scmix.pretrain.initialise import (
    coexpression_embeddings,
    positive_information,
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
    tokens, vectors = coexpression_embeddings(corpus, 16, n_top=15, seed=0)
    module = module_of(corpus, tokens)
    assert len(tokens) > N_GENES  # genes of both species
    z = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = z @ z.T
    np.fill_diagonal(similarity, -1)
    assert (module[similarity.argmax(1)] == module).mean() > 0.95


def naive_information(seen, group):
    seen, n_genes = seen.toarray(), seen.shape[1]
    out = np.zeros((n_genes, n_genes))
    for i in range(n_genes):
        for j in range(n_genes):
            observed = (seen[:, i] * seen[:, j]).sum()
            expected = sum(
                seen[group == g, i].sum() * seen[group == g, j].sum() / (group == g).sum()
                for g in np.unique(group)
            )
            if i != j and observed >= 3:
                out[i, j] = max(0, np.log(observed / expected))
    return out


def test_information_equals_a_double_loop():
    rng = np.random.default_rng(0)
    seen = sp.csr_matrix((rng.random((60, 12)) < 0.4).astype(np.float32))
    group = rng.choice([3, 5, 9], 60)
    found = positive_information(seen, group).toarray()
    np.testing.assert_allclose(found, naive_information(seen, group), atol=1e-5)


def test_genes_of_one_batch_are_not_alike_for_that():
    rng = np.random.default_rng(1)
    group = np.repeat([0, 1], 2000)
    chance = np.where(group[:, None] == (np.arange(10) < 5), 0.6, 0.05)  # genes follow the batch
    seen = sp.csr_matrix((rng.random((4000, 10)) < chance).astype(np.float32))
    assert positive_information(seen, group).max() < 0.5
    assert positive_information(seen, np.zeros(4000)).max() > 0.5


def test_rows_have_the_spread_of_the_random_start_and_the_unseen_keep_theirs(corpus):
    encoder = make_model(corpus.vocabulary, recipe("scmix-mini", hidden_size=32)).encoder
    weight = encoder.bert.embeddings.word_embeddings.weight
    positions = encoder.bert.embeddings.position_embeddings.weight
    before, before_positions = weight.detach().clone(), positions.detach().clone()
    n = start_from_coexpression(encoder, corpus, seed=0)
    changed = (weight != before).any(1)
    assert changed.sum() == n > N_GENES
    torch.testing.assert_close(
        weight[changed].std(1, correction=0), torch.full((n,), encoder.config.initializer_range)
    )
    assert not changed[corpus.vocabulary.special_ids.tolist()].any()
    torch.testing.assert_close(positions.detach(), before_positions / 10)


def test_the_seed_decides(corpus):
    one, two = (coexpression_embeddings(corpus, 8, seed=3)[1] for _ in range(2))
    np.testing.assert_array_equal(one, two)
