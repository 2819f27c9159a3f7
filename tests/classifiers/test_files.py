import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModel, BertForSequenceClassification

import scmix
from scmix import checkpoints
from scmix._errors import IncompatibleModelError, ModelFileError
from scmix.checkpoints._files import sha256
from scmix.classifiers import CellClassifier
from scmix.classifiers._fit import fit
from scmix.classifiers._network import first_tokens
from scmix.classifiers._recipes import recipe


@pytest.fixture(scope="module")
def saved(tuned, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "classifier"
    tuned.save(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def forge(folder, name, content):
    """Replace a file and let the manifest vouch for it."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": sha256(content), "bytes": len(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def edit(folder, name, change):
    content = json.loads((folder / name).read_text())
    change(content)
    forge(folder, name, json.dumps(content).encode())


@pytest.mark.parametrize("which", ["tuned", "paper"])
def test_round_trip(which, request, tmp_path, make_cells):
    classifier = request.getfixturevalue(which)
    classifier.save(tmp_path / "c")
    again = CellClassifier.load(tmp_path / "c")
    cells = make_cells(20, seed=4)
    sequences = classifier.prepare(cells.sequences, cells.species)
    for one, other in zip(
        classifier.predict(sequences, device="cpu")[0].values(),
        again.predict(again.prepare(cells.sequences, cells.species), device="cpu")[0].values(),
        strict=True,
    ):
        assert np.array_equal(one, other)
    assert {k: list(v) for k, v in again.classes.items()} == {
        k: list(v) for k, v in classifier.classes.items()
    }
    assert again.training == json.loads(json.dumps(classifier.training))
    assert again.history.equals(classifier.history)
    assert np.array_equal(again.cells, classifier.cells)
    for key, calibration in classifier.calibration.items():
        for name, value in vars(calibration).items():
            assert np.array_equal(getattr(again.calibration[key], name), value), name


def test_the_same_classifier_gives_the_same_files(tuned, saved, tmp_path):
    tuned.save(tmp_path / "again")
    for path in saved.iterdir():
        if path.name != "manifest.json":  # which says when
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_models_load_opens_the_encoder(tuned, saved):
    model = scmix.models.load(saved)
    for name, value in tuned.model.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], value)
    assert scmix.models.list(saved.parent)["name"].tolist()[-1] == str(saved)


def test_opens_in_transformers_with_equal_logits(model, make_cells, tmp_path):
    """A classifier with the published head is a BertForSequenceClassification."""
    trained = fit(model, make_cells(), recipe("paper", epochs=1, warmup_steps=0))
    trained.save(tmp_path / "c")
    other = BertForSequenceClassification.from_pretrained(tmp_path / "c").eval()
    cells = make_cells(9, seed=3)
    sequences = trained.prepare(cells.sequences, 0)
    expected = trained.predict(sequences, device="cpu", dtype="float32")[0]["key0"]
    tokens = torch.from_numpy(sequences.tokens.reshape(9, -1).astype(np.int64))
    with torch.no_grad():
        assert other(input_ids=tokens).logits.numpy() == pytest.approx(expected, abs=1e-5)
    assert other.config.id2label == dict(enumerate(["c", "a", "b"]))


def test_hidden_states_are_equal_in_transformers(tuned, saved, make_cells):
    other = AutoModel.from_pretrained(saved).eval()
    cells = make_cells(5, seed=3)
    sequences = first_tokens(tuned.prepare(cells.sequences, 0), 24)
    tokens = torch.from_numpy(sequences.tokens.astype(np.int64))
    with torch.no_grad():
        states = other(input_ids=tokens.reshape(5, -1), output_hidden_states=True).hidden_states
        ours = tuned.model.encoder(tokens, sequences.indptr.tolist(), layer=tuned.hidden_layer)
    theirs = states[tuned.hidden_layer].reshape(ours.shape)
    assert theirs.numpy() == pytest.approx(ours.numpy(), abs=1e-5)


def test_an_encoder_is_not_a_classifier(tmp_path, model):
    checkpoints.save(
        tmp_path / "m", model.encoder, model.vocabulary, recipe={}, training_data=[], licence="x"
    )
    with pytest.raises(IncompatibleModelError, match="fine_tune makes one"):
        CellClassifier.load(tmp_path / "m")


def test_labels_that_do_not_fit_the_head_are_refused(copy):
    edit(copy, "labels.json", lambda c: c["label_keys"][0]["classes"].append("d"))
    with pytest.raises(ModelFileError, match=r"classifier.* \[3, 8\].* \[4, 8\]"):
        CellClassifier.load(copy)
    with pytest.raises(ModelFileError, match="classifier"):
        scmix.models.load(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("pool"),
        lambda c: c.update(pool="max"),
        lambda c: c.update(extra=1),
        lambda c: c.update(hidden_layer=True),
        lambda c: c.update(n_genes=-1),
        lambda c: c["label_keys"].append(c["label_keys"][0]),
        lambda c: c["label_keys"][0].update(classes=["a", "a", "b"]),
        lambda c: c["label_keys"][0].update(classes=["a", 1, "b"]),
        lambda c: c["label_keys"][0].update(n_validation=10**6),
        lambda c: c.update(label_keys=[]),
        lambda c: c.update(n_cells=3),
        lambda c: c["training"].pop("scores"),
        lambda c: c["training"]["scores"].clear(),
        lambda c: c["history"].append(3),
    ],
)
def test_hostile_labels_are_refused(copy, change):
    edit(copy, "labels.json", change)
    with pytest.raises(ModelFileError):
        CellClassifier.load(copy)


@pytest.mark.parametrize("name", ["labels.json", "calibration.safetensors", "model.safetensors"])
def test_damage_is_found(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[-20] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ModelFileError, match="sha256"):
        CellClassifier.load(copy)
    (copy / name).unlink()
    with pytest.raises(ModelFileError):
        CellClassifier.load(copy)


def test_repr_says_what_it_is(tuned, paper):
    text = repr(tuned)
    assert "key0: 3 classes (c, a, b)" in text
    assert "30 human cells, calibrated on 10" in text
    assert f"temperature {tuned.calibration['key0'].temperature:.2f}" in text
    assert f"{tuned.training['scores']['key0']['macro_f1']:.3f}" in text
    assert "recipe 'paper'" in repr(paper)
    assert repr(paper).count("3 classes") == 2


def test_saving_never_replaces_unasked(tuned, saved):
    with pytest.raises(ValueError, match="overwrite=True"):
        tuned.save(saved)
    tuned.save(saved, overwrite=True)
