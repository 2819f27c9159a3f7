"""Fixtures and settings of the whole suite. Real data comes only through SCMIX_DATA."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Before anything imports numpy, numba, torch or matplotlib: no window, no network, few threads.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
_allowed = getattr(os, "sched_getaffinity", None)  # fewer than there are, where a shell says so
_cores = len(_allowed(0)) if _allowed else os.cpu_count() or 1
for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, str(min(4, _cores)))

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, settings

# A shared machine makes single examples slow; that is no fault of the code under test.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session")
def scmix_data() -> Path:
    """Folder with data/, genes/ and reference/; tests that need it are skipped without it."""
    if "SCMIX_DATA" not in os.environ:
        pytest.skip("SCMIX_DATA is not set")
    return Path(os.environ["SCMIX_DATA"])


@pytest.fixture(autouse=True)
def _settings_as_they_were() -> Iterator[None]:
    import scmix

    names = ("device", "progress", "verbosity")
    before = {name: getattr(scmix.settings, name) for name in names}
    yield
    for name, value in before.items():
        setattr(scmix.settings, name, value)


@pytest.fixture
def make_adata() -> Callable[..., ad.AnnData]:
    """`make_adata(species, n_obs, n_vars, ids, seed)`: seeded counts over real vocabulary genes."""
    return _make_adata


@pytest.fixture
def human() -> ad.AnnData:
    """12 human cells x 200 genes, Ensembl ids."""
    return _make_adata("human")


@pytest.fixture
def mouse() -> ad.AnnData:
    """12 mouse cells x 200 genes, Ensembl ids."""
    return _make_adata("mouse")


@pytest.fixture
def both(human: ad.AnnData, mouse: ad.AnnData) -> ad.AnnData:
    """The human and the mouse cells in one object, named by obs["species"]."""
    return ad.concat([human, mouse], join="outer", fill_value=0)


def _make_adata(
    species: str = "human",
    n_obs: int = 12,
    n_vars: int = 200,
    ids: str = "ensembl_id",
    seed: int = 0,
) -> ad.AnnData:
    from scmix.genes import Vocabulary

    genes = Vocabulary.bundled().genes
    genes = genes[(genes["species"] == species) & (genes[ids] != "")]
    genes = genes.drop_duplicates(ids, keep=False)
    rng = np.random.default_rng(seed)
    names = genes[ids].iloc[np.sort(rng.choice(len(genes), n_vars, replace=False))]
    counts = rng.negative_binomial(1, 0.3, size=(n_obs, n_vars))
    counts[:, 0] += 1  # no empty cell
    obs = pd.DataFrame(
        {
            "species": pd.Categorical([species] * n_obs),
            "cell_type": pd.Categorical(rng.choice(["a", "b", "c"], n_obs)),
        },
        index=[f"{species}{i}" for i in range(n_obs)],
    )
    matrix = sp.csr_matrix(counts.astype(np.float32))
    return ad.AnnData(matrix, obs=obs, var=pd.DataFrame(index=names.to_numpy(str)))
