import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

import scmix
from scmix import _slots
from scmix._errors import InputError, MissingKeyError
from scmix.batches import concat
from scmix.genes import Vocabulary

QUICK = {"epochs": 0, "n_genes": 50}


@pytest.fixture
def cells():
    """36 cells of three types with ten genes of their own each, four donors."""
    genes = Vocabulary.bundled().genes
    names = genes[(genes["species"] == "human") & (genes["ensembl_id"] != "")]["ensembl_id"]
    rng = np.random.default_rng(0)
    codes = np.arange(36) % 3
    counts = rng.negative_binomial(1, 0.5, size=(36, 60))
    counts[np.arange(36)[:, None], codes[:, None] * 10 + np.arange(10)] += 9
    obs = pd.DataFrame(
        {
            "type": pd.Categorical.from_codes(codes, ["T", "B", "NK"]),
            "donor": [f"d{i // 9}" for i in range(36)],
            "sex": np.where(np.arange(36) // 9 % 2, "f", "m"),
        },
        index=[f"cell{i}" for i in range(36)],
    )
    var = pd.DataFrame(index=names.iloc[:60].to_numpy(str))
    return AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)


def label(classifier, adata, key="type"):
    vocabulary = classifier.model.vocabulary
    blocks = _slots.iter_sequences(adata, vocabulary, n_genes=classifier.n_genes)
    sequences = classifier.prepare(concat([block.sequences for block in blocks]), 0)
    logits, _ = classifier.predict(sequences, device="cpu", dtype="float32")
    return classifier.classes[key][logits[key].argmax(axis=1)]


def test_labels_and_classes_in_category_order(tiny, cells, unchanged):
    with unchanged(cells):
        classifier = scmix.tl.fine_tune(cells, "type", model=tiny, **QUICK)
    assert classifier.classes["type"].tolist() == ["T", "B", "NK"]
    assert (label(classifier, cells) == cells.obs["type"].astype(str)).mean() > 0.95
    assert classifier.training["species"] == ["human"]


def test_row_order_and_seed(tiny, cells):
    """The same cells in another order are the same data: labels of new cells do not change."""
    options = {"model": tiny, "validation_key": "aside", **QUICK}
    cells.obs["aside"] = np.arange(36) % 4 == 0
    one = scmix.tl.fine_tune(cells, "type", **options)
    same = scmix.tl.fine_tune(cells, "type", **options)
    order = np.random.default_rng(1).permutation(36)
    other = scmix.tl.fine_tune(cells[order].copy(), "type", **options)
    for a, b in ((one, same), (one, other)):
        # the regressions stop a little before their optimum
        assert a.heads["type"].weight == pytest.approx(b.heads["type"].weight, rel=0.05, abs=0.5)
        assert np.array_equal(label(a, cells), label(b, cells))


def test_whole_donors_are_set_aside(tiny, cells):
    options = {"groups": "donor", "validation_share": 0.25, "model": tiny}
    classifier = scmix.tl.fine_tune(cells, "type", **options, **QUICK)
    groups = classifier.calibration["type"].groups
    assert classifier.training["split"] == "whole groups of 'donor'"
    assert groups.size == 9 * np.unique(groups).size < 36


def test_recipe_fast_sets_nobody_aside(tiny, cells):
    classifier = scmix.tl.fine_tune(cells, "type", groups="donor", model=tiny, **QUICK)
    assert classifier.training["split"] == "cross-validation by whole groups of 'donor'"
    assert classifier.training["n_training"] == classifier.training["n_validation"] == 36
    assert np.bincount(classifier.calibration["type"].groups).tolist() == [9] * 4
    assert "calibrated on 36 (cross-validation by whole groups of 'donor')" in repr(classifier)


def test_a_class_of_one_donor_is_said(tiny, cells):
    """No donor without it can tell how well it is known."""
    cells.obs["type"] = cells.obs["type"].cat.add_categories("rare")
    cells.obs.loc[cells.obs_names[:4], "type"] = "rare"
    with pytest.warns(UserWarning, match="1 of 4 classes of 'type' have no validation cell: rare"):
        classifier = scmix.tl.fine_tune(cells, "type", groups="donor", model=tiny, **QUICK)
    assert classifier.training["n_validation"] == 32


def test_validation_key_and_a_test_split_that_is_not_touched(tiny, cells):
    """Whatever the labels and counts of test cells are, the classifier is the same."""
    cells.obs["split"] = np.array(["train", "train", "validation", "test"])[np.arange(36) // 3 % 4]
    one = scmix.tl.fine_tune(cells, "type", validation_key="split", model=tiny, **QUICK)
    asked = (cells.obs["split"] == "test").to_numpy()
    other = cells.copy()
    other.obs["type"] = other.obs["type"].cat.add_categories("new")
    other.obs.loc[asked, "type"] = "new"
    other.X[np.flatnonzero(asked)] = 1
    two = scmix.tl.fine_tune(other, "type", validation_key="split", model=tiny, **QUICK)
    assert one.training["n_validation"] == 9
    assert np.array_equal(one.heads["type"].votes, two.heads["type"].votes)
    assert one.calibration["type"].temperature == two.calibration["type"].temperature
    assert two.classes["type"].tolist() == ["T", "B", "NK"]


def test_missing_labels_are_left_out_and_said(tiny, cells):
    cells.obs.loc[cells.obs_names[:5], "type"] = np.nan
    with pytest.warns(UserWarning, match="Left out 5 of 36 cells without a label") as said:
        classifier = scmix.tl.fine_tune(cells, "type", model=tiny, **QUICK)
    ours = [warning for warning in said if warning.category is UserWarning]
    assert {warning.filename for warning in ours} == {__file__}
    assert classifier.training["n_training"] == 31


def test_a_class_of_one_cell_is_trained_on_and_said(tiny, cells):
    cells.obs["type"] = cells.obs["type"].cat.add_categories("rare")
    cells.obs.loc[cells.obs_names[7], "type"] = "rare"
    with pytest.warns(UserWarning, match="1 of 4 classes of 'type' have no validation cell: rare"):
        classifier = scmix.tl.fine_tune(cells, "type", model=tiny, **QUICK)
    assert classifier.classes["type"].tolist()[-1] == "rare"
    assert 3 not in classifier.calibration["type"].labels


def test_cells_without_genes_are_left_out_and_said(tiny, cells, clear):
    clear(cells, cells=[4])
    with pytest.warns(UserWarning, match="Left out 1 cells without a count"):
        classifier = scmix.tl.fine_tune(cells, "type", model=tiny, **QUICK)
    assert classifier.training["n_training"] == 35


def test_one_donor_is_said(tiny, cells):
    cells.obs["donor"] = "d0"
    with pytest.warns(UserWarning, match="one group only"):
        classifier = scmix.tl.fine_tune(cells, "type", groups="donor", model=tiny, **QUICK)
    assert classifier.training["split"] == "cross-validation by class"


def test_several_keys(tiny, cells):
    classifier = scmix.tl.fine_tune(cells, ["type", "sex"], model=tiny, **QUICK)
    assert classifier.label_keys == ("type", "sex")
    assert classifier.classes["sex"].tolist() == ["f", "m"]
    assert set(classifier.calibration) == {"type", "sex"}


def test_views_and_backed_files(tiny, cells, tmp_path):
    import anndata

    expected = scmix.tl.fine_tune(cells, "type", model=tiny, **QUICK).heads["type"].votes
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    for adata in (cells[:], backed):
        found = scmix.tl.fine_tune(adata, "type", model=tiny, **QUICK).heads["type"].votes
        assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label_key": "tyep"}, MissingKeyError, "Did you mean 'type'"),
        ({"groups": "donors"}, MissingKeyError, "Did you mean 'donor'"),
        ({"validation_key": "x"}, MissingKeyError, "Found no column 'x'"),
        ({"validation_key": "donor"}, InputError, "Found 'd0' in 'donor'"),
        ({"label_key": []}, InputError, "one or several"),
        ({"label_key": ["type", "type"]}, InputError, "different keys"),
        ({"epoch": 3}, InputError, "Did you mean epochs"),
        ({"recipe": "slow"}, InputError, "expected one of fast, tuned, paper"),
        ({"n_genes": 0}, InputError, "n_genes=0"),
        ({"layer": "x"}, MissingKeyError, "no layer 'x'"),
        ({"species": "rat"}, InputError, "Found species 'rat'"),
    ],
)
def test_bad_input_is_refused_before_any_work(tiny, cells, monkeypatch, options, error, message):
    from scmix.tl import _fine_tune

    monkeypatch.setattr(_fine_tune, "fit", lambda *_, **__: pytest.fail("trained"))
    options = {"label_key": "type", **options}
    with pytest.raises(error, match=message):
        scmix.tl.fine_tune(cells, options.pop("label_key"), model=tiny, **options)


def test_groups_need_a_value_for_each_cell(tiny, cells):
    cells.obs.loc[cells.obs_names[0], "donor"] = np.nan
    with pytest.raises(InputError, match="1 cells without a group"):
        scmix.tl.fine_tune(cells, "type", groups="donor", model=tiny, **QUICK)


def test_log_transformed_values_are_refused(tiny, cells):
    cells.X = cells.X.log1p()
    with pytest.raises(InputError, match=r"\.X"):
        scmix.tl.fine_tune(cells, "type", model=tiny, **QUICK)
