"""Tools: what the model computes from cells, and the baselines it is judged beside."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._embed import embed
    from ._gene_embeddings import gene_embeddings
    from ._orthologue_pca import orthologue_pca

__all__ = ["embed", "gene_embeddings", "orthologue_pca"]

__getattr__, __dir__ = lazy_names(__name__, {name: f"_{name}" for name in __all__})
