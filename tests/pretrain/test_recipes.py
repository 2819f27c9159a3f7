"""Recipes are explicit, checked, and survive JSON."""

import json

import pytest

from scmix._errors import InputError
from scmix.encoder import Config
from scmix.pretrain import RECIPES, Recipe, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_read_back_from_json_as_it_was(name):
    assert RECIPES[name].name == name
    again = Recipe(**json.loads(json.dumps(RECIPES[name].to_dict())))
    assert again == RECIPES[name]
    assert Config(vocab_size=10, **again.config).max_position_embeddings == again.max_length


def test_the_published_settings():
    published = recipe("mix-geneformer")
    assert published.config == {
        "num_hidden_layers": 6,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "hidden_act": "silu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "max_position_embeddings": 2048,
    }
    assert dict(published.objectives) == {"mlm": 1.0, "simcse": 1.0}
    assert (published.mask_share, published.mask_masked, published.mask_replaced) == (
        0.15,
        0.8,
        0.1,
    )
    assert (published.simcse_temperature, published.views) == (0.05, ("masked", "again"))
    assert published.vocabulary == "separate"
    assert "xspecies" in recipe("mix-geneformer-x").objectives


def test_changes_leave_the_named_recipe_alone():
    changed = recipe("scmix-mini", steps=3)
    assert changed.steps == 3
    assert RECIPES["scmix-mini"].steps != 3
    assert recipe(changed, seed=4).steps == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 3}, "Did you mean steps"),
        ({"steps": 0}, "steps=0"),
        ({"simcse_pool": "max"}, "mean, discounted, first"),
        ({"objectives": {}}, "mlm, simcse, subset_contrast, xspecies"),
        ({"objectives": {"mlm": 1, "wecd": 1}}, "Did you mean wced"),
        ({"objectives": {"mlm": 0}}, "above 0"),
        ({"max_length": 4096, "tokens_per_step": 2048}, "max_length=4096"),
        ({"subset_share": (0.5, 0.1)}, "subset_share"),
        ({"warmup": 1.0}, "warmup"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        recipe("scmix-mini", **changes)


def test_an_unknown_recipe():
    with pytest.raises(InputError, match="mix-geneformer, mix-geneformer-x, scmix-mini"):
        recipe("geneformer")
