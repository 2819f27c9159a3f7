import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

import scmix
from scmix._errors import InputError
from scmix.classifiers._genes import GeneRecipe, baseline, folds_of, predict_genes
from scmix.genes import Vocabulary
from scmix.tl._fine_tune_genes import _labels_of_tokens

N = 40  # genes, of which the first half belong together


@pytest.fixture(scope="module")
def names():
    genes = Vocabulary.bundled().genes
    human = genes[(genes["species"] == "human") & (genes["ensembl_id"] != "")]
    return human["ensembl_id"].iloc[:N].to_numpy(str)


@pytest.fixture(scope="module")
def cells(names):
    """Genes of the first half are high in half of the cells, the others in the other half."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, size=(24, N)) + 1
    counts[:12, : N // 2] *= 9
    counts[12:, N // 2 :] *= 9
    return AnnData(sp.csr_matrix(counts.astype(np.float32)), var=pd.DataFrame(index=names))


@pytest.fixture(scope="module")
def labels(names):
    return {name: "low" if i < N // 2 else "high" for i, name in enumerate(names[:-4])}


@pytest.fixture(scope="module")
def found(tiny, cells, labels):
    return scmix.tl.fine_tune_genes(cells, labels, model=tiny, n_folds=3, epochs=1)


def test_a_row_for_each_gene_and_a_prediction_for_those_without_label(found, names):
    table = found.predictions
    assert set(table.index) == set(names)
    assert table["label"].isna().sum() == 4
    assert (table.loc[table["label"].isna(), "fold"] == -1).all()
    assert table.filter(like="probability_").sum(axis=1).to_numpy() == pytest.approx(1)
    assert table["detection"].to_numpy() == pytest.approx(1)
    assert list(table["label"].cat.categories) == ["high", "low"]


def test_scores_are_of_labelled_genes_beside_the_baseline(found):
    table = found.predictions.dropna(subset="label")
    right = (table["label"].astype(str) == table["predicted"].astype(str)).mean()
    assert found.scores.loc["encoder", "accuracy"] == pytest.approx(right)
    assert found.scores["n_genes"].tolist() == [36, 36]
    assert set(found.scores.columns) == {"n_genes", "accuracy", "macro_f1", "majority", "auroc"}
    assert "3 folds over genes" in repr(found)


def test_folds_divide_genes_and_every_class(found):
    table = found.predictions.dropna(subset="label")
    sizes = pd.crosstab(table["fold"], table["label"])
    assert sizes.shape == (3, 2)
    assert (sizes.max() - sizes.min()).max() <= 1


@pytest.mark.parametrize("epochs", [0, 1])
def test_the_label_of_a_gene_never_reaches_its_prediction(tiny, cells, labels, epochs):
    """Every other label is what it was: the predictions of a fold stay when its labels turn."""
    from scmix.batches import Sequences

    tokens = np.arange(10, 50)
    rng = np.random.default_rng(0)
    read = Sequences.from_list([rng.permutation(tokens) for _ in range(6)])
    codes = np.arange(40) % 2
    recipe = GeneRecipe(n_folds=4, epochs=epochs, learning_rate=1e-2, frozen_layers=0)
    fold = folds_of(codes, recipe)
    turned = np.where(fold == 1, 1 - codes, codes)
    one, other = (
        predict_genes(tiny, read, tokens, c, fold, recipe, "cpu") for c in (codes, turned)
    )
    assert np.array_equal(one[fold == 1], other[fold == 1])
    assert not np.array_equal(one[fold == 2], other[fold == 2])


def test_random_labels_are_not_predicted():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, 200)
    recipe = GeneRecipe()
    chances = baseline(rng.normal(size=(200, 50)), codes, folds_of(codes, recipe), recipe)
    assert abs((chances.argmax(axis=1) == codes).mean() - 0.5) < 0.12


def test_same_seed_same_predictions_and_nothing_written(tiny, cells, labels, found, unchanged):
    with unchanged(cells):
        again = scmix.tl.fine_tune_genes(cells, labels, model=tiny, n_folds=3, epochs=1)
    pd.testing.assert_frame_equal(again.predictions, found.predictions)


def test_symbols_and_ids_are_the_same_genes(names):
    vocabulary = Vocabulary.bundled()
    genes = vocabulary.genes.set_index("ensembl_id")
    labels = {name: "ab"[i % 2] for i, name in enumerate(names)}
    symbols = {genes.loc[name, "symbol"]: label for name, label in labels.items()}
    one, other = (_labels_of_tokens(x, vocabulary, "human")[0] for x in (labels, symbols))
    assert np.array_equal(one, other)


def test_what_cannot_be_predicted_is_said(tiny, cells, labels):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scmix.tl.fine_tune_genes(
            cells, {**labels, "CD3E": "low", "NOGENE": "low"}, model=tiny, n_folds=2, epochs=0
        )
    texts = [str(warning.message) for warning in said]
    assert any(
        "1 of 38 labelled genes are not in the vocabulary, such as NOGENE" in t for t in texts
    )
    assert any("1 of 37 labelled genes are not read" in text for text in texts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 1}, "Found 'epoch'"),
        ({"n_folds": 1}, "n_folds=1"),
        ({"n_folds": 19}, "a class of 16 genes"),
        ({"max_cells": 0}, "max_cells=0"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"hidden_layer": 9}, "layer=9"),
    ],
)
def test_bad_settings_are_refused(tiny, cells, labels, change, message):
    with pytest.raises(InputError, match=message):
        scmix.tl.fine_tune_genes(cells, labels, model=tiny, **change)


def test_labels_must_be_of_two_kinds_and_agree(tiny, cells, labels, names):
    with pytest.raises(InputError, match="at least two"):
        scmix.tl.fine_tune_genes(cells, dict.fromkeys(labels, "a"), model=tiny)
    genes = Vocabulary.bundled().genes.set_index("ensembl_id")
    clash = {**labels, genes.loc[names[0], "symbol"]: "high"}
    with pytest.raises(InputError, match="two different labels"):
        scmix.tl.fine_tune_genes(cells, clash, model=tiny)
