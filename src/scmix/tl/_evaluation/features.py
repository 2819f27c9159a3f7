"""Simple features of genes; whatever is fitted is fitted on the training part."""

import numpy as np
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.decomposition import PCA

_TARGET_SUM = 10_000.0


def log_normalise(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Log of 1 + counts per 10,000 of the cell; a cell without counts stays empty."""
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    scale = np.divide(_TARGET_SUM, totals, out=np.zeros_like(totals), where=totals > 0)
    return sp.csr_matrix((sp.diags_array(scale) @ counts).log1p().astype(np.float32))


def variable_genes(logged: sp.csr_matrix, n_top_genes: int) -> NDArray[np.intp]:
    """Columns of the most variable genes, by scanpy; every gene where there are not more."""
    detected = np.flatnonzero(logged.getnnz(axis=0) > 0)
    if detected.size <= n_top_genes:
        return detected
    table = sc.pp.highly_variable_genes(
        AnnData(logged[:, detected]), n_top_genes=n_top_genes, inplace=False
    )
    return detected[table["highly_variable"].to_numpy(dtype=bool)]


def principal_components(
    train: sp.csr_matrix, test: sp.csr_matrix, n_comps: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both parts on the principal components of the training part."""
    n_comps = min(n_comps, min(train.shape) - 1)
    fitted = PCA(n_comps, svd_solver="arpack", random_state=0).fit(train)
    return fitted.transform(train), fitted.transform(test)
