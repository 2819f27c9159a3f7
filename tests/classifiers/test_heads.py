import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression

from scmix.batches import Sequences
from scmix.classifiers._heads import gene_matrix, start
from scmix.classifiers._network import vote_weights

SPECIAL = np.array([0, 1])


def test_weights_of_votes():
    cells = Sequences.from_list([[1, 7, 8, 9], [7], [], [1]])
    weights = vote_weights(cells, SPECIAL)
    expected = 1 - 0.5 * np.log1p(np.arange(3)) / np.log(2048)
    expected /= np.sqrt((expected**2).sum())
    assert weights == pytest.approx([0, *expected, 1, 0], abs=1e-6)


def test_weights_do_not_depend_on_special_tokens():
    bare = vote_weights(Sequences.from_list([[7, 8, 9]]), SPECIAL)
    assert np.array_equal(bare, vote_weights(Sequences.from_list([[1, 7, 8, 9]]), SPECIAL)[1:])


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 60)
    pooled = rng.normal(3, 2, (60, 4)) + codes[:, None]
    rows = [rng.permutation(np.r_[np.arange(4) + 4 * c + 2, np.arange(14, 20)]) for c in codes]
    return pooled.astype(np.float32), gene_matrix(Sequences.from_list(rows), SPECIAL, 22), codes


def test_without_votes_it_is_the_regression_on_scaled_vectors(data):
    pooled, _, codes = data
    head = start(pooled, None, codes, 3, balance=1.0, c=0.7)
    scaled = (pooled - pooled.mean(0)) / np.sqrt(pooled.var(0).mean())
    model = LogisticRegression(C=0.7, max_iter=200, class_weight="balanced").fit(scaled, codes)
    assert head.votes is None
    # the scale of weights differs from "balanced" by a constant, which the penalty sees
    assert np.mean(head.logits(pooled, None).argmax(1) == model.predict(scaled)) > 0.95


def test_dimensions_that_hardly_vary_do_not_count(data):
    """Divided by its own spread, noise in a dimension would weigh as much as any other."""
    pooled, _, codes = data
    noise = np.random.default_rng(1).normal(0, 1e-3, (60, 300)).astype(np.float32)
    without = start(pooled, None, codes, 3, balance=1.0, c=1.0)
    # the scale is smaller by the root of 304 / 4, so the same penalty is a larger one
    head = start(np.c_[pooled, noise], None, codes, 3, balance=1.0, c=1 / 76)
    np.testing.assert_allclose(
        head.logits(np.c_[pooled, noise], None), without.logits(pooled, None), atol=0.05
    )


def test_vectors_and_votes_are_fitted_apart_and_summed(data):
    pooled, genes, codes = data
    both = start(pooled, genes, codes, 3, balance=1.0, c=1.0)
    vectors = start(pooled, None, codes, 3, balance=1.0, c=1.0)
    votes = start(0 * pooled, genes, codes, 3, balance=1.0, c=1.0)
    expected = vectors.logits(pooled, None) + votes.logits(0 * pooled, genes)
    np.testing.assert_allclose(both.logits(pooled, genes), expected, rtol=1e-4, atol=1e-4)
    assert np.array_equal(both.votes, votes.votes)


def test_logits_are_those_of_the_fitted_regression(data):
    pooled, genes, codes = data
    head = start(pooled, genes, codes, 3, balance=0.0, c=1.0)
    logits = head.logits(pooled, genes)
    assert (logits.argmax(1) == codes).mean() == 1
    assert head.votes.shape == (22, 3)
    assert not head.votes[[0, 1, 20, 21]].any()  # tokens that no cell has


def test_two_classes_have_two_rows(data):
    pooled, genes, codes = data
    head = start(pooled[codes < 2], genes[codes < 2], codes[codes < 2], 2, balance=0.0, c=1.0)
    logits = head.logits(pooled[codes < 2], genes[codes < 2])
    assert head.weight.shape == (2, 4)
    assert (logits.argmax(1) == codes[codes < 2]).all()


def test_a_rare_class_is_heard_when_balanced():
    rng = np.random.default_rng(1)
    codes = np.r_[np.zeros(95, int), np.ones(5, int)]
    pooled = (rng.normal(0, 1, (100, 3)) + 1.2 * codes[:, None]).astype(np.float32)

    def found(balance):
        head = start(pooled, None, codes, 2, balance=balance, c=1.0)
        return (head.logits(pooled, None).argmax(1) == 1)[codes == 1].mean()

    assert found(1.0) > found(0.0)


def test_cells_without_a_vector_have_no_logits(data):
    pooled, genes, codes = data
    head = start(pooled, genes, codes, 3, balance=0.0, c=1.0)
    assert np.isnan(head.logits(np.full((1, 4), np.nan, np.float32), sp.csr_matrix((1, 22)))).all()
