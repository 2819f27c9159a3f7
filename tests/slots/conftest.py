"""A small matrix of counts, and what tests of reading and writing do with it."""

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scmix._slots import iter_counts


@pytest.fixture
def counts() -> np.ndarray:
    """23 cells x 60 genes; cell 4 is empty."""
    dense = np.random.default_rng(0).poisson(2, (23, 60)).astype(np.float32)
    dense[4] = 0
    return dense


@pytest.fixture
def as_adata() -> Callable[..., ad.AnnData]:
    """Puts a matrix into an AnnData with cells c0, c1, ... and genes g0, g1, ..."""

    def make(matrix) -> ad.AnnData:
        n_cells, n_genes = matrix.shape
        adata = ad.AnnData(
            sp.csr_matrix((n_cells, n_genes)),
            obs=pd.DataFrame(index=[f"c{i}" for i in range(n_cells)]),
            var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]),
        )
        adata.X = matrix
        return adata

    return make


@pytest.fixture
def read_counts() -> Callable[..., np.ndarray]:
    """Reads all blocks as one dense array; checks that each is as promised."""

    def read(adata: ad.AnnData, **options) -> np.ndarray:
        blocks = list(iter_counts(adata, **options))
        starts = np.cumsum([0, *[block.shape[0] for _, block in blocks]])
        assert [start for start, _ in blocks] == starts[:-1].tolist()
        for _, block in blocks:
            assert block.has_canonical_format
            arrays = block.data, block.indices, block.indptr
            assert sp.csr_matrix(arrays, shape=block.shape).has_canonical_format
            assert block.dtype in (np.float32, np.float64)
            assert block.data.all()
        return sp.vstack([block for _, block in blocks]).toarray()

    return read
