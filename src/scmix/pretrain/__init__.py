"""Pretraining: count files to a token store, objectives, recipes, and the training loop.

A corpus is built once from h5ad or zarr files (:func:`build_corpus`); :func:`train` then runs a
named :class:`Recipe` on it and writes a checkpoint that `scmix.models.load` opens.
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._train import train
    from .build import Source, build_corpus
    from .corpus import Corpus
    from .extend import extend_vocabulary, with_species
    from .medians import MedianSketch, corpus_medians
    from .recipe_file import RecipeFile, read_recipe_file, run_recipe_file
    from .recipes import RECIPES, Recipe, recipe

__all__ = [
    "Source",
    "build_corpus",
    "Corpus",
    "MedianSketch",
    "corpus_medians",
    "Recipe",
    "RECIPES",
    "recipe",
    "train",
    "RecipeFile",
    "read_recipe_file",
    "run_recipe_file",
    "extend_vocabulary",
    "with_species",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Source": "build",
        "build_corpus": "build",
        "Corpus": "corpus",
        "MedianSketch": "medians",
        "corpus_medians": "medians",
        "Recipe": "recipes",
        "RECIPES": "recipes",
        "recipe": "recipes",
        "train": "_train",
        "RecipeFile": "recipe_file",
        "read_recipe_file": "recipe_file",
        "run_recipe_file": "recipe_file",
        "extend_vocabulary": "extend",
        "with_species": "extend",
    },
)
