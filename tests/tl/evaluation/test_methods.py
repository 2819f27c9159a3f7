import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from scmix.genes import Vocabulary
from scmix.tl._evaluation import features, methods
from scmix.tl._evaluation.cells import read_cells
from scmix.tl._evaluation.folds import Fold
from scmix.tl._evaluation.representations import Representation
from scmix.tl._evaluation.splits import Split

READING = {"groups": None, "layer": None, "allow_noninteger": False, "fewest": 2}


def a_fold(adata, train=None, test=None, seed=0, **options):
    cells = read_cells(adata, "cell_type", **READING | options)
    n_cells = len(cells.codes)
    train = np.arange(0, n_cells, 2) if train is None else train
    test = np.setdiff1d(np.arange(n_cells), train) if test is None else test
    return Fold(cells, Split(seed, 0, train, test)), cells


def all_methods(cells, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(len(cells.codes), 4))
    return [*methods.baselines(), *methods.on_vectors(Representation("mine", "yours", vectors))]


def test_log_counts_are_per_ten_thousand_and_empty_cells_stay_empty():
    counts = sp.csr_matrix([[1.0, 3.0], [0.0, 0.0]])
    logged = features.log_normalise(counts).toarray()
    np.testing.assert_allclose(logged, [np.log1p([2500, 7500]), [0, 0]], rtol=1e-6)


def test_components_are_those_of_the_training_part():
    rng = np.random.default_rng(0)
    train, test = (sp.csr_matrix(rng.poisson(1, (20, 6)).astype(np.float32)) for _ in range(2))
    dense = train.toarray()
    parts = features.principal_components(train, test, 3)
    expected = PCA(3, svd_solver="full").fit(dense)
    for part, counts in zip(parts, (train, test), strict=True):
        np.testing.assert_allclose(
            np.abs(part), np.abs(expected.transform(counts.toarray())), atol=1e-4
        )


def test_variable_genes_come_from_what_is_given_and_constant_ones_do_not():
    rng = np.random.default_rng(1)
    counts = rng.poisson(2, (40, 600))
    counts[:, :60] = rng.choice([0, 4], (40, 60))  # as high on average, not so even
    counts[:, 107] = 0
    logged = features.log_normalise(sp.csr_matrix(counts.astype(float)))
    assert 107 not in features.variable_genes(logged, 1000)
    assert features.variable_genes(logged, 1000).size == 599
    few = features.variable_genes(logged, 60)
    assert few.size == 60
    assert (few < 60).mean() > 0.8


def test_labels_of_test_cells_change_no_prediction(make_cells):
    adata = make_cells(60)
    fold, cells = a_fold(adata)
    shuffled = adata.copy()
    codes = cells.codes.copy()
    codes[fold.test] = np.random.default_rng(0).permutation(codes[fold.test])
    assert (codes != cells.codes).any()
    shuffled.obs["cell_type"] = cells.names[codes]
    shuffled.obs["cell_type"] = shuffled.obs["cell_type"].astype(adata.obs["cell_type"].dtype)
    other, _ = a_fold(shuffled)
    for method in all_methods(cells):
        np.testing.assert_array_equal(method.predict(fold), method.predict(other))


def test_counts_of_test_cells_do_not_move_what_is_fitted(make_cells):
    adata = make_cells(60)
    fold, _ = a_fold(adata)
    changed = adata.copy()
    counts = changed.X.toarray()
    counts[fold.test] = counts[fold.test][::-1] + 1  # all test cells but their number
    counts[fold.test[0]] = adata.X[fold.test[0]].toarray()  # one test cell as it was
    changed.X = sp.csr_matrix(counts)
    other, _ = a_fold(changed)
    for method in methods.baselines():
        np.testing.assert_allclose(method.predict(fold)[0], method.predict(other)[0], atol=1e-6)


def test_no_label_of_a_test_cell_is_within_reach(make_cells):
    adata = make_cells(30)
    fold, _ = a_fold(adata, groups="donor")
    assert set(fold.cells("test").obs) == {"donor"}
    assert set(fold.cells("train").obs) == {"donor", "label"}
    assert set(fold.expression("test", logged=True).obs) == set()
    assert fold.labels.size == fold.train.size
    known = fold.expression("train", logged=False)
    assert list(known.obs["label"]) == list(adata.obs["cell_type"].iloc[fold.train])
    np.testing.assert_array_equal(known.X.toarray(), adata.X[fold.train].toarray())


def test_every_method_gives_probabilities_in_category_order(make_cells):
    fold, cells = a_fold(make_cells(60, signal=20.0))
    assert cells.names.tolist() == ["beta", "alpha", "delta"]
    for method in all_methods(cells):
        chances = method.predict(fold)
        assert chances.shape == (30, 3)
        np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-6)
    for name in ("kNN", "logistic regression"):
        found = [m for m in methods.baselines() if m.classifier == name]
        assert (found[0].predict(fold).argmax(axis=1) == cells.codes[fold.test]).mean() > 0.95


def test_class_missing_from_training_gets_no_probability(make_cells):
    adata = make_cells(60)
    alone = np.flatnonzero(adata.obs["cell_type"] != "alpha")
    fold, cells = a_fold(adata, train=alone)
    assert set(cells.codes[fold.test]) == {1}
    for method in all_methods(cells):
        assert (method.predict(fold)[:, 1] == 0).all()
    only = np.flatnonzero(adata.obs["cell_type"] == "delta")
    fold, cells = a_fold(adata, train=only)
    for method in all_methods(cells):
        assert (method.predict(fold).argmax(axis=1) == 2).all()


def test_logistic_regression_is_scikit_learns():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(40, 5)), rng.normal(size=(9, 5))
    codes = rng.integers(1, 4, 40)
    expected = LogisticRegression(max_iter=1000).fit(train, codes).predict_proba(test)
    found = methods.logistic(train, codes, test, 5)
    np.testing.assert_allclose(found[:, 1:4], expected)
    assert (found[:, [0, 4]] == 0).all()


def test_logistic_regression_on_vectors_does_not_depend_on_their_origin_and_scale():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(40, 5)), rng.normal(size=(9, 5))
    codes = rng.integers(0, 3, 40)
    found = methods.scaled_logistic(train, codes, test, 3)
    moved = methods.scaled_logistic(1e-3 * train + 7, codes, 1e-3 * test + 7, 3)
    np.testing.assert_allclose(found, moved, atol=1e-3)
    alike = methods.scaled_logistic(np.ones((4, 2)), np.array([0, 1, 1, 0]), np.ones((2, 2)), 2)
    np.testing.assert_allclose(alike, 0.5, atol=1e-6)


def test_cells_without_a_vector_get_the_class_frequencies(make_cells):
    adata = make_cells(60)
    fold, cells = a_fold(adata)
    vectors = np.eye(3)[cells.codes] + 0.01
    vectors[fold.test[3]] = np.nan
    vectors[fold.train[:2]] = np.nan
    for method in methods.on_vectors(Representation("mine", "yours", vectors)):
        chances = method.predict(fold)
        np.testing.assert_allclose(chances[3], fold.frequencies)
        others = np.delete(np.arange(30), 3)
        assert (chances.argmax(axis=1) == cells.codes[fold.test])[others].all()


def test_shuffled_labels_differ_by_seed_and_fold_only(make_cells):
    adata = make_cells(90)
    first, again, other = (a_fold(adata, seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(methods.shuffled(first), methods.shuffled(again))
    assert (methods.shuffled(first) != methods.shuffled(other)).any()


def test_two_species_share_orthologues(make_cells):
    import anndata as ad

    human, mouse = make_cells(30), make_cells(30, "mouse", seed=1)
    both = ad.concat([human, mouse], join="outer", fill_value=0)
    fold, cells = a_fold(both, train=np.arange(30), species_key="species")
    assert cells.two_species
    assert cells.expression.shape == (60, 80)
    assert set(cells.expression.var_names) <= set(Vocabulary.bundled().token_names())
    ours = np.sort(cells.expression.X[:30].toarray(), axis=1)
    np.testing.assert_array_equal(ours, np.sort(human.X.toarray(), axis=1))
    accuracy = (methods.genes_logistic(fold).argmax(axis=1) == cells.codes[30:]).mean()
    assert accuracy > 0.9  # learned on human cells, asked about mouse cells


def test_classes_by_name_in_the_order_of_all(make_cells):
    fold, _ = a_fold(make_cells(30))
    found = methods.in_class_order(np.array([[2.0, 6.0]]), ["delta", "beta"], fold)
    np.testing.assert_allclose(found, [[0.75, 0, 0.25]])
    with pytest.raises(KeyError):
        methods.class_codes(["gamma"], fold)
