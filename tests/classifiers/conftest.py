"""A tiny model on sixty genes, and cells of three classes, each with genes of its own on top."""

import numpy as np
import pandas as pd
import pytest

from scmix import checkpoints
from scmix.batches import Sequences
from scmix.classifiers._fit import Cells, fit
from scmix.classifiers._labels import encode
from scmix.classifiers._recipes import recipe
from scmix.encoder import Config
from scmix.genes import Vocabulary

N_GENES, N_CLASSES = 60, 3


@pytest.fixture(scope="session")
def vocabulary():
    names = [f"ENSG{i:011d}" for i in range(N_GENES)]
    table = pd.DataFrame(
        {
            "ensembl_id": names,
            "symbol": [f"GENE{i}" for i in range(N_GENES)],
            "aliases": "",
            "species": "human",
            "biotype": "protein_coding",
            "group": "",
            "median": np.ones(N_GENES, np.float32),
        }
    )
    return Vocabulary.from_table(table)


@pytest.fixture(scope="session")
def model(vocabulary):
    config = Config(
        vocab_size=vocabulary.n_tokens,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
        initializer_range=0.3,
    )
    return checkpoints.untrained(config, vocabulary, seed=1)


@pytest.fixture(scope="session")
def make_cells(vocabulary):
    """`make_cells(n, seed=0, n_keys=1, groups=None)`: cells, the last quarter set aside."""
    first = min(set(range(vocabulary.n_tokens)) - set(vocabulary.special_ids.tolist()))

    def make(n=40, seed=0, n_keys=1, groups=None):
        rng = np.random.default_rng(seed)
        codes = np.arange(n) % N_CLASSES
        rows = [_genes(rng, code) + first for code in codes]
        columns = {
            f"key{i}": pd.Series(pd.Categorical.from_codes((codes + i) % N_CLASSES, list("cab")))
            for i in range(n_keys)
        }
        aside = np.arange(n) >= n - n // 4
        species = np.zeros(n, np.int8)
        return Cells(Sequences.from_list(rows), species, encode(columns), aside, groups)

    return make


def _genes(rng, code):
    """30 genes; those of the class are among the first 20, in any order."""
    own = np.arange(6) + 6 * code
    rest = rng.permutation(np.setdiff1d(np.arange(N_GENES), np.arange(6 * N_CLASSES)))
    return np.concatenate([rng.permutation(np.concatenate([own, rest[:14]])), rest[14:24]])


@pytest.fixture(scope="session")
def tuned(model, make_cells):
    """Trained by "tuned" for one epoch."""
    return fit(model, make_cells(groups=np.arange(40) % 4), recipe("tuned", epochs=1))


@pytest.fixture(scope="session")
def paper(model, make_cells):
    """Trained by "paper" for one epoch: the pooler, two label keys."""
    return fit(model, make_cells(n_keys=2), recipe("paper", epochs=1, warmup_steps=0))
