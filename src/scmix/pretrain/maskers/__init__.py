"""Maskers: which genes of a cell are hidden from the encoder. One file each.

A masker that hides leaves the choice of how to the view: in place, as ``<mask>``, or left out, so
that the encoder reads visible genes only.
"""

from typing import Protocol

import numpy as np

from ...batches import Sequences
from .._recipe import Recipe
from .keep_k import KeepK
from .mlm import Masked, Masker, masked_as
from .nonzero_zero import NonzeroZero
from .subset import Subset
from .uniform import Uniform

__all__ = [
    "HidesGenes",
    "KeepK",
    "Masked",
    "Masker",
    "NonzeroZero",
    "Subset",
    "Uniform",
    "make_part_masker",
    "masked_as",
]


class HidesGenes(Protocol):
    """What a view of visible genes needs of its masker."""

    def __call__(self, cells: Sequences, rng: np.random.Generator) -> np.ndarray:
        """Which genes are hidden, bool, shape ``(T,)``; at least one of every cell is not."""
        ...


def make_part_masker(recipe: Recipe) -> HidesGenes:
    """Build the masker that a recipe names for its view of visible genes."""
    if recipe.part_masker == "keep_k":
        return KeepK(recipe.keep_k)
    if recipe.part_masker == "uniform":
        return Uniform(recipe.mask_share)
    if recipe.part_masker == "nonzero_zero":
        return NonzeroZero(recipe.hide_nonzero, recipe.hide_zero)
    return Subset(*recipe.subset_share)
