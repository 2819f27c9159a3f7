import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from scmix import inference
from scmix._errors import InputError
from scmix.classifiers import _fit, load
from scmix.classifiers._fit import Cells, fit
from scmix.classifiers._recipes import recipe
from scmix.classifiers._split import divide
from scmix.classifiers._trainer import Trainer
from scmix.statistics import fit_temperature

ONE = recipe("tuned", epochs=1)
ALL = {"probe_cells": 0, "frozen_layers": 0, "hidden_layer": -1, "learning_rate": 1e-2}
TUNED = recipe("tuned", epochs=4, batch_size=4, head_learning_rate=3e-2, **ALL)


def prepared(classifier, cells):
    return classifier.prepare(cells.sequences, cells.species)


def predict(classifier, cells, **options):
    sequences = prepared(classifier, cells)
    return classifier.predict(sequences, device="cpu", dtype="float32", **options)


def same_weights(one, other):
    pairs = zip(one.heads.values(), other.heads.values(), strict=True)
    heads = all(
        np.array_equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True) if a is not None
    )
    a, b = one.model.encoder.state_dict(), other.model.encoder.state_dict()
    return heads and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns(model, make_cells):
    cells, new = make_cells(), make_cells(60, seed=7)
    start = fit(model, cells, dataclasses.replace(TUNED, epochs=0))
    classifier = fit(model, cells, TUNED)
    truth = new.labels.codes[:, 0]
    before, after = (predict(c, new)[0]["key0"].argmax(1) == truth for c in (start, classifier))
    assert after.mean() > max(0.9, before.mean() + 0.3)


@pytest.fixture(scope="module")
def everyone(make_cells):
    """Cells of which none is set aside."""
    return dataclasses.replace(make_cells(), aside=np.zeros(40, bool))


def test_the_probe_alone_is_a_classifier(model, make_cells, everyone):
    new = make_cells(60, seed=7)
    classifier = fit(model, everyone, recipe("fast"))
    logits = predict(classifier, new)[0]["key0"]
    assert (logits.argmax(1) == new.labels.codes[:, 0]).mean() > 0.9
    assert not len(classifier.history)
    assert classifier.model.sha256 == model.sha256


def test_without_training_everybody_teaches_and_calibrates(model, everyone):
    """Logits of the calibration are by heads of the other parts, those of `predict` by all."""
    classifier = fit(model, everyone, recipe("fast"))
    calibration, codes = classifier.calibration["key0"], everyone.labels.codes[:, 0]
    assert classifier.training["n_training"] == classifier.training["n_validation"] == 40
    assert np.array_equal(calibration.labels, codes)
    logits, vectors = predict(classifier, everyone)
    own, crossed = (
        x[np.arange(40), codes] - np.sort(x)[:, -2] for x in (logits["key0"], calibration.logits)
    )
    assert own.mean() > crossed.mean() + 0.1
    means = [vectors[codes == code].mean(axis=0) for code in range(3)]
    assert calibration.centroids == pytest.approx(np.array(means), abs=0.02)


def test_other_labels_of_a_donor_do_not_change_its_own_calibration(model, everyone):
    """Cells of a donor are judged by heads that no cell of the donor was fitted for."""
    groups = np.arange(40) % 4
    codes = everyone.labels.codes.copy()
    codes[groups == 1] = (codes[groups == 1] + 1) % 3
    labels = dataclasses.replace(everyone.labels, codes=codes)
    cells = dataclasses.replace(everyone, groups=groups)
    plain = recipe("fast", gene_votes=False)
    one = fit(model, cells, plain).calibration["key0"]
    other = fit(model, dataclasses.replace(cells, labels=labels), plain).calibration["key0"]
    assert one.groups.tolist() == groups.tolist()
    assert np.array_equal(one.logits[groups == 1], other.logits[groups == 1])
    assert not np.allclose(one.logits[groups != 1], other.logits[groups != 1])


def test_a_class_of_one_cell_calibrates_nothing(model, everyone):
    codes = everyone.labels.codes.copy()
    codes[codes == 2] = 1
    codes[7] = 2
    labels = dataclasses.replace(everyone.labels, codes=codes)
    classifier = fit(model, dataclasses.replace(everyone, labels=labels), recipe("fast"))
    calibration = classifier.calibration["key0"]
    assert calibration.n_cells == 39
    assert 2 not in calibration.labels
    assert np.isfinite(calibration.logits).all()
    assert np.isfinite(calibration.distances).all()


def test_the_order_of_the_cells_changes_nothing(model, everyone, make_cells):
    order = np.random.default_rng(2).permutation(40)
    labels = dataclasses.replace(everyone.labels, codes=everyone.labels.codes[order])
    other = Cells(everyone.sequences[order], everyone.species, labels, everyone.aside)
    one, two = (fit(model, cells, recipe("fast")) for cells in (everyone, other))
    new = make_cells(20, seed=3)
    assert predict(one, new)[0]["key0"] == pytest.approx(predict(two, new)[0]["key0"], abs=1e-2)


def test_the_model_is_left_as_it_is(model, make_cells):
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    classifier = fit(model, make_cells(), dataclasses.replace(TUNED, epochs=1))
    after = model.encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    changed = classifier.model.encoder.state_dict()
    assert not torch.equal(changed["bert.encoder.layer.0.output.dense.weight"],
                           before["bert.encoder.layer.0.output.dense.weight"])  # fmt: skip
    assert classifier.model.sha256 != model.sha256


def test_several_keys_start_from_the_pretrained_weights(model, make_cells):
    """The published multi-task model was made from a configuration and never loaded weights."""
    start = fit(model, make_cells(n_keys=2), recipe("paper", epochs=0))
    encoder = start.model.encoder.state_dict()
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(encoder[name], value)
    assert start.label_keys == ("key0", "key1")


def test_the_pooler_is_trained_not_random(model, make_cells, paper):
    start = fit(model, make_cells(n_keys=2), recipe("paper", epochs=0, warmup_steps=0))
    weight = "bert.pooler.dense.weight"
    one, other = (c.model.encoder.state_dict()[weight] for c in (start, paper))
    assert not torch.equal(one, other)


def test_same_seed_same_classifier_and_global_randomness_is_left_alone(model, make_cells, tuned):
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    again = fit(model, make_cells(groups=np.arange(40) % 4), ONE)
    assert same_weights(tuned, again)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert not same_weights(tuned, fit(model, make_cells(), dataclasses.replace(ONE, seed=1)))


def test_prediction_does_not_depend_on_batches_or_order(tuned, make_cells):
    cells = make_cells(30, seed=5)
    logits, vectors = predict(tuned, cells)
    order = np.random.default_rng(0).permutation(30)
    sequences = prepared(tuned, cells)[order]
    for batch_tokens in (1, 90, None):
        found = tuned.predict(sequences, device="cpu", dtype="float32", batch_tokens=batch_tokens)
        assert found[0]["key0"] == pytest.approx(logits["key0"][order], abs=1e-5)
        assert found[1] == pytest.approx(vectors[order], abs=1e-5)


def test_cells_without_genes_get_nan(tuned):
    from scmix.batches import Sequences

    sequences = tuned.prepare(Sequences.from_list([[], [5, 6, 7]]), 0)
    logits, vectors = tuned.predict(sequences, device="cpu")
    assert np.isnan(logits["key0"]).all(axis=1).tolist() == [True, False]
    assert np.isnan(vectors).all(axis=1).tolist() == [True, False]


def test_calibration_is_of_the_cells_set_aside(tuned, make_cells):
    cells = make_cells()
    calibration = tuned.calibration["key0"]
    logits, vectors = predict(tuned, cells)
    assert np.array_equal(calibration.labels, cells.labels.codes[cells.aside, 0])
    assert calibration.logits == pytest.approx(logits["key0"][cells.aside], rel=0.02, abs=0.05)
    expected = fit_temperature(calibration.logits, calibration.labels)
    assert calibration.temperature == pytest.approx(expected, rel=1e-6)
    training = cells.labels.codes[:, 0] * ~cells.aside - cells.aside
    means = [vectors[training == code].mean(axis=0) for code in range(3)]
    assert calibration.centroids == pytest.approx(np.array(means), abs=0.02)
    assert calibration.groups.tolist() == (np.arange(40) % 4)[cells.aside].tolist()


@pytest.mark.parametrize("epochs", [0, 1])
def test_no_cell_is_read_twice_by_the_same_encoder(model, make_cells, monkeypatch, epochs):
    """Where the start is what is kept, its vectors serve for the centroids as well."""
    cells, read = make_cells(), []
    run = inference.run

    def count(encoder, sequences, **options):
        read.append(len(sequences))
        return run(encoder, sequences, **options)

    monkeypatch.setattr(inference, "run", count)
    worse = iter([0.9, 0.5])
    monkeypatch.setattr(
        _fit.Validation,
        "__call__",
        lambda self, network: {"validation_macro_f1": next(worse), "validation_loss": 1.0},
    )
    classifier = fit(model, cells, dataclasses.replace(ONE, epochs=epochs))
    assert read == [30, 10]  # trained on, set aside
    _, vectors = predict(classifier, cells)
    training = cells.labels.codes[:, 0] * ~cells.aside - cells.aside
    means = [vectors[training == code].mean(axis=0) for code in range(3)]
    centroids = classifier.calibration["key0"].centroids
    assert centroids == pytest.approx(np.array(means), abs=0.02)


def test_cells_set_aside_are_not_trained_on(model, make_cells):
    """Other labels of the validation cells change the calibration, never the weights."""
    cells = make_cells()
    codes = cells.labels.codes.copy()
    codes[cells.aside] = (codes[cells.aside] + 1) % 3
    labels = dataclasses.replace(cells.labels, codes=codes)
    last = recipe("tuned", epochs=1, keep="last")
    one = fit(model, cells, last)
    other = fit(model, dataclasses.replace(cells, labels=labels), last)
    assert same_weights(one, other)
    assert one.calibration["key0"].temperature != other.calibration["key0"].temperature


def test_seen(tuned, make_cells):
    assert tuned.seen(prepared(tuned, make_cells())).all()
    assert not tuned.seen(prepared(tuned, make_cells(seed=9))).any()


def test_early_stopping_keeps_the_best_epoch(model, make_cells, monkeypatch):
    scores = iter([0.5, 0.8, 0.7, 0.6, 0.9])
    monkeypatch.setattr(
        _fit.Validation,
        "__call__",
        lambda self, network: {"validation_macro_f1": next(scores), "validation_loss": 1.0},
    )
    kept = []
    offer = _fit.Best.offer

    def note(best, network, record):
        offer(best, network, record)
        kept.append(best.weights)

    monkeypatch.setattr(_fit.Best, "offer", note)
    classifier = fit(model, make_cells(), recipe("tuned", epochs=9, patience=2))
    history = classifier.history
    assert history["epoch"].max() == 3
    assert history.loc[history["kept"], "epoch"].tolist() == [1]
    assert np.array_equal(classifier.heads["key0"].weight, kept[1]["heads.0.weight"].numpy())
    assert next(scores) == 0.9


def test_weights_make_rare_classes_heard(model, make_cells):
    cells = make_cells(41)
    weights = _fit._class_weights(cells)[0]
    sizes = np.bincount(cells.labels.codes[~cells.aside, 0])
    assert weights.numpy() * sizes == pytest.approx(sizes.sum() / 3, rel=1e-6)


_RUN = """
import os, sys
sys.path.insert(0, {tests!r})
from conftest import *
import scmix._training as _trainer

model, cells = model.__wrapped__(v := vocabulary.__wrapped__()), make_cells.__wrapped__(v)()
save = _trainer.mark_complete
def kill(checkpoint):
    save(checkpoint)
    if checkpoint.name.endswith("4"):
        os._exit(9)
if {killed}:
    _trainer.mark_complete = kill
fit(model, cells, recipe("tuned", **{options!r}), out={out!r}, device="cpu")
"""


def in_its_own_process(out, *, killed=False):
    """Fit with one thread; bits depend on how many there are."""
    options = {"epochs": 3, "patience": 0, "batch_size": 16, **ALL}  # two steps an epoch
    code = _RUN.format(
        tests=os.path.dirname(__file__), killed=killed, options=options, out=str(out)
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.returncode == (9 if killed else 0), done.stderr.decode()


def test_a_killed_run_goes_on_and_ends_with_the_same_bits(tmp_path):
    in_its_own_process(tmp_path / "run", killed=True)
    assert not (tmp_path / "run" / "final").exists()
    in_its_own_process(tmp_path / "run")
    in_its_own_process(tmp_path / "whole")
    resumed, whole = (load(tmp_path / name / "final") for name in ("run", "whole"))
    assert same_weights(resumed, whole)
    assert resumed.history.equals(whole.history)
    in_its_own_process(tmp_path / "run")  # there is nothing left to do
    assert same_weights(load(tmp_path / "run" / "final"), resumed)


def test_a_folder_of_another_run_is_refused(model, make_cells, tmp_path):
    fit(model, make_cells(), recipe("tuned", epochs=0), out=tmp_path)
    with pytest.raises(InputError, match="other settings"):
        fit(model, make_cells(), recipe("tuned", epochs=0, seed=1), out=tmp_path)
    with pytest.raises(InputError, match="other settings"):
        fit(model, make_cells(seed=1), recipe("tuned", epochs=0), out=tmp_path)
    assert json.loads((tmp_path / "settings.json").read_text())["recipe"]["name"] == "tuned"


def test_a_loss_that_is_not_finite_stops_and_names_the_cells(model, make_cells, monkeypatch):
    compute = Trainer.compute_loss

    def poisoned(self, network, inputs, **options):
        if self.state.global_step == 1:
            with torch.no_grad():
                network.heads[0].weight.fill_(float("nan"))
        return compute(self, network, inputs, **options)

    monkeypatch.setattr(Trainer, "compute_loss", poisoned)
    with pytest.raises(FloatingPointError, match=r"step 2: the loss is not finite.*cells \["):
        fit(model, make_cells(), ONE)


def test_classes_without_a_training_cell_are_refused(model, make_cells):
    cells = make_cells()
    aside = cells.labels.codes[:, 0] == 1
    with pytest.raises(InputError, match="no training cell of a "):
        fit(model, dataclasses.replace(cells, aside=aside), ONE)


def test_without_validation_cells_the_last_epoch_is_kept(model, make_cells):
    cells = dataclasses.replace(make_cells(), aside=np.zeros(40, bool))
    classifier = fit(model, cells, ONE)
    assert classifier.calibration == {}
    assert classifier.history["kept"].tolist()[-1]
    assert "calibrated on 0" in repr(classifier)


@pytest.mark.parametrize("n_genes", [0, 70_000])
def test_n_genes_out_of_range(model, make_cells, n_genes):
    with pytest.raises(InputError, match=f"Found n_genes={n_genes}"):
        fit(model, make_cells(), ONE, n_genes=n_genes)


def test_lora_trains_adapters_only_and_merges_them(model, make_cells):
    pytest.importorskip("peft")
    cells = make_cells()
    options = {"lora_rank": 2, "frozen_layers": 1, "hidden_layer": -1, "learning_rate": 1e-2}
    classifier = fit(model, cells, recipe("tuned", epochs=1, keep="last", **options))
    before, after = model.encoder.state_dict(), classifier.model.encoder.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    layer = "bert.encoder.layer.1."
    assert changed == {
        f"{layer}{name}.dense.weight" for name in ("attention.output", "intermediate", "output")
    }
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], tol=1e-6) <= 2


def test_lora_without_peft_names_the_extra(model, make_cells, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"scmix\[lora\]"):
        fit(model, make_cells(), recipe("tuned", lora_rank=2))


def test_cells_need_genes_and_labels(model, make_cells):
    cells = make_cells()
    codes = cells.labels.codes.copy()
    codes[0] = -1
    labels = dataclasses.replace(cells.labels, codes=codes)
    with pytest.raises(InputError, match="without a label"):
        fit(model, Cells(cells.sequences, cells.species, labels, cells.aside), ONE)


def test_the_epoch_is_chosen_by_other_cells_than_those_that_calibrate(model, make_cells):
    cells = make_cells(480)
    classifier = fit(model, cells, ONE)
    chooses, calibrates = divide(cells.aside, cells.labels.codes[:, 0], None, ONE.seed)
    assert not (chooses & calibrates).any()
    assert classifier.training["n_choosing"] == chooses.sum() == 60
    labels = classifier.calibration["key0"].labels
    assert labels.tolist() == cells.labels.codes[calibrates, 0].tolist()
    assert "epoch chosen on 60 others" in repr(classifier)
    kept = classifier.history.query("kept").iloc[0]
    codes = cells.labels.codes[chooses, 0]
    given = classifier.predict(prepared(classifier, cells)[np.flatnonzero(chooses)], device="cpu")
    right = (given[0]["key0"].argmax(axis=1) == codes).mean()
    assert kept.validation_accuracy == pytest.approx(right, abs=0.02)


def test_few_cells_choose_and_calibrate(tuned):
    assert "epoch chosen on the same cells" in repr(tuned)
