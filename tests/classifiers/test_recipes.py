import pytest

from scmix._errors import InputError
from scmix.classifiers import RECIPES, Recipe, recipe


def test_paper_is_the_published_recipe():
    paper = recipe("paper")
    assert (paper.learning_rate, paper.warmup_steps, paper.epochs) == (5e-5, 500, 10)
    assert (paper.batch_size, paper.rare_share, paper.validation_share) == (8, 0.005, 0.2)
    assert (paper.pool, paper.frozen_layers, paper.keep) == ("pooler", 0, "last")


@pytest.mark.parametrize("name", RECIPES)
def test_settings_survive_json(name):
    assert Recipe(**recipe(name).to_dict()) == recipe(name)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": -1},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"pool": "max"},
        {"balance": True},
        {"validation_share": -0.1},
        {"epochs": 1},  # without cells to choose the epoch by
        {"probe_cells": 0},  # nor to calibrate by
        {"dropout": 1.0},
        {"pool": "pooler"},  # beside gene votes
        {"lora_rank": 4, "frozen_layers": -1},
        {"head_learning_rate": -1.0},
    ],
)
def test_values_out_of_range_are_refused(change):
    with pytest.raises(InputError, match="Found "):
        recipe("fast", **change)


def test_unknown_settings_name_close_ones():
    with pytest.raises(InputError, match="Did you mean epochs"):
        recipe("fast", epoch=3)
    with pytest.raises(InputError, match="expected one of fast, tuned, paper"):
        recipe("slow")
