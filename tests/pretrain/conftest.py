"""A small vocabulary of two species and a corpus with planted modules of genes."""

from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from scmix.genes import Vocabulary
from scmix.pretrain import Corpus, build_corpus

N_GENES, N_SHARED, N_MODULES = 60, 40, 4


def vocabulary_of(mode: str) -> Vocabulary:
    rows = []
    for species, prefix in (("human", "ENSG"), ("mouse", "ENSMUSG")):
        for i in range(N_GENES):
            symbol = f"GENE{i}" if species == "human" else f"Gene{i}"
            group = f"g{i}" if i < N_SHARED else ""
            rows.append(
                (f"{prefix}{i + 1:011d}", symbol, "", species, "protein_coding", group, 2.0)
            )
    columns = ["ensembl_id", "symbol", "aliases", "species", "biotype", "group", "median"]
    return Vocabulary.from_table(pd.DataFrame(rows, columns=columns), mode=mode)


def counts_of(n_cells: int, seed: int) -> np.ndarray:
    """Every cell shows one module (genes i, i + 4, i + 8, ...) strongly and the rest weakly."""
    rng = np.random.default_rng(seed)
    module = rng.integers(N_MODULES, size=n_cells)
    mine = module[:, None] == np.arange(N_GENES)[None, :] % N_MODULES
    return rng.poisson(np.where(mine, 20.0, 0.1)).astype(np.float32)


def write_cells(
    path: Path, counts: np.ndarray, species: str = "human", obs: pd.DataFrame | None = None
) -> Path:
    prefix = "ENSG" if species == "human" else "ENSMUSG"
    var = pd.DataFrame(index=[f"{prefix}{i + 1:011d}" for i in range(N_GENES)])
    names = [f"c{i}" for i in range(len(counts))]
    obs = pd.DataFrame(index=names) if obs is None else obs.set_index(pd.Index(names))
    ad.AnnData(sp.csr_matrix(counts), obs=obs, var=var).write_h5ad(path)
    return path


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models are slower on several threads, on a busy machine thirty times."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return vocabulary_of("shared")


@pytest.fixture(scope="session")
def separate() -> Vocabulary:
    return vocabulary_of("separate")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    return [
        write_cells(folder / "blood.h5ad", counts_of(120, seed=1)),
        write_cells(folder / "spleen.h5ad", counts_of(30, seed=2), "mouse"),
    ]


@pytest.fixture(scope="session")
def corpus(
    files: list[Path], vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory
) -> Corpus:
    out = tmp_path_factory.mktemp("corpus") / "corpus"
    return build_corpus(files, out, vocabulary=vocabulary, min_genes=5)
