import numpy as np
import pytest
import scipy.sparse as sp

from scmix import checkpoints
from scmix.encoder import Config
from scmix.genes import Vocabulary


@pytest.fixture(scope="session")
def tiny():
    """A small random model on the bundled vocabulary; large weights, so that layers matter."""
    vocabulary = Vocabulary.bundled()
    config = Config(
        vocab_size=vocabulary.n_tokens,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=256,
        initializer_range=0.3,
    )
    return checkpoints.untrained(config, vocabulary, seed=0)


@pytest.fixture
def unchanged():
    """`with unchanged(adata): ...` fails when the block leaves anything of adata different."""
    return Unchanged


@pytest.fixture
def clear():
    """`clear(adata, cells=..., genes=...)` sets counts to zero."""
    return without_counts


class Unchanged:
    def __init__(self, adata):
        self.adata = adata

    def __enter__(self):
        self.before = content(self.adata)

    def __exit__(self, *_):
        assert content(self.adata) == self.before


def content(adata):
    """All of an AnnData in memory as nested tuples of bytes and texts."""
    parts = {"X": as_bytes(adata.X), "obs": as_bytes(adata.obs), "var": as_bytes(adata.var)}
    for slot in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
        parts[slot] = {key: as_bytes(value) for key, value in getattr(adata, slot).items()}
    return parts


def as_bytes(value):
    if hasattr(value, "indptr"):
        return tuple(as_bytes(part) for part in (value.data, value.indices, value.indptr))
    if hasattr(value, "to_csv"):
        return value.to_csv(), str(value.dtypes)
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return repr(value)


def without_counts(adata, *, cells=(), genes=()):
    """Set all counts of some cells and genes to zero."""
    counts = adata.X.toarray()
    counts[list(cells)] = 0
    counts[:, list(genes)] = 0
    adata.X = sp.csr_matrix(counts)
