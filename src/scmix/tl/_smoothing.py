"""Averages of a cell with its neighbours in a graph, or with the other cells of its cluster."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from .._errors import InputError, MissingKeyError


@dataclass(frozen=True, eq=False)
class Voters:
    """Who votes on a cell: cells vote in groups, and a cell listens to one group.

    Parameters
    ----------
    weights
        CSR (n_groups, n_obs): weight of each cell's vote in each group.
    group
        Group of each cell (n_obs,). In a graph every cell has its own.
    """

    weights: sp.csr_matrix
    group: np.ndarray

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Weighted mean of the rows; rows of NaN do not vote and stay as they are."""
        kept = np.isfinite(values).all(axis=1)
        weights = self.weights[:, kept]
        total = np.asarray(weights.sum(axis=1))
        with np.errstate(invalid="ignore"):
            means = (weights @ values[kept]) / total
        out = means[self.group]
        out[~kept] = np.nan
        return out


def find_voters(adata: AnnData, smooth: bool | str) -> Voters | None:
    """Who votes on each cell; None without smoothing.

    Parameters
    ----------
    adata
        Holds the clusters or the graph.
    smooth
        As in `scmix.tl.annotate`.
    """
    if smooth is False:
        return None
    if isinstance(smooth, str) and smooth in adata.obs:
        return _in_clusters(adata.obs[smooth])
    key = "neighbors" if smooth is True else smooth
    entry = adata.uns.get(key)
    graph = entry.get("connectivities_key") if hasattr(entry, "get") else None
    if graph is None or graph not in adata.obsp:
        graphs = [
            k for k, v in adata.uns.items() if hasattr(v, "get") and "connectivities_key" in v
        ]
        raise MissingKeyError(
            f"Found smooth={smooth!r}; expected a neighbour graph of scanpy.pp.neighbors (there "
            f"are {graphs}) or a column of obs with clusters. Call scanpy.pp.neighbors first."
        )
    return _in_graph(sp.csr_matrix(adata.obsp[graph], dtype=np.float64))


def _in_clusters(column: pd.Series) -> Voters:
    codes, names = pd.factorize(column)
    alone = codes < 0
    codes = np.where(alone, len(names) + np.cumsum(alone) - 1, codes)  # no cluster: its own vote
    n_cells = len(codes)
    members = (np.ones(n_cells), (codes, np.arange(n_cells)))
    return Voters(sp.csr_matrix(members, shape=(len(names) + alone.sum(), n_cells)), codes)


def _in_graph(graph: sp.csr_matrix) -> Voters:
    """A cell's own vote has weight 1, that of a neighbour its connectivity."""
    if graph.nnz and (graph.data.min() < 0 or not np.isfinite(graph.data).all()):
        raise InputError("Found negative or infinite weights in the neighbour graph.")
    own = sp.diags_array(1 - graph.diagonal(), format="csr")
    return Voters(sp.csr_matrix(graph + own), np.arange(graph.shape[0]))
