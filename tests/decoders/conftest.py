import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scmix.decoders import Profiles, Settings, ValueDecoder
from scmix.encoder import Config, Encoder
from scmix.genes import Vocabulary

KINDS = ("value_autoencoder", "restore")


@pytest.fixture(scope="session")
def vocabulary():
    return Vocabulary.bundled()


SIZES = {"width": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 24, "n_bins": 12}


def wild(module, seed=0):
    """Every parameter drawn anew, so that none is zero or one."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(0.0, 0.3, generator=generator)
    return module.eval()


@pytest.fixture(scope="session")
def encoder(vocabulary):
    config = Config(
        vocab_size=vocabulary.n_tokens,
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    return Encoder(config).eval()


@pytest.fixture(scope="session")
def fresh(encoder):
    """Makes a small decoder as training starts with it."""
    return lambda kind, **changes: ValueDecoder(
        Settings(kind, **{**SIZES, **changes}), encoder.config
    )


@pytest.fixture(scope="session")
def trained(fresh):
    """Makes a small decoder with random weights in all places."""

    def make(kind, **changes):
        made = wild(fresh(kind, **changes))
        made.scale.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
        return made

    return make


@pytest.fixture(params=KINDS)
def decoder(request, trained):
    return trained(request.param)


@pytest.fixture(scope="session")
def profiles(vocabulary):
    """Seven cells of both species, one of them empty, with counts of 200 genes."""
    rng = np.random.default_rng(0)
    species = np.array([0, 0, 1, 1, 0, 1, 0], np.int8)
    genes = [np.flatnonzero(row)[:400] for row in vocabulary.species_of_token]
    counts = np.zeros((7, vocabulary.n_tokens), np.float32)
    for row, n in enumerate([20, 5, 40, 1, 0, 90, 12]):
        chosen = rng.choice(genes[species[row]], n, replace=False)
        counts[row, chosen] = rng.integers(1, 30, n)
    totals = counts.sum(1).astype(np.float64) + 50
    return Profiles.of(sp.csr_matrix(counts), vocabulary.medians, species, totals)
