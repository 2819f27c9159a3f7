"""Finding models: by name, on disk, and what is said about those that are not there."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from scmix import checkpoints, models
from scmix._errors import InputError, ModelFileError
from scmix.checkpoints import Model, _contents, _registry
from scmix.checkpoints._folder import write_folder
from scmix.encoder import Config
from scmix.genes import Vocabulary

COLUMNS = ["name", "kind", "parameters", "species", "n_genes", "licence", "sha256"]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    genes = Vocabulary.bundled().genes
    return Vocabulary.from_table(
        genes.groupby("species").head(20).drop(columns="token").reset_index(drop=True)
    )


@pytest.fixture
def make_model(vocabulary: Vocabulary, tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, seed: int = 0, pooler: bool = False, card: str = "") -> Path:
        config = Config(vocabulary.n_tokens, hidden_size=8, num_hidden_layers=1)
        model = checkpoints.untrained(config, vocabulary, seed=seed, pooler=pooler)
        folder = tmp_path / "models" / name
        checkpoints.save(
            folder,
            model.encoder,
            vocabulary,
            recipe={"epochs": 2},
            training_data=["atlas"],
            licence="CC0-1.0",
            card=card,
        )
        return folder

    return make


@pytest.fixture
def bundled(make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation whose only model is a tiny one."""
    folder = make_model("scmix-mini", card="# Tiny\n")
    monkeypatch.setattr(_registry, "_RESOURCES", folder.parent)
    return folder


def test_list(bundled: Path, vocabulary: Vocabulary) -> None:
    table = models.list()
    assert table.columns.tolist() == COLUMNS
    (row,) = table.to_dict("records")
    model = models.load("scmix-mini")
    assert row == {
        "name": "scmix-mini",
        "kind": "bundled",
        "parameters": model.n_parameters,
        "species": "human, mouse",
        "n_genes": 40,
        "licence": "CC0-1.0",
        "sha256": model.sha256,
    }


def test_list_of_a_folder(make_model: Callable[..., Path], tmp_path: Path) -> None:
    folders = [make_model("a"), make_model("b", seed=1)]
    (tmp_path / "models" / "no model").mkdir()
    (tmp_path / "models" / ".hidden.partial-00").mkdir()
    table = models.list(tmp_path / "models")
    local = table[table.kind == "local"]
    assert local.name.tolist() == [str(folder) for folder in folders]
    assert [models.load(name).sha256 for name in local.name] == local.sha256.tolist()


def test_nothing_to_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_registry, "_RESOURCES", tmp_path / "missing")
    pd.testing.assert_frame_equal(models.list(), pd.DataFrame(columns=COLUMNS))
    with pytest.raises(InputError, match="none in this installation"):
        models.load("scmix-mini")


@pytest.mark.parametrize("name", ["scmix-mimi", "scmix_mini", "mini"])
def test_unknown_names_get_close_ones(bundled: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\(scmix-mini\).*Did you mean 'scmix-mini'\?"):
        models.load(name)


@pytest.mark.parametrize("name", ["", None, 3, ["scmix-mini"]])
def test_what_is_no_name(bundled: Path, name: object) -> None:
    with pytest.raises(InputError, match="expected a name"):
        models.load(name)


def test_a_path_is_never_a_name(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert models.load("scmix-mini").path == bundled
    with pytest.raises(InputError, match="nor a folder"):
        models.load(Path("scmix-mini"))


def test_card(bundled: Path, make_model: Callable[..., Path]) -> None:
    assert models.card("scmix-mini") == "# Tiny\n"
    text = models.card(make_model("other"))
    assert text.startswith("# other\n")
    assert "licence: CC0-1.0" in text
    assert "- atlas" in text


def test_a_card_that_is_a_link_out_is_refused(bundled: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (bundled / "README.md").unlink()
    (bundled / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelFileError, match="is a link to a file outside"):
        models.card("scmix-mini")


READERS = {
    "load": lambda path: models.load(path).sha256,
    "vocabulary": lambda path: models.vocabulary(path).sha256,
    "card": lambda path: models.card(path),
    "list": lambda path: models.list(path.parent).query("kind == 'local'").sha256.tolist(),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_model_that_is_replaced_while_it_is_read(
    bundled: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    folder, stand_in = make_model("a"), make_model("b")
    files = {path.name: path.read_bytes() for path in stand_in.iterdir()}
    shutil.rmtree(stand_in)
    expected = READERS[reader](folder)
    read, calls = _contents._manifest.read_from, []

    def replaced_meanwhile(path: Path) -> dict:
        calls.append(path)
        if len(calls) == 1:
            content = read(path)
            shutil.rmtree(path)
            return content
        if len(calls) == 2:  # the folder is there again
            write_folder(folder, files, overwrite=True, replaceable=files)
        return read(path)

    monkeypatch.setattr(_contents._manifest, "read_from", replaced_meanwhile)
    shutil.copytree(folder, folder.with_name(f".{folder.name}.previous-0"))
    assert READERS[reader](folder) == expected
    assert len(calls) > 1


def test_a_link_to_nowhere(bundled: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(tmp_path / "gone")
    with pytest.raises(ModelFileError, match="does not exist"):
        models.load(tmp_path / "latest")


def test_untrained(bundled: Path) -> None:
    before = torch.random.get_rng_state()
    one, same, other = (models.untrained(seed=seed) for seed in (1, 1, 2))
    trained = models.load("scmix-mini")
    assert torch.equal(before, torch.random.get_rng_state())
    assert (one.config, one.vocabulary.sha256) == (trained.config, trained.vocabulary.sha256)
    assert one.sha256 == same.sha256
    assert len({one.sha256, other.sha256, trained.sha256}) == 3
    assert one.name == "scmix-mini-untrained-1"
    assert one.path is None
    assert not one.encoder.training


def test_untrained_like_a_model_with_a_pooler(make_model: Callable[..., Path]) -> None:
    model = models.load(make_model("a", pooler=True))
    assert models.untrained(model, seed=3).encoder.has_pooler


def test_vocabulary_comes_without_torch(make_model: Callable[..., Path]) -> None:
    folder = make_model("a")
    code = (
        "import sys, scmix; "
        f"v = scmix.models.vocabulary({str(folder)!r}); scmix.models.list({str(folder.parent)!r}); "
        "print(v.sha256, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    model = models.load(folder)
    assert done.stdout.split() == [model.vocabulary.sha256, "False"]
    assert models.vocabulary(model) is model.vocabulary


@pytest.mark.skipif("scmix-mini" not in _registry.bundled(), reason="built without its model")
def test_the_bundled_model() -> None:
    model: Model = models.load("scmix-mini")
    assert model.vocabulary.sha256 == Vocabulary.bundled(model.vocabulary.mode).sha256
    assert all(np.isfinite(p.detach().numpy()).all() for p in model.encoder.parameters())
    assert model.manifest["licence"]
    assert model.manifest["training_data"]
    assert model.manifest["recipe"]
    assert models.card("scmix-mini").startswith("#")
    assert sum(path.stat().st_size for path in model.path.iterdir()) < 35e6
    files = json.loads((model.path / "manifest.json").read_text())["files"]
    assert {path.name for path in model.path.iterdir()} == {*files, "manifest.json"}
