"""Plots of what `tl` has written; nothing is computed here."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._confidence import confidence
    from ._confusion import confusion
    from ._evaluation import evaluation
    from ._history import history
    from ._perturbation import perturbation
    from ._perturbation_heatmap import perturbation_heatmap
    from ._perturbation_shift import perturbation_shift
    from ._umap_compare import umap_compare

__all__ = [
    "umap_compare",
    "confusion",
    "confidence",
    "evaluation",
    "history",
    "perturbation",
    "perturbation_shift",
    "perturbation_heatmap",
]

__getattr__, __dir__ = lazy_names(__name__, {name: f"_{name}" for name in __all__})
