"""How good an embedding is by itself, without a classifier."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import scanpy as sc
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.neighbors import NearestNeighbors

from ... import metrics
from ..._errors import InputError

RESOLUTIONS = (0.1, 0.2, 0.5, 1.0, 2.0)
_N_NEIGHBORS = 15
_LISI_NEIGHBORS = 90  # three times the perplexity, as in the LISI paper


def embedding_scores(
    vectors: NDArray[np.floating],
    labels: NDArray[np.str_],
    *,
    batches: NDArray | None,
    species: NDArray | None,
) -> dict[str, Any]:
    """Scores of an embedding, all with cosine distance.

    Parameters
    ----------
    vectors
        Array (n_cells, n_dimensions); rows of NaN are left out.
    labels
        Cell types (n_cells,).
    batches
        Donors (n_cells,), for iLISI; None: not known.
    species
        Species (n_cells,), for mixing; None where there is one.
    """
    known = metrics.has_vector(vectors)
    points, names = vectors[known], labels[known]
    graph = _graph(points)
    scores: dict[str, Any] = {
        "n_cells": int(known.sum()),
        "silhouette": metrics.silhouette(points, names),
        "knn_purity": metrics.knn_purity(points, names),
        "graph_connectivity": metrics.graph_connectivity(graph.obsp["connectivities"], names),
    }
    scores |= _clustering(graph, names)
    side = batches if species is None else species
    scores |= _lisi(points, names, None if side is None else side[known])
    scores["species_mixing"] = _mixing(points, names, None if species is None else species[known])
    lacking = [name for name in ("igraph", "scib_metrics") if not find_spec(name)]
    scores["note"] = f"not installed: {', '.join(lacking)}" if lacking else ""
    return scores


def _graph(points: NDArray[np.floating]) -> AnnData:
    graph = AnnData(obsm={"X": points})
    n_neighbors = min(_N_NEIGHBORS, len(points) - 1)
    sc.pp.neighbors(graph, n_neighbors=n_neighbors, use_rep="X", metric="cosine", random_state=0)
    return graph


def _clustering(graph: AnnData, labels: NDArray[np.str_]) -> dict[str, float]:
    """Agreement of Leiden clusters with labels, at the resolution of the highest NMI."""
    if not find_spec("igraph"):
        return {"nmi": float("nan"), "ari": float("nan")}
    found = []
    for resolution in RESOLUTIONS:
        sc.tl.leiden(
            graph, resolution, flavor="igraph", n_iterations=2, directed=False, random_state=0
        )
        clusters = graph.obs["leiden"].to_numpy(dtype=str)
        nmi = normalized_mutual_info_score(labels, clusters)
        found.append((nmi, adjusted_rand_score(labels, clusters)))
    nmi, ari = max(found)
    return {"nmi": float(nmi), "ari": float(ari)}


def _lisi(
    points: NDArray[np.floating], labels: NDArray[np.str_], batches: NDArray | None
) -> dict[str, float]:
    """LISI of types (1: apart) and of batches (1: mixed), both scaled to 0-1 by scib-metrics."""
    nan = float("nan")
    k = min(_LISI_NEIGHBORS, len(points))
    if not find_spec("scib_metrics") or k < 3:
        return {"clisi": nan, "ilisi": nan}
    import scib_metrics
    from scib_metrics.nearest_neighbors import NeighborsResults

    finder = NearestNeighbors(n_neighbors=k, metric="cosine").fit(points)
    distances, rows = finder.kneighbors(points)
    near = NeighborsResults(indices=rows, distances=distances)
    clisi = scib_metrics.clisi_knn(near, labels)
    if batches is None or len(np.unique(batches)) < 2:
        return {"clisi": float(clisi), "ilisi": nan}
    ilisi = scib_metrics.ilisi_knn(near, batches)
    return {"clisi": float(clisi), "ilisi": float(ilisi)}


def _mixing(
    points: NDArray[np.floating], labels: NDArray[np.str_], species: NDArray | None
) -> float:
    if species is None:
        return float("nan")
    try:
        return metrics.species_mixing(points, species, labels)
    except InputError:  # no type with enough cells in both species
        return float("nan")
