"""Nothing but an explicit call uses the network, and that call fetches no code."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from scmix import models
from scmix._errors import InputError, ResourceError
from scmix.checkpoints import Model

FILES = [
    "config.json",
    "model.safetensors",
    "README.md",
    "vocabulary.csv.gz",
    "pytorch_model.bin",
    "training_args.bin",
    "setup.py",
    "gf-6L/model.safetensors",
    "gf-6L/config.json",
    "gf-6L/optimizer.pt",
    "gf-6L/modeling.py",
    "gf-12L/model.safetensors",
    "geneformer/tokenizer.py",
    "geneformer/token_dictionary_gc104M.pkl",
    "geneformer/gene_dictionaries_30m/token_dictionary_gc30M.pkl",
    "geneformer/install.sh",
    "geneformer/kernel.so",
    "examples/notebook.ipynb",
]


class Hub:
    """Stands for huggingface_hub: writes the files that match, as the real one would."""

    def __init__(self) -> None:
        self.calls: list[dict] = []
        self.error: Exception | None = None

    def snapshot_download(
        self, repo_id: str, *, revision: str | None, local_dir: str, allow_patterns: list[str]
    ) -> str:
        utils = pytest.importorskip("huggingface_hub.utils")
        self.calls.append({"repo_id": repo_id, "revision": revision})
        if self.error:
            raise self.error
        for name in utils.filter_repo_objects(FILES, allow_patterns=allow_patterns):
            path = Path(local_dir) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        return local_dir


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub, real = Hub(), sys.modules.get("huggingface_hub.utils")
    if real is None:
        real = pytest.importorskip("huggingface_hub.utils")
    fake = SimpleNamespace(snapshot_download=hub.snapshot_download, utils=real)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return hub


def fetched(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_no_code_is_fetched(hub: Hub, tmp_path: Path) -> None:
    folder = models.download("owner/name", tmp_path / "out", revision="abc")
    assert folder == tmp_path / "out"
    assert hub.calls == [{"repo_id": "owner/name", "revision": "abc"}]
    code = {name for name in FILES if name.endswith((".py", ".bin", ".pt", ".sh", ".so", ".ipynb"))}
    assert fetched(folder) == set(FILES) - code


@pytest.mark.parametrize("folders", [["gf-6L", "geneformer"], ["gf-6L/", "/geneformer"]])
def test_some_folders(hub: Hub, tmp_path: Path, folders: list[str]) -> None:
    found = fetched(models.download("owner/name", tmp_path, folders=folders))
    assert found == {
        "gf-6L/model.safetensors",
        "gf-6L/config.json",
        "geneformer/token_dictionary_gc104M.pkl",
        "geneformer/gene_dictionaries_30m/token_dictionary_gc30M.pkl",
    }


def test_folders_that_hold_no_weights(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \*\.safetensors in 'owner/name' under gf-7L;"):
        models.download("owner/name", tmp_path, folders="gf-7L")
    for folders in ("", "/", "*", ["gf-6L", "[a-z]"], [3]):
        with pytest.raises(InputError, match="expected a name as the hub shows it"):
            models.download("owner/name", tmp_path, folders=folders)
    assert len(hub.calls) == 1


def test_a_hub_that_cannot_be_reached(hub: Hub, tmp_path: Path) -> None:
    for error in (ConnectionError("no route"), RuntimeError("401 gated")):
        hub.error = error
        with pytest.raises(ResourceError, match=f"Could not download 'owner/name': {error}"):
            models.download("owner/name", tmp_path / "out")
    hub.error = ValueError("Repo id must be in the form 'namespace/repo_name'")
    with pytest.raises(InputError, match="repo_id='a b': Repo id must"):
        models.download("a b", tmp_path / "out")


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r'pip install "scmix\[hub\]"'):
        models.download("owner/name", tmp_path)


def test_loading_never_uses_the_network(
    model: Model, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def blocked(*args, **kwargs) -> None:
        raise AssertionError("the network was used")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, blocked)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    assert models.load(save(model)).sha256 == model.sha256
    for name in ("owner/name", "https://example.org/model", "bert-base-uncased"):
        with pytest.raises(InputError, match="nor a folder"):
            models.load(name)
    with pytest.raises(InputError, match=r"models\.download\('owner/name'"):
        models.card("owner/name")
