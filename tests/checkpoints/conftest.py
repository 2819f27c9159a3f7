"""A tiny model, and the tools to damage its files."""

import hashlib
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scmix import checkpoints, genes
from scmix._errors import ModelFileError
from scmix.checkpoints import Model
from scmix.encoder import Config
from scmix.genes import Vocabulary


def _vocabulary(n_genes: int) -> Vocabulary:
    """Half human, half mouse, the first two of each one-to-one orthologues."""
    half = n_genes // 2
    human, mouse = ([f"{start}{i:011d}" for i in range(half)] for start in ("ENSG", "ENSMUSG"))
    table = pd.DataFrame(
        {
            "ensembl_id": human + mouse,
            "symbol": [f"GENE{i}" for i in range(half)] + [f"Gene{i}" for i in range(half)],
            "aliases": "",
            "species": ["human"] * half + ["mouse"] * half,
            "biotype": "protein_coding",
            "group": [human[i] if i < 2 else "" for i in range(half)] * 2,
            "median": np.linspace(0.5, 3, 2 * half, dtype=np.float32),
        }
    )
    return Vocabulary.from_table(table)


@pytest.fixture(scope="session")
def make_vocabulary() -> Callable[[int], Vocabulary]:
    return _vocabulary


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return _vocabulary(30)


@pytest.fixture(scope="session")
def config(vocabulary: Vocabulary) -> Config:
    return Config(
        vocab_size=vocabulary.n_tokens,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        initializer_range=0.4,  # large, so that layers differ from the identity
    )


@pytest.fixture
def model(config: Config, vocabulary: Vocabulary) -> Model:
    return checkpoints.untrained(config, vocabulary, seed=3)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def save(model: Model, name: str = "tiny", **options) -> Path:
        options = {"recipe": {"epochs": 1}, "training_data": ["a"], "licence": "CC0-1.0"} | options
        checkpoints.save(tmp_path / name, model.encoder, model.vocabulary, **options)
        return tmp_path / name

    return save


@pytest.fixture
def saved(model: Model, save: Callable[..., Path]) -> Path:
    return save(model)


@pytest.fixture
def forge() -> Callable[[Path, str, bytes], None]:
    """Replace a file and let the manifest vouch for it, as whoever made a hostile model would."""

    def forge(folder: Path, name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        if name == "manifest.json":
            return
        manifest = json.loads((folder / "manifest.json").read_text())
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][name] = {"sha256": digest, "bytes": len(content)}
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return forge


@contextmanager
def _cheaply(n_bytes: int, seconds: float = 2) -> Iterator[None]:
    """Little time and little memory, whatever the file claims."""
    tracemalloc.start()
    start = time.process_time()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < n_bytes
        assert time.process_time() - start < seconds
    finally:
        tracemalloc.stop()


@pytest.fixture(autouse=True)
def _small_reservation(monkeypatch: pytest.MonkeyPatch) -> None:
    # Reading a vocabulary reserves its cap, which costs nothing but would hide what does.
    monkeypatch.setattr(genes, "_MAX_BYTES", 2**22)


@pytest.fixture
def refused() -> Callable[..., None]:
    """Load a folder and see it refused, cheaply, with this message."""
    return _refused


def _refused(
    folder: Path, message: str, kind: type = ModelFileError, n_bytes: int = 2**24, **options
) -> None:
    with _cheaply(n_bytes), pytest.raises(kind, match=message) as info:
        checkpoints.load(folder, **options)
    assert str(folder) in str(info.value), "the message names the file"
