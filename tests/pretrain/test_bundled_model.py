"""The model that ships is what the committed recipe and script make, and small."""

import importlib.util
from pathlib import Path

import pytest
from safetensors import safe_open

import scmix
from scmix.pretrain import RECIPES

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
