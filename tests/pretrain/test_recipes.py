"""Recipes are explicit, checked, and survive JSON."""

import json

import pytest

from scmix._errors import InputError
from scmix.encoder import Config
from scmix.pretrain import RECIPES, Recipe, recipe
from scmix.pretrain._recipe_checks import OBJECTIVES
from scmix.pretrain.objectives import make_objective


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
        ({"simcse_pool": "max"}, "mean, first"),
        ({"objectives": {}}, "mlm, simcse, subset_contrast, xspecies"),
        ({"objectives": {"mlm": 1, "wecd": 1}}, "Did you mean wced"),
        ({"objectives": {"mlm": 0}}, "above 0"),
        ({"max_length": 4096, "tokens_per_step": 2048}, "max_length=4096"),
        ({"subset_share": (0.5, 0.1)}, "subset_share"),
        ({"warmup": 1.0}, "warmup"),
        ({"positions": False}, "init='coexpression_by_rank' with positions=False"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        recipe("scmix-mini", **changes)


def test_an_unknown_recipe():
    with pytest.raises(InputError, match=r"mix-geneformer, mix-geneformer-x, .*scmix-mini"):
        recipe("geneformer")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("txfm", {"max_length": 2048}, "keep_k=2048 with max_length=2048"),
        ("wced-rank", {"subset_share": (1, 1)}, "would hide nothing"),
        ("wced", {"wced_pool": "max"}, "mean, cls"),
        ("wced", {"part_masker": "mlm"}, "subset, keep_k, uniform, nonzero_zero"),
        ("wced", {"value_input": "rank"}, "none, mlp"),
        ("wced", {"keep_k": 0}, "keep_k=0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(name, changes, message):
    with pytest.raises(InputError, match=message):
        recipe(name, **changes)


def test_whole_cell_recipes_as_published():
    wced, txfm = recipe("wced"), recipe("txfm")
    assert (wced.num_hidden_layers, wced.hidden_size, wced.keep_k) == (12, 768, 1024)
    assert (wced.learning_rate, wced.value_total, wced.wced_sets) == (1e-4, 1e4, "split")
    assert (txfm.num_hidden_layers, txfm.hidden_size, txfm.keep_k) == (6, 384, 2048)
    assert (txfm.learning_rate, txfm.warmup, txfm.value_total) == (1e-3, 0.1, 1e5)
    assert txfm.weight_decay == pytest.approx(1 / (txfm.learning_rate * txfm.steps), rel=0.01)
    assert wced.needs == txfm.needs == {"values"}
    assert recipe("mix-geneformer").needs == frozenset()
    assert recipe("mix-geneformer", value_input="mlp").needs == {"values"}


def test_value_recipes_as_published():
    """scFoundation's 100M model and its masking; GexBERT's subsets; the released MAM."""
    value, restore = recipe("scfoundation"), recipe("gexbert")
    sizes = (value.num_hidden_layers, value.hidden_size, value.num_attention_heads)
    assert sizes == (12, 768, 12)
    decoder = (value.value_decoder_layers, value.value_decoder_width, value.value_decoder_heads)
    assert decoder == (6, 512, 8)
    assert (value.hide_nonzero, value.hide_zero, value.value_bins) == (0.3, 0.03, 100)
    assert (value.value_autoencoder_zero_weight, value.value_autoencoder_thinning) == (1.0, 0.5)
    assert (value.value_dropout, value.learning_rate, value.weight_decay) == (0.0, 1e-4, 0.0)
    assert value.warmup * value.steps == pytest.approx(9_766)
    assert (restore.restore_genes, restore.restore_share) == ((256, 1024), (0.15, 0.5))
    assert (restore.restore_draw, restore.value_dropout) == ("measured", 0.0)
    assert value.needs == restore.needs == {"values"}


def test_masking_recipes_as_published():
    ours, published = recipe("mam"), recipe("mam-published")
    assert (ours.masker, ours.mam_mode, ours.mask_share) == ("mam", "adversarial", 0.3)
    assert (published.masker, published.mam_mode, published.mask_share) == ("mam", "published", 0.3)
    assert (published.mam_latents, published.mam_width, published.learning_rate) == (128, 256, 1e-4)
    assert (ours.positions, published.positions) == (False, False), "ranks would tell the values"


def test_what_contrast_of_parts_needs():
    ours = recipe("subset-contrast")
    assert (ours.subset_share, ours.subset_contrast_temperature) == ((0.5, 0.5), 0.1)
    assert ours.tokens_per_step // ours.max_length == 128
    assert dict(ours.objectives) == {"mlm": 1.0, "subset_contrast": 1.0}


def test_the_table_of_objectives_says_what_their_modules_say():
    for name, kind in OBJECTIVES.items():
        options = {"masker": "uniform", "positions": False, "hidden_size": 16}
        settings = recipe("wced-rank", objectives={name: 1.0}, **options)
        objective = make_objective(name, settings, Config(vocab_size=10, hidden_size=16))
        assert (objective.name, objective.views) == (name, kind.views)
        assert objective.needs == kind.needs == settings.needs
