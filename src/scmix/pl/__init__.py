"""Plots of what `tl` has written; nothing is computed here."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._umap_compare import umap_compare

__all__ = ["umap_compare"]

__getattr__, __dir__ = lazy_names(__name__, {name: f"_{name}" for name in __all__})
