"""Held-out losses of every objective, and probes that see what a model's vectors tell apart."""

import numpy as np
import pandas as pd
import pytest
import torch

from scmix._errors import InputError
from scmix._history import read_history
from scmix.pretrain import Source, build_corpus, recipe, train
from scmix.pretrain._probes import Probes, pool_of
from scmix.pretrain._validation import Validation
from scmix.pretrain.model import make_model

from .conftest import N_MODULES, counts_of, write_cells

SIZES = {
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "intermediate_size": 32,
    "max_length": 32,
    "tokens_per_step": 1024,
    "init": "random",
    "precision": "fp32",
}
CPU = torch.device("cpu")


def modules_of(corpus) -> np.ndarray:
    """The planted module of each cell, by its first gene."""
    genes = corpus.vocabulary.genes.drop_duplicates("token").set_index("token")
    first = [corpus.sequences(np.array([row])).tokens[0] for row in range(len(corpus))]
    number = genes.ensembl_id.loc[first].str[-11:].astype(int).to_numpy() - 1
    return np.array([f"module {i}" for i in number % N_MODULES])


def validation_of(corpus, objectives, labels=None, **changes):
    settings = recipe("scmix-mini", objectives=objectives, **{**SIZES, **changes})
    model = make_model(corpus.vocabulary, settings)
    return Validation(corpus, corpus, settings, model, labels), model


def test_every_objective_is_measured_for_each_species(corpus):
    objectives = {"mlm": 1.0, "subset_contrast": 1.0, "xspecies": 1.0}
    validation, model = validation_of(corpus, objectives)
    values = validation(model, CPU, bf16=False)
    names = [*objectives, *(f"{name}_accuracy" for name in objectives), "unigram"]
    assert set(values) == {f"{species}_{name}" for species in ("human", "mouse") for name in names}
    assert all(np.isfinite(value) for value in values.values())
    assert validation(model, CPU, bf16=False) == values
    assert model.training


def test_the_mask_does_not_depend_on_the_recipe(corpus):
    """Two recipes that hide other genes in training predict the same genes when validated."""
    one, _ = validation_of(corpus, {"mlm": 1.0})
    two, _ = validation_of(
        corpus, {"mlm": 0.5, "subset_contrast": 1.0}, mask_share=0.4, mask_masked=1.0,
        mask_replaced=0.0,
    )  # fmt: skip
    for a, b in zip(one.batches["human", "mlm"], two.batches["human", "mlm"], strict=True):
        assert torch.equal(a["targets"]["labels"], b["targets"]["labels"])
        assert torch.equal(a["views"]["masked"]["tokens"], b["views"]["masked"]["tokens"])


def test_the_loss_is_the_mean_over_all_masked_genes(corpus):
    validation, model = validation_of(corpus, {"mlm": 1.0}, tokens_per_step=128)
    model.eval()
    batches = validation.batches["human", "mlm"]
    assert len(batches) > 3
    losses = []
    for batch in batches:
        view = batch["views"]["masked"]
        hidden = model.encoder(view["tokens"], view["indptr"])[batch["targets"]["positions"]]
        logits = model.encoder.logits(hidden)
        labels = batch["targets"]["labels"]
        losses.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
    expected = float(torch.cat(losses).mean().detach())
    assert validation(model, CPU, bf16=False)["human_mlm"] == pytest.approx(expected, rel=1e-5)


def test_dropout_views_differ_in_validation_too(corpus):
    """Without dropout both views would be one, and every cell would find itself."""
    validation, model = validation_of(corpus, {"simcse": 1.0}, hidden_dropout_prob=0.5)
    values = validation(model, CPU, bf16=False)
    assert values["human_simcse"] > 0.1
    assert validation(model, CPU, bf16=False) == values


def test_probes_score_what_the_vectors_hold(corpus):
    """Word embeddings of a gene's module: labels of modules are found, shuffled ones are not."""
    labels = {
        "module": modules_of(corpus),
        "shuffled": np.random.default_rng(0).permutation(modules_of(corpus)),
        "constant": np.full(len(corpus), "cell"),
    }
    settings = recipe("scmix-mini", objectives={"mlm": 1.0}, num_hidden_layers=1, **{
        k: v for k, v in SIZES.items() if k != "num_hidden_layers"
    })  # fmt: skip
    model = make_model(corpus.vocabulary, settings).eval()
    genes = corpus.vocabulary.genes
    number = (genes.ensembl_id.str[-11:].astype(int) - 1) % N_MODULES
    embeddings = model.encoder.bert.embeddings
    with torch.no_grad():
        embeddings.position_embeddings.weight.zero_()
        embeddings.word_embeddings.weight[genes.token.to_numpy(), number.to_numpy()] += 1
    scores = Probes(corpus, settings, labels)(model, CPU)
    assert scores["probe_module"] > 0.95
    assert scores["probe_module_human_to_mouse"] > 0.9
    assert scores["probe_module_mouse_to_human"] > 0.9
    assert scores["probe_shuffled"] < 0.5
    assert "probe_constant" not in scores


def test_cells_without_a_label_are_left_out(corpus):
    labels = modules_of(corpus)
    labels[corpus.species == 1] = ""
    settings = recipe("scmix-mini", **SIZES)
    probes = Probes(corpus, settings, {"module": labels})
    assert set(corpus.species[probes.rows]) == {0}
    assert {probe.name for probe in probes.probes} == {"probe_module"}
    assert not Probes(corpus, settings, {"none": np.full(len(corpus), "")}).probes


def test_labels_are_columns_that_the_corpus_keeps(files, vocabulary, tmp_path):
    obs = pd.DataFrame({"cell_type": ["a"] * 10 + ["b"] * 10, "donor": ["x", "y"] * 10})
    cells = write_cells(tmp_path / "cells.h5ad", counts_of(20, seed=5), obs=obs)
    sources = [Source(cells, keep=["cell_type", "donor"], organ="blood"), Source(files[0])]
    kept = build_corpus(sources, tmp_path / "kept", vocabulary=vocabulary, min_genes=5)
    settings = recipe("scmix-mini", **SIZES)
    probes = Probes(kept, settings)
    assert {probe.name for probe in probes.probes} == {"probe_cell_type", "probe_donor"}
    assert set(kept.dataset[probes.rows]) == {0}
    only = Probes(kept, settings, ["cell_type"])
    assert {probe.name for probe in only.probes} == {"probe_cell_type"}
    assert set(only.probes[0].labels) == {"a", "b"}
    with pytest.raises(InputError, match=r"no column 'tissue'.*keep=\['tissue'\]"):
        Probes(kept, settings, ["tissue"])


def test_labels_of_the_wrong_length_are_refused(corpus, tmp_path):
    with pytest.raises(InputError, match=r"'module' of shape \(3,\)"):
        Probes(corpus, recipe("scmix-mini", **SIZES), {"module": ["a", "b", "c"]})
    with pytest.raises(InputError, match="without a validation corpus"):
        train(corpus, tmp_path, "scmix-mini", labels={"module": modules_of(corpus)}, **SIZES)


@pytest.mark.parametrize(
    ("changes", "pool"),
    [
        ({"objectives": {"mlm": 1.0}}, "mean"),
        ({"objectives": {"mlm": 1.0, "simcse": 1.0}, "simcse_pool": "first"}, "first"),
        ({"objectives": {"subset_contrast": 1.0}}, "mean"),
    ],
)
def test_vectors_are_pooled_as_in_training(changes, pool):
    assert pool_of(recipe("scmix-mini", **changes)) == pool


def test_a_run_records_probes_from_before_the_first_step(corpus, tmp_path):
    options = {**SIZES, "steps": 4, "log_every": 1, "validate_every": 2, "checkpoint_every": 4}
    labels = {"module": modules_of(corpus)}
    train(
        corpus, tmp_path, "scmix-mini", objectives={"mlm": 1.0}, validation=corpus, labels=labels,
        **options,
    )  # fmt: skip
    records = read_history(tmp_path / "history.jsonl")
    held_out = [r for r in records if r["kind"] == "validation"]
    assert [r["step"] for r in held_out] == [0, 2, 4]
    assert all(0 <= r["probe_module"] <= 1 for r in held_out)
