"""Classifiers of cells: an encoder fine-tuned on labelled cells, with heads and calibration.

Arrays and torch only; `scmix.tl.fine_tune` makes them from an AnnData.
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._classifier import CellClassifier, load
    from ._recipes import RECIPES, Recipe, recipe

__all__ = ["CellClassifier", "load", "Recipe", "RECIPES", "recipe"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CellClassifier": "_classifier",
        "load": "_classifier",
        "Recipe": "_recipes",
        "RECIPES": "_recipes",
        "recipe": "_recipes",
    },
)
