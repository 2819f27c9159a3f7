"""Vectors of cells that stand in the table, and how good each is by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from ... import checkpoints, models
from ..._errors import InputError, MissingKeyError
from ...genes import SPECIES
from .._embed import embed
from .._orthologue_pca import orthologue_pca
from .cells import Cells
from .embedding import embedding_scores
from .features import principal_components, variable_genes
from .folds import N_COMPS, N_TOP_GENES

_KEY = "vectors"


@dataclass(frozen=True, eq=False)
class Representation:
    """A vector for each cell.

    Parameters
    ----------
    name
        What the table calls it.
    kind
        `"baseline"`, `"scmix"` or `"yours"`.
    vectors
        Array (n_cells, n_dimensions); NaN for cells without one.
    """

    name: str
    kind: str
    vectors: NDArray[np.floating]


def of_models(cells: Cells, model: checkpoints.Model, **options: Any) -> list[Representation]:
    """The encoder without and with its training; across species also baseline and centring.

    Parameters
    ----------
    cells
        The labelled cells.
    model
        The trained one.
    **options
        How genes and counts are read, as in `scmix.tl.embed`.
    """

    def vectors(of: checkpoints.Model) -> NDArray[np.float32]:
        return embed_cells(cells, of, **options)

    ours = Representation(model.name, "scmix", vectors(model))
    twin = Representation("untrained encoder", "baseline", vectors(models.untrained(model, seed=0)))
    if not cells.two_species:
        return [twin, ours]
    simple = Representation("PCA of orthologues", "baseline", orthologue_components(cells, options))
    return [simple, centred(simple, cells), twin, ours, centred(ours, cells)]


def embed_cells(cells: Cells, model: checkpoints.Model, **options: Any) -> NDArray[np.float32]:
    """Vectors of the labelled cells by `scmix.tl.embed`."""
    counts = _bare(cells)
    embed(counts, model, key_added=_KEY, **options)
    return counts.obsm[_KEY]


def orthologue_components(cells: Cells, options: dict[str, Any]) -> NDArray[np.float32]:
    """Vectors of the labelled cells by `scmix.tl.orthologue_pca`."""
    counts = _bare(cells)
    orthologue_pca(counts, key_added=_KEY, **options)
    return counts.obsm[_KEY]


def centred(given: Representation, cells: Cells) -> Representation:
    """The same relative to the mean of the cells of each species, which needs no label."""
    vectors = given.vectors.copy()
    for code in np.unique(cells.species):
        rows = cells.species == code
        vectors[rows] -= np.nanmean(vectors[rows], axis=0)
    return Representation(f"{given.name}, centred by species", given.kind, vectors)


def of_keys(adata: AnnData, keys: Sequence[str], cells: Cells) -> list[Representation]:
    """What the user has in `obsm`, of the labelled cells."""
    return [Representation(key, "yours", _matrix(adata, key)[cells.rows]) for key in keys]


def check_keys(adata: AnnData, use_rep: str | Sequence[str] | None) -> list[str]:
    """Keys of `obsm` that exist and hold vectors."""
    keys = [use_rep] if isinstance(use_rep, str) else list(use_rep or ())
    for key in keys:
        if key not in adata.obsm:
            raise MissingKeyError(f"Found no {key!r} in adata.obsm; there are {list(adata.obsm)}.")
        if not np.isfinite(_matrix(adata, key)).any():
            raise InputError(f'Found no vector in obsm["{key}"]: all values are NaN.')
    return keys


def quality(cells: Cells, representations: Sequence[Representation]) -> pd.DataFrame:
    """Scores of each representation without a classifier, and of a PCA of all cells."""
    labels = cells.names[cells.codes]
    species = np.array(SPECIES)[cells.species] if cells.two_species else None
    known = list(representations)
    if not cells.two_species:
        variable = cells.logged[:, variable_genes(cells.logged, N_TOP_GENES)]
        vectors, _ = principal_components(variable, variable[:1], N_COMPS)
        known.insert(0, Representation(f"PCA-{N_COMPS}", "baseline", vectors))
    rows = [
        {"representation": one.name, "kind": one.kind}
        | embedding_scores(one.vectors, labels, batches=cells.groups, species=species)
        for one in known
    ]
    return pd.DataFrame(rows)


def _bare(cells: Cells) -> AnnData:
    """The counts in an object that may be written to."""
    return AnnData(cells.adata.X, obs=cells.adata.obs.copy(), var=cells.adata.var.copy())


def _matrix(adata: AnnData, key: str) -> NDArray[np.floating]:
    values = adata.obsm[key]
    array = np.asarray(values.toarray() if sp.issparse(values) else values)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise InputError(
            f'Found obsm["{key}"] of shape {array.shape} and type {array.dtype}; '
            "expected numbers, (n_obs, n_dimensions)."
        )
    return array if array.dtype.kind == "f" else array.astype(np.float32)
