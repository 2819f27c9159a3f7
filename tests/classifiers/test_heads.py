import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from scmix.classifiers._heads import Probe, _shares, _variable, _voters

PARTS = np.arange(60) % 5


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 60)
    pooled = rng.normal(3, 2, (60, 4)) + codes[:, None]
    genes = np.zeros((60, 22), np.float32)
    genes[:, 2:20] = rng.poisson(1, (60, 18))
    genes[np.arange(60)[:, None], codes[:, None] * 4 + np.arange(2, 6)] += 2
    return pooled.astype(np.float32), sp.csr_matrix(genes), codes


def start(pooled, genes, codes, n_classes, *, balance, c):
    probe = Probe(pooled, genes, codes, n_classes, balance=balance, c=c)
    return probe.fit(np.arange(codes.size) % 5)[0]


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
    probe = Probe(pooled, genes, codes, 3, balance=1.0, c=1.0)
    terms, _ = probe._crossed(PARTS)
    one, other = _shares(terms, codes)
    vectors, votes = probe._on_vectors(np.arange(60)), probe._on_genes(np.arange(60))
    expected = one * vectors.logits(pooled, None) + other * votes.logits(pooled, genes)
    both, judged = probe.fit(PARTS)
    np.testing.assert_allclose(both.logits(pooled, genes), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(judged.logits, one * terms[0] + other * terms[1], rtol=1e-5)


def test_shares_are_those_of_the_smallest_loss():
    """Both terms tell the classes, the second with more noise."""
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1], [300, 100])
    terms = np.eye(2)[codes] + rng.normal(0, [[[0.7]], [[1.4]]], (2, 400, 2))
    cost = np.where(codes == 0, 1 / 600, 1 / 200)

    def loss(share):
        scores = terms[0] + share * terms[1]  # of any size
        return min(
            -cost @ log_softmax(scale * scores, axis=1)[np.arange(400), codes]
            for scale in np.linspace(0.3, 3, 60)
        )

    found = _shares(terms, codes)
    assert found.mean() == pytest.approx(1)
    ratio = found[1] / found[0]
    assert 0.1 < ratio < 0.6
    assert loss(ratio) < min(loss(ratio / 2), loss(ratio * 2), loss(1))
    assert _shares(terms[:1], codes).tolist() == [1]


def test_terms_count_alike_where_nothing_is_to_be_gained():
    """Classes that either term tells without fault: other cells may differ from these."""
    codes = np.repeat([0, 1], 20)
    good = 40.0 * np.eye(2)[codes]
    assert _shares(np.stack([good, 2 * good]), codes) == pytest.approx([1, 1], abs=1e-3)


def test_logits_of_a_cell_come_from_the_other_parts(data):
    """Whatever its own label and those of its part are, they stay."""
    pooled, genes, codes = data
    probe = Probe(pooled, genes, codes, 3, balance=1.0, c=1.0)
    other = Probe(pooled, genes, np.where(PARTS == 2, 0, codes), 3, balance=1.0, c=1.0)
    (one, near), (two, nearest) = probe._crossed(PARTS), other._crossed(PARTS)
    assert np.array_equal(one[:, PARTS == 2], two[:, PARTS == 2])
    assert np.array_equal(near[PARTS == 2], nearest[PARTS == 2])
    assert not np.allclose(one[:, PARTS == 1], two[:, PARTS == 1])


def test_a_cell_whose_class_is_in_no_other_part_is_not_judged(data):
    pooled, genes, codes = data
    codes = codes.copy()
    codes[codes == 2] = 1
    codes[4] = 2
    head, judged = Probe(pooled, genes, codes, 3, balance=1.0, c=1.0).fit(PARTS)
    assert np.flatnonzero(np.isnan(judged.distances)).tolist() == [4]
    assert np.isnan(judged.logits[4]).all()
    assert np.isfinite(judged.logits[:4]).all()
    assert np.isfinite(head.logits(pooled, genes)).all()


def test_the_most_variable_genes_vote(data, monkeypatch):
    monkeypatch.setattr("scmix.classifiers._heads._MOST_VOTERS", 30)
    rng = np.random.default_rng(0)
    codes = np.arange(100) % 2
    genes = rng.poisson(np.linspace(2, 9, 200), (100, 200)).astype(np.float32)
    genes[:, 60:160:20] *= 2 * codes[:, None]  # only half of the cells have these five
    used, factor = _voters(sp.csr_matrix(np.log1p(genes)), codes)
    assert 30 <= used.size <= 35
    assert set(range(60, 160, 20)) <= set(used.tolist())
    assert sorted(used[np.argsort(-factor)[:5]]) == list(range(60, 160, 20))


def test_variable_genes_are_those_of_scanpy(monkeypatch):
    monkeypatch.setattr("scmix.classifiers._heads._MOST_VOTERS", 100)
    rng = np.random.default_rng(3)
    level = np.exp(rng.normal(0, 1.5, 800))
    counts = rng.poisson(level * rng.gamma(2, 0.5, (150, 800)))
    logged = sp.csr_matrix(np.log1p(counts * (1e4 / counts.sum(axis=1, keepdims=True))))
    logged = sp.hstack([sp.csr_matrix((150, 3)), logged]).tocsr()  # three are never detected
    table = sc.pp.highly_variable_genes(AnnData(logged[:, 3:]), n_top_genes=100, inplace=False)
    assert _variable(logged).tolist() == (np.flatnonzero(table["highly_variable"]) + 3).tolist()


def test_genes_of_one_or_two_cells_do_not_vote():
    genes = np.zeros((9, 3), np.float32)
    genes[:2, 0] = genes[:3, 1] = 1
    used, _ = _voters(sp.csr_matrix(genes), np.arange(9) // 3)
    assert used.tolist() == [1]


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


def test_genes_that_are_constant_in_each_class_have_the_most_say():
    genes = np.full((30, 4), 5.8121386, np.float32)
    codes = np.arange(30) % 3
    genes[:, 1] *= codes == 1
    genes[:, 2] = np.random.default_rng(0).poisson(3, 30)
    used, factor = _voters(sp.csr_matrix(genes), codes)
    assert used.tolist() == [0, 1, 2, 3]
    assert factor.argmax() == 1
    assert factor[1] > 2 * factor[2]
