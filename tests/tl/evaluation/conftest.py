import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scmix.genes import Vocabulary

TYPES = ["beta", "alpha", "delta"]  # not in alphabetical order


@pytest.fixture
def make_cells():
    """`make_cells(n_cells, species, n_donors, signal, seed)`: three types with markers."""
    return typed_cells


def typed_cells(n_cells=90, species="human", n_donors=6, signal=6.0, seed=0, n_genes=80):
    """Counts over genes that both species have; each type has ten genes of its own."""
    genes = Vocabulary.bundled().genes
    both = genes[genes["group"] != ""].groupby("group").filter(lambda part: len(part) == 2)
    groups = np.sort(both["group"].unique())[:n_genes]
    chosen = both[(both["species"] == species) & both["group"].isin(groups)]
    names = chosen.set_index("group").loc[groups, "ensembl_id"].to_numpy(dtype=str)
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(n_cells) % len(TYPES))
    mean = np.full((len(TYPES), n_genes), 1.0)
    for code in range(len(TYPES)):
        mean[code, 10 * code : 10 * (code + 1)] += signal
    obs = pd.DataFrame(
        {
            "species": species,
            "cell_type": pd.Categorical.from_codes(codes, [*TYPES]),
            "donor": [f"donor{i}" for i in rng.integers(n_donors, size=n_cells)],
        },
        index=[f"{species}{i}" for i in range(n_cells)],
    )
    counts = sp.csr_matrix(rng.poisson(mean[codes]).astype(np.float32))
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=names))


@pytest.fixture(scope="session")
def tiny():
    """A small random model on the bundled vocabulary."""
    from scmix import checkpoints
    from scmix.encoder import Config

    vocabulary = Vocabulary.bundled()
    config = Config(
        vocab_size=vocabulary.n_tokens,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    return checkpoints.untrained(config, vocabulary, seed=1, name="tiny")
