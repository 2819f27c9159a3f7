import numpy as np
import pytest

from scmix import checkpoints
from scmix.cli import main
from scmix.encoder import Config
from scmix.genes import Vocabulary


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Folder of a very small model."""
    vocabulary = Vocabulary.bundled()
    config = Config(
        vocab_size=vocabulary.n_tokens,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    made = checkpoints.untrained(config, vocabulary, seed=0)
    checkpoints.save(folder, made.encoder, vocabulary, recipe={}, training_data=[], licence="none")
    return str(folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that commands are run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cells(make_adata, here):
    """in.h5ad in the folder: 24 human cells with counts in .X and, in other order, in a layer."""
    adata = make_adata("human", n_obs=24)
    adata.layers["twice"] = adata.X * 2
    adata.obs["cell_type"] = np.repeat(["a", "b"], 12)
    adata.obs["donor"] = np.tile(["d1", "d2", "d3"], 8)
    adata.write_h5ad("in.h5ad", compression="gzip")
    return adata


@pytest.fixture
def scmix(capsys):
    """`scmix("embed", ...)` runs a command in this process: exit code, output, messages."""

    def run(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run
