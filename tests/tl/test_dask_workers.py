"""A dask array with a client of dask.distributed is embedded on its workers."""

import os

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import scmix
from scmix import pp, tl
from scmix._errors import InputError
from scmix.tl import _dask_workers

da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

EXACT = {"device": "cpu", "dtype": "float32"}
pytestmark = pytest.mark.slow  # two processes have to import torch


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def _no_bars():
    scmix.settings.progress = False


@pytest.fixture
def used(monkeypatch):
    """Names of the processes that made the parts."""
    seen = []
    original = _dask_workers.parts

    def watched(*arguments):
        seen.append(arguments[0])
        return original(*arguments)

    monkeypatch.setattr(_dask_workers, "parts", watched)
    return seen


def lazy(adata: ad.AnnData, *, sparse: bool = True) -> ad.AnnData:
    out = adata.copy()
    chunks = da.from_array(adata.X.toarray(), chunks=(5, 70))
    out.X = chunks.rechunk((5, -1)).map_blocks(sp.csr_matrix) if sparse else chunks
    return out


@pytest.mark.parametrize("sparse", [True, False])
def test_the_same_as_here(client, sparse, both, tiny, used):
    expected = tl.embed(both, tiny, species_key="species", **EXACT, copy=True)
    cells = lazy(both, sparse=sparse)
    tl.embed(cells, tiny, species_key="species", **EXACT)
    assert used == [client]
    assert np.array_equal(cells.obsm["X_scmix"], expected.obsm["X_scmix"])
    made, alone = cells.uns["X_scmix"], expected.uns["X_scmix"]
    assert made["params"] == alone["params"]
    assert made["n_empty_cells"] == alone["n_empty_cells"]


def test_the_work_is_done_by_the_workers(client, human, tiny, monkeypatch):
    processes = client.run(os.getpid).values()
    assert len(set(processes)) == 2
    assert os.getpid() not in processes
    monkeypatch.setattr(_dask_workers.Work, "__call__", _not_here)
    tl.embed(lazy(human), tiny, **EXACT)  # the workers have the method as it was


def _not_here(*_):
    raise AssertionError("This ran in the process of the client.")


def test_faults_of_counts_are_told_as_ever(client, human, tiny, unchanged):
    human.X[7, 3] = -1
    cells = lazy(human)
    with pytest.raises(InputError, match=r"1 negative values in \.X, .* cell 'human7'"):
        tl.embed(cells, tiny, **EXACT)
    assert "X_scmix" not in cells.obsm


def test_empty_cells_and_no_known_gene(client, human, tiny, clear):
    clear(human, cells=range(5))
    cells = lazy(human)
    with pytest.warns(UserWarning, match="5 of 12 cells have no count"):
        tl.embed(cells, tiny, **EXACT)
    assert np.isnan(cells.obsm["X_scmix"][:5]).all()
    assert np.isfinite(cells.obsm["X_scmix"][5:]).all()
    clear(human, cells=range(12))
    with pytest.raises(InputError, match=r"All values in \.X are zero"):
        tl.embed(lazy(human), tiny, **EXACT)


def test_stored_ranks_are_read_here(client, human, tiny, used):
    ranked = lazy(pp.rank_encode(human, copy=True))
    tl.embed(ranked, tiny, **EXACT)
    assert used == []
    expected = tl.embed(human, tiny, **EXACT, copy=True).obsm["X_scmix"]
    assert np.array_equal(ranked.obsm["X_scmix"], expected)


def test_data_in_memory_stay_here(client, human, tiny, used):
    tl.embed(human, tiny, **EXACT)
    assert used == []
