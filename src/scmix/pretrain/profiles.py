"""Whole cells with their counts: inputs and targets of objectives that need values."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from .._errors import InputError
from ..batches import Sequences
from ._recipe import Recipe
from .corpus import Corpus


@dataclass(frozen=True, eq=False)
class Profile:
    """All expressed genes of some cells and how much of each.

    Parameters
    ----------
    genes
        Gene tokens by rank.
    counts
        Raw counts, float32, shape ``(T,)``.
    totals
        Sum of each cell's counts over all genes of its file, float32, shape ``(n,)``.
    measured
        Genes that the data sets of these cells have, bool, shape ``(n_groups, n_tokens)``.
    group
        Row of ``measured`` of each cell, int64, shape ``(n,)``.
    """

    genes: Sequences
    counts: np.ndarray
    totals: np.ndarray
    measured: np.ndarray
    group: np.ndarray

    @classmethod
    def read(cls, corpus: Corpus, rows: np.ndarray) -> Self:
        """Read cells of a corpus that holds values."""
        groups, group = np.unique(corpus.group(rows), return_inverse=True)
        return cls(
            corpus.sequences(rows),
            corpus.counts(rows).astype(np.float32),
            corpus.totals[rows].astype(np.float32),
            corpus.measured_genes[groups],
            group,
        )

    def values(self, total: float) -> np.ndarray:
        """``log1p(total * count / total of the cell)``, float32, shape ``(T,)``."""
        scale = total / np.maximum(self.totals, 1)
        return np.log1p(self.counts * np.repeat(scale, self.genes.lengths)).astype(np.float32)

    def tensors(self) -> dict[str, Any]:
        """``batch["profile"]``: the same as tensors, ``indptr`` as a list."""
        return {
            "tokens": torch.from_numpy(self.genes.tokens.astype(np.int64)),
            "indptr": self.genes.indptr.tolist(),
            "counts": torch.from_numpy(self.counts),
            "totals": torch.from_numpy(self.totals),
            "measured": torch.from_numpy(self.measured),
            "group": torch.from_numpy(self.group),
        }


def check_values(corpus: Corpus, recipe: Recipe) -> None:
    """Refuse a corpus that does not hold what the recipe's objectives need."""
    if "values" not in recipe.needs:
        return
    if not corpus.has_values:
        raise InputError(
            f"Recipe {recipe.name!r} (objectives {', '.join(recipe.objectives)}) needs counts, and "
            f"the corpus in {corpus.path} holds ranks only. Build it with "
            "build_corpus(..., values=True, n_genes=None)."
        )
    most = corpus.manifest.get("n_genes")
    if most is not None and corpus.lengths.max() >= most:
        raise InputError(
            f"The corpus in {corpus.path} keeps {most:,} genes of a cell; to recipe "
            f"{recipe.name!r} the others would look like zeros. Build it with n_genes=None."
        )
