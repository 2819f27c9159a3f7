import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scmix import checkpoints
from scmix.cli import main
from scmix.encoder import Config
from scmix.genes import Vocabulary


@pytest.fixture(scope="session")
def vocabulary():
    """Few genes, so that models load fast."""
    genes = Vocabulary.bundled().genes.drop(columns="token")
    return Vocabulary.from_table(genes[::20])


@pytest.fixture(scope="session")
def model(tmp_path_factory, vocabulary):
    """Folder of a very small model."""
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
def cells(vocabulary, here):
    """in.h5ad in the folder: 24 human cells with counts in .X and, doubled, in a layer."""
    genes = vocabulary.genes[vocabulary.genes.species == "human"].ensembl_id[:200].to_numpy(str)
    counts = np.random.default_rng(0).negative_binomial(1, 0.3, (24, 200)).astype(np.float32)
    obs = {"cell_type": np.repeat(["a", "b"], 12), "donor": np.tile(["d1", "d2", "d3"], 8)}
    adata = ad.AnnData(
        sp.csr_matrix(counts),
        obs=pd.DataFrame(obs, index=[f"cell{i}" for i in range(24)]),
        var=pd.DataFrame(index=genes),
    )
    adata.layers["twice"] = adata.X * 2
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
