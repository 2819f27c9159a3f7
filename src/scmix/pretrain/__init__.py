"""Pretraining: count files to a token store, objectives, recipes, and the training loop.

A corpus is built once from h5ad files (:func:`build_corpus`); :func:`train` then runs a named
:class:`Recipe` on it and writes a checkpoint that `scmix.models.load` opens.
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._train import train
    from .build import Source, build_corpus
    from .corpus import Corpus
    from .recipes import RECIPES, Recipe, recipe

__all__ = ["Source", "build_corpus", "Corpus", "Recipe", "RECIPES", "recipe", "train"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Source": "build",
        "build_corpus": "build",
        "Corpus": "corpus",
        "Recipe": "recipes",
        "RECIPES": "recipes",
        "recipe": "recipes",
        "train": "_train",
    },
)
