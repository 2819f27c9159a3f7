"""A recipe file runs as the same call does, and is refused with the wrong setting named."""

from pathlib import Path

import pytest

from scmix import checkpoints
from scmix._errors import InputError
from scmix.pretrain import read_recipe_file, run_recipe_file, train

TEXT = """
[corpus]
path = "{corpus}"

[validation]
path = "{corpus}"
every = 2

[recipe]
name = "scmix-mini"
init = "random"
num_hidden_layers = 1
hidden_size = 16
max_length = 32
tokens_per_step = 256
learning_rate = 1
subset_share = [0.5, 1.0]
steps = 2

[recipe.objectives]
mlm = 1

[run]
out = "runs/erster Lauf ü"
log_every = 1
checkpoint_every = 2
licence = "CC0-1.0"
"""


@pytest.fixture
def file(corpus, tmp_path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(TEXT.format(corpus=corpus.path), "utf-8")
    return path


def test_a_file_says_what_a_call_would(file, corpus):
    asked = read_recipe_file(file)
    assert (asked.corpus, asked.recipe) == (corpus.path, "scmix-mini")
    assert asked.out == file.parent.resolve() / "runs" / "erster Lauf ü"
    assert asked.changes["objectives"] == {"mlm": 1}
    assert asked.options == {
        "validation": corpus.path,
        "validate_every": 2,
        "labels": None,
        "log_every": 1,
        "checkpoint_every": 2,
        "licence": "CC0-1.0",
    }


def test_a_file_trains_as_the_call_does(file, tmp_path):
    final = run_recipe_file(file)
    assert final == file.parent.resolve() / "runs" / "erster Lauf ü" / "final"
    model = checkpoints.load(final)
    assert model.manifest["recipe"]["subset_share"] == [0.5, 1.0]
    assert model.manifest["licence"] == "CC0-1.0"
    asked = read_recipe_file(file)
    same = train(asked.corpus, tmp_path / "call", asked.recipe, **asked.options, **asked.changes)
    assert checkpoints.load(same).sha256 == model.sha256


def test_a_model_to_start_from_is_a_folder_beside_the_file_or_a_name(file):
    text = file.read_text("utf-8")
    file.write_text(text + 'start = "mine"\n', "utf-8")
    assert read_recipe_file(file).options["start"] == "mine"
    (file.parent / "mine").mkdir()
    assert read_recipe_file(file).options["start"] == file.parent.resolve() / "mine"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("checkpoint_every", "checkpoints_every", "has no setting 'checkpoints_every'.*checkpoint"),
        ("hidden_size", "hiden_size", "Did you mean hidden_size"),
        ("[validation]", "[validate]", r"the table \[validate\].*Did you mean validation"),
        ("steps = 2", 'steps = "2"', "steps is '2', expected a whole number"),
        ("steps = 2", "steps = true", "steps is True, expected a whole number"),
        ("learning_rate = 1", 'learning_rate = "low"', "expected a number"),
        ("steps = 2", "steps = 0", "steps=0"),
        ("mlm = 1", 'mlm = "all"', "expected numbers"),
        ("mlm = 1", "mllm = 1", "mllm"),
        ('out = "runs/erster Lauf ü"', "", r"lacks 'out' in \[run\]"),
        ('name = "scmix-mini"', "", r"lacks 'name' in \[recipe\]"),
        ('name = "scmix-mini"', 'name = "mini"', "Found recipe 'mini'"),
        ("every = 2", "labels = [1]", "labels is .1., expected names"),
        ("[corpus]", "[corpus", "not valid TOML"),
        ("[corpus]", "corpus = 3\n[other]", r"corpus = 3, expected a table|table \[other\]"),
    ],
)
def test_what_does_not_belong_is_named(file, before, after, message):
    file.write_text(file.read_text("utf-8").replace(before, after, 1), "utf-8")
    with pytest.raises(InputError, match=message):
        read_recipe_file(file)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"Could not read .*none.toml: No such file"):
        read_recipe_file(tmp_path / "none.toml")


def test_every_named_recipe_can_be_written_to_a_file(file):
    """Each field's type in TOML is the one that the file takes."""
    from scmix.pretrain import RECIPES

    for name, recipe in RECIPES.items():
        lines = [f"name = {name!r}"]
        for key, value in recipe.to_dict().items():
            if key == "name" or value is None:
                continue
            inner = ", ".join(f"{k} = {v}" for k, v in value.items()) if key == "objectives" else ""
            shown = f"{{{inner}}}" if inner else repr(value)
            lines.append(f"{key} = {shown}".replace("True", "true").replace("False", "false"))
        text = "corpus.path = 'c'\nrun.out = 'r'\n[recipe]\n" + "\n".join(lines)
        file.write_text(text, "utf-8")
        assert read_recipe_file(file).recipe == name
