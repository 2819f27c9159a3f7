"""A tiny model, and the tools to damage its files."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scmix import checkpoints
from scmix.checkpoints import Model
from scmix.encoder import Config
from scmix.genes import Vocabulary


def _vocabulary(n_genes: int) -> Vocabulary:
    """Half human, half mouse, the first two of each one-to-one orthologues."""
    half = n_genes // 2
    human, mouse = (
        [f"{start}{i:011d}" for i in range(half)] for start in ("ENSG", "ENSMUSG")
    )
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
