"""What a graph of neighbouring cells says about labels."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from .._errors import InputError
from ._arrays import categories


def graph_connectivity(graph: Any, labels: Iterable) -> float:
    """How well cells of a label hang together in a neighbour graph [1]_.

    For each label, the share of its cells in the largest connected part of the graph of its cells
    alone; then the mean over labels.

    Parameters
    ----------
    graph
        Sparse or dense matrix (n_cells, n_cells); anything above zero is an edge, in whichever
        direction, such as `obsp["connectivities"]` of scanpy.
    labels
        Labels (n_cells,).

    Returns
    -------
    1 where every label is in one piece; for a label all in pieces, 1 / its number of cells.

    Raises
    ------
    InputError
        If the graph is not square, or there is not a label for every cell.

    References
    ----------
    .. [1] Luecken et al. (2022). Benchmarking atlas-level data integration in single-cell
       genomics. Nature Methods 19, 41-50.

    Examples
    --------
    >>> from scmix.metrics import graph_connectivity
    >>> chain = [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    >>> graph_connectivity(chain, ["a", "a", "a", "a"])
    1.0
    >>> graph_connectivity(chain, ["a", "b", "a", "b"])
    0.5
    """
    edges = sp.csr_matrix(graph)
    if edges.shape[0] != edges.shape[1] or not edges.shape[0]:
        raise InputError(f"Found a graph of shape {edges.shape}; expected a square, not empty one.")
    names, codes = categories(labels, edges.shape[0])
    edges = edges > 0
    shares = []
    for code in range(len(names)):
        rows = np.flatnonzero(codes == code)
        _, piece = connected_components(edges[rows][:, rows], directed=False)
        shares.append(np.bincount(piece).max() / rows.size)
    return float(np.mean(shares))
