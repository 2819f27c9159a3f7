"""A model and cells that are small enough to try every function on."""

import numpy as np
import pandas as pd
import pytest

from scmix import checkpoints
from scmix.encoder import Config
from scmix.genes import Vocabulary


@pytest.fixture(scope="session")
def tiny():
    """A small random model on the bundled vocabulary."""
    vocabulary = Vocabulary.bundled()
    config = Config(
        vocab_size=vocabulary.n_tokens,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    return checkpoints.untrained(config, vocabulary, seed=0)


@pytest.fixture
def cells(make_adata):
    """48 human cells x 120 genes in two states of six donors each, three types, two embeddings."""
    adata = make_adata(n_obs=48, n_vars=120)
    number = np.arange(adata.n_obs)
    rng = np.random.default_rng(0)
    adata.obs["cell_type"] = pd.Categorical([f"type {i % 3}" for i in number])
    adata.obs["state"] = pd.Categorical(np.where(number % 2, "ill", "well"))
    adata.obs["donor"] = pd.Categorical([f"donor {i % 12}" for i in number])
    adata.obsm["X_own"] = rng.normal(size=(adata.n_obs, 5))
    return adata
