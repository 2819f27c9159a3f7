"""Small real data sets that ship with the package. Sources and licences: data/README.md."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._pancreas import pancreas
    from ._pbmc3k import pbmc3k

__all__ = ["pancreas", "pbmc3k"]

__getattr__, __dir__ = lazy_names(__name__, {name: f"_{name}" for name in __all__})
