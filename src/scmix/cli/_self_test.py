"""A few cells of the package embedded, and the result compared with what it has to be."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np

from .. import datasets, models, tl
from ..settings import settings


def self_test(model: str, device: str | None) -> Iterator[tuple[bool, str]]:
    """Embed cells here, and on the processor in full precision; all in about ten seconds."""
    settings.progress, settings.verbosity = False, "warning"
    cells = _cells(model)
    start = time.perf_counter()
    vectors = _embed(cells, model=model, device=device)
    seconds = time.perf_counter() - start
    yield bool(np.isfinite(vectors).all()), f"{cells.n_obs} cells embedded in {seconds:.1f} s"
    exact = _embed(cells, model=model, device="cpu", dtype="float32")
    cosine = float(np.min(_cosine(vectors, exact)))
    yield cosine > 0.99, f"like the processor in float32: cosine at least {cosine:.5f}"
    ends = [0, cells.n_obs - 1]  # of both species, where the model knows both
    alone = _embed(cells[ends].copy(), model=model, device="cpu", dtype="float32")
    apart = float(np.abs(alone - exact[ends]).max())
    yield apart < 1e-4, f"cells do not depend on the others: to {apart:.0e}"
    yield _is_kept(cells, vectors), "written to a file and read again: equal"


def _cells(model: str) -> ad.AnnData:
    """Some cells of the species that the model knows."""
    cells, species = datasets.pancreas()[::16], models.vocabulary(model).species
    return cells[cells.obs["species"].isin(species), cells.var["species"].isin(species)].copy()


def _embed(cells: ad.AnnData, **options: str | None) -> np.ndarray:
    made = tl.embed(cells, species_key="species", copy=True, **options)  # type: ignore[arg-type]
    return made.obsm["X_scmix"]  # type: ignore[union-attr]


def _cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    lengths = (first**2).sum(1) ** 0.5 * (second**2).sum(1) ** 0.5
    return (first * second).sum(1) / lengths


def _is_kept(cells: ad.AnnData, vectors: np.ndarray) -> bool:
    cells.obsm["X_scmix"] = vectors
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        cells.write_h5ad(path)
        return bool(np.array_equal(ad.read_h5ad(path).obsm["X_scmix"], vectors))
