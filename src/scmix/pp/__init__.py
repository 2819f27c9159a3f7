"""Preparation: genes matched to tokens, counts turned into ranks."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._map_genes import map_genes
    from ._rank_encode import rank_encode

__all__ = ["map_genes", "rank_encode"]

__getattr__, __dir__ = lazy_names(__name__, {name: f"_{name}" for name in __all__})
