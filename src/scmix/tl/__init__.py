"""Tools: what the model computes from cells, and the baselines it is judged beside."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._annotate import annotate
    from ._cross_fit import cross_fit
    from ._embed import embed
    from ._evaluate import evaluate
    from ._fine_tune import fine_tune
    from ._fine_tune_genes import fine_tune_genes
    from ._gene_embeddings import gene_embeddings
    from ._impute import impute
    from ._orthologue_pca import orthologue_pca
    from ._perturb import perturb
    from ._transfer_labels import transfer_labels

__all__ = [
    "embed",
    "gene_embeddings",
    "orthologue_pca",
    "fine_tune",
    "fine_tune_genes",
    "annotate",
    "transfer_labels",
    "evaluate",
    "cross_fit",
    "perturb",
    "impute",
]

__getattr__, __dir__ = lazy_names(__name__, {name: f"_{name}" for name in __all__})
