"""Each command does what its function does, and says so."""

import os

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scmix import checkpoints, classifiers, models, pretrain, tl
from scmix.cli import _doctor
from scmix.cli._main import make_parser
from scmix.cli._tables import write_table
from scmix.cli._words import in_words_of_the_shell


@pytest.fixture
def labelled(cells, model, scmix):
    """A classifier in the folder `c`, made by the command."""
    code, out, err = scmix(
        "fine-tune", "in.h5ad", "cell_type", "-o", "c", "--model", model, "--groups", "donor",
        "--set", "epochs=0", "--set", "validation_share=0.3", "-q",
    )  # fmt: skip
    assert (code, err) == (0, "")
    return out


def test_fine_tune_and_annotate(cells, model, scmix, labelled):
    made = classifiers.load("c")
    assert labelled.splitlines()[1:] == [*repr(made).splitlines()[1:], "Saved in c."]
    again = tl.fine_tune(
        cells, ["cell_type"], model=model, groups="donor", epochs=0, validation_share=0.3
    )
    np.testing.assert_array_equal(made.heads["cell_type"].weight, again.heads["cell_type"].weight)
    code, _, err = scmix("annotate", "in.h5ad", "c", "-o", "out.h5ad", "-q", "--sets", "lac")
    assert code == 0
    assert "scmix: warning: The classifier was trained or calibrated on 24 of these" in err
    assert "--alpha 0.1 needs 9 or more" in err  # not alpha=0.1
    found = ad.read_h5ad("out.h5ad")
    with pytest.warns(UserWarning, match="calibrated on"):
        tl.annotate(cells, made, sets="lac")
    pd.testing.assert_frame_equal(found.obs, cells.obs, check_categorical=False)
    for key in ("scmix_label_probabilities", "scmix_label_sets"):
        np.testing.assert_array_equal(found.obsm[key], cells.obsm[key])
    assert list(found.uns["scmix_label"]["classes"]) == ["a", "b"]
    assert scmix("annotate", "out.h5ad", "c", "-o", "again.h5ad", "-q")[0] == 0
    assert "scmix_label_sets" not in ad.read_h5ad("again.h5ad").obsm  # this call wrote none


def test_labels_as_a_table(cells, scmix, labelled):
    assert scmix("annotate", "in.h5ad", "c", "-o", "labels.csv.gz", "-q")[0] == 0
    table = pd.read_csv("labels.csv.gz")
    assert list(table.columns) == ["cell", "scmix_label", "scmix_label_confidence"]
    assert table["cell"].tolist() == cells.obs_names.tolist()
    assert set(table["scmix_label"]) <= {"a", "b"}


def test_a_classifier_is_not_replaced_unasked(cells, scmix, labelled):
    typed = ["fine-tune", "in.h5ad", "cell_type", "-o", "c", "-q", "--set", "epochs=0"]
    code, _, err = scmix(*typed)
    assert (code, "c exists already. Pass --force" in err) == (2, True)
    code, _, err = scmix("fine-tune", "in.h5ad", "cell_type", "-o", "d", "--set", "seed=3")
    assert (code, err) == (2, "scmix: error: Found --set seed; expected --seed for it.\n")


def test_perturb(cells, model, scmix):
    genes = cells.var_names[:3].tolist()
    typed = ["perturb", "in.h5ad", "--model", model, "--min-cells", "1", "-q", "--genes"]
    sets = [genes[0], f"{genes[1]}+{genes[2]}"]
    assert scmix(*typed, *sets, "-o", "out.h5ad")[0] == 0
    assert scmix(*typed, *sets, "-o", "scores.csv")[0] == 0
    tl.perturb(cells, [[genes[0]], genes[1:3]], model=model, min_cells=1)
    expected = cells.uns["perturbation"]["scores"]
    found = ad.read_h5ad("out.h5ad").uns["perturbation"]
    np.testing.assert_allclose(found["scores"]["effect"], expected["effect"], atol=1e-6)
    assert list(pd.read_csv("scores.csv")["gene"]) == list(expected["gene"])
    assert found["params"]["genes"].tolist() == sets


def test_no_spreadsheet_takes_text_for_a_formula(here):
    table = pd.DataFrame({"label": ["=1+1", "@x", "plain", None], "value": [-1.5, 2, 3, 4]})
    write_table(table.set_index(pd.Index(["+a", "b", "c", "d"])), here / "t.csv", index="cell")
    assert (here / "t.csv").read_text().splitlines() == [
        "cell,label,value", "'+a,'=1+1,-1.5", "b,'@x,2.0", "c,plain,3.0", "d,,4.0"
    ]  # fmt: skip


def test_corpus_and_pretrain(cells, scmix, here):
    (here / "files.toml").write_text(
        '[[source]]\npath = "in.h5ad"\norgan = "blood"\nkeep = ["donor"]\n'
    )
    typed = ["corpus", "build", "files.toml", "-o", "corpus", "--min-genes", "10", "-q"]
    code, out, _ = scmix(*typed)
    assert (code, out.endswith("Saved in corpus.\n")) == (0, True)
    corpus = pretrain.Corpus.open("corpus")
    assert (len(corpus), corpus.vocabulary.mode) == (24, "shared")
    code, _, err = scmix(*typed, "--n-genes", "none")
    assert (code, "--force" in err) == (2, True)
    (here / "recipe.toml").write_text(
        'corpus.path = "corpus"\nrun.out = "run"\n[recipe]\nname = "scmix-mini"\nsteps = 1\n'
        "hidden_size = 8\nnum_hidden_layers = 1\nmax_length = 64\ntokens_per_step = 256\n"
    )
    assert scmix("pretrain", "recipe.toml", "--check")[0] == 0
    assert not (here / "run").exists()
    code, out, err = scmix("pretrain", "recipe.toml", "-o", "other", "-q")
    assert (code, out) == (0, "Saved in other/final.\n"), err
    assert models.load("other/final").config.hidden_size == 8


def test_list_of_files_is_checked(here, scmix):
    for text, message in {
        '[[source]]\npath = "a"\nspecie = "human"': "no setting 'specie'. Did you mean species?",
        '[[source]]\nspecies = "human"': "has no path. Add one",
        "[sources]": "holds sources; expected [[source]].",
        "[[": "is not valid TOML",
    }.items():
        (here / "files.toml").write_text(text)
        code, _, err = scmix("corpus", "build", "files.toml", "-o", "corpus")
        assert (code, message in err) == (2, True), err


def test_models(scmix, here, model):
    code, out, _ = scmix("models", "list", os.path.dirname(model))
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["name", "scmix-mini", model]
    assert scmix("models", "show", "scmix-mini") == (
        0,
        models.card("scmix-mini").rstrip() + "\n",
        "",
    )
    code, out, err = scmix("models", "show", "scmix-mni")
    assert (code, out) == (2, "")
    assert "Did you mean 'scmix-mini'" in err
    assert "`scmix models list` shows what can be loaded" in err


def test_import(scmix, here, model):
    code, _, err = scmix("models", "import", model, "-o", "out")
    assert code == 2
    assert "is a checkpoint of scmix already" in err


def test_doctor_says_that_all_is_well(scmix, here):
    code, out, _ = scmix("doctor", "--device", "cpu")
    assert code == 0, out
    assert out.endswith("All is well.\n")
    for part in ("Python 3.", "torch 2.", "cpu, computing in", "scmix-mini: ", "cells embedded"):
        assert part in out
    assert "FAIL" not in out


def test_doctor_finds_what_is_wrong(scmix, model, here, monkeypatch):
    made = checkpoints.load(model)
    checkpoints.save(
        "broken", made.encoder, made.vocabulary, recipe={}, training_data=[], licence="none"
    )
    with open("broken/model.safetensors", "r+b") as file:
        file.seek(-4, 2)
        file.write(b"abcd")
    monkeypatch.setattr(_doctor, "version", lambda name: "0.0.1")
    code, out, _ = scmix("doctor", "--model", "broken")
    assert code == 1
    assert "FAIL  torch 0.0.1, expected >=2.6: pip install -U scmix" in out
    assert "FAIL  ModelFileError: broken/model.safetensors has sha256" in out
    assert "faults." in out.splitlines()[-1]


def test_unexpected_errors_ask_for_a_report(scmix, cells, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("never seen")

    monkeypatch.setattr(tl, "embed", broken)
    code, out, err = scmix("embed", "in.h5ad", "-o", "out.h5ad")
    assert (code, out) == (1, "")
    assert "RuntimeError: never seen" in err
    assert "this is a fault of scmix. Please report it" in err


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ('Pass layer="counts".', "Pass --layer counts."),
        ("Pass overwrite=True, or another key_added.", "Pass --overwrite, or another --key-added."),
        ("pass species_key= the column", "pass --species-key the column"),
        ("Found n_genes=99; pass n_genes=62.", "Found --n-genes 99; pass --n-genes 62."),
        ("Found device='cuda:1'.", "Found --device cuda:1."),
        ("Use layer=None.", "Use no --layer."),
        ('obsm["X_scmix"] in the layer of the model', 'obsm["X_scmix"] in the layer of the model'),
        ("scmix.models.list() shows", "`scmix models list` shows"),
    ],
)
def test_messages_are_in_the_words_of_the_shell(message, words):
    args = make_parser().parse_args(["embed", "in.h5ad", "-o", "out.h5ad"])
    assert in_words_of_the_shell(message, args) == words
