"""The model that ships is what the committed recipe and script make, and small."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import BertForMaskedLM

import scmix
from scmix.pretrain import RECIPES

FEW_NAMES = pytest.mark.filterwarnings("ignore::UserWarning")  # of columns of the other species
SCRIPT = Path(__file__).parents[2] / "scripts" / "pretrain_mini.py"


@pytest.fixture(scope="module")
def bundled():
    return scmix.models.load("scmix-mini")


def test_it_is_below_25_megabytes_in_half_precision(bundled):
    files = [path for path in bundled.path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25e6
    with safe_open(bundled.path / "model.safetensors", framework="pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118


def test_it_was_trained_by_the_recipe_of_its_name(bundled):
    assert bundled.manifest["recipe"] == RECIPES["scmix-mini"].to_dict()
    assert bundled.vocabulary.mode == RECIPES["scmix-mini"].vocabulary


def test_held_out_data_are_not_among_its_training_data(bundled):
    found = importlib.util.spec_from_file_location("pretrain_mini", SCRIPT)
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    trained_on = {source["name"] for source in bundled.manifest["training_data"]}
    assert trained_on
    assert trained_on.isdisjoint({*script.TEST, *script.VALIDATION})


def test_its_card_says_where_pca_is_better(bundled):
    card = scmix.models.card("scmix-mini")
    assert "better than PCA on" in card
    assert "## Use and limits" in card


def held_out(name, size):
    """Shipped cells of a data set that took no part in training, of types with enough of them."""
    if name == "pbmc3k":
        cells = scmix.datasets.pbmc3k()
        cells.obs["species"] = "human"
    else:
        cells = scmix.datasets.pancreas()
        cells = cells[cells.obs["species"] == name]
    sizes = cells.obs["cell_type"].value_counts()
    cells = cells[cells.obs["cell_type"].isin(sizes.index[sizes >= 10])]
    return cells[np.random.default_rng(0).permutation(cells.n_obs)[:size]].copy()


@FEW_NAMES
@pytest.mark.parametrize("name", ["human", "mouse", "pbmc3k"])
def test_it_beats_the_untrained_encoder_clearly_on_cells_it_has_not_seen(name):
    cells = held_out(name, 140)
    labels = cells.obs["cell_type"].astype(str).to_numpy()
    half = np.arange(len(labels)) < 70
    scores = []
    for model in ("scmix-mini", scmix.models.untrained(seed=0)):
        scmix.tl.embed(cells, model, species_key="species", overwrite=True)
        vectors = cells.obsm["X_scmix"]
        named = scmix.metrics.knn_transfer(vectors[half], labels[half], vectors[~half])
        scores.append(scmix.metrics.classification_scores(labels[~half], named)["macro_f1"])
    assert scores[0] > scores[1] + 0.1


@FEW_NAMES
def test_transformers_and_a_plain_mean_give_its_vectors(bundled):
    cells = held_out("human", 2)
    scmix.tl.embed(cells, bundled, species_key="species", dtype="float32")
    scmix.pp.rank_encode(cells, model=bundled, species_key="species", n_genes=1023)
    scmix.pp.map_genes(cells, model=bundled, species_key="species")
    known = cells.var["scmix_token"].to_numpy()
    other = BertForMaskedLM.from_pretrained(bundled.path, output_hidden_states=True).eval()
    for ranks, vector in zip(cells.layers["rank"], cells.obsm["X_scmix"], strict=True):
        columns = ranks.indices[np.argsort(ranks.data)]
        tokens = [bundled.vocabulary.special["<human>"], *known[columns]]
        with torch.no_grad():
            theirs = other(torch.tensor([tokens]))
            ours = bundled.encoder(torch.tensor(tokens), [0, len(tokens)])
            logits = bundled.encoder.logits(ours)
        hidden = theirs.hidden_states[-2][0, 1:]
        np.testing.assert_allclose(hidden.mean(0).numpy(), vector, atol=1e-5)
        torch.testing.assert_close(ours, theirs.hidden_states[-1][0], atol=1e-5, rtol=0)
        torch.testing.assert_close(logits, theirs.logits[0], atol=1e-5, rtol=0)
