"""Try every function that reads counts on every kind of matrix, and write docs/array_types.md.

`python scripts/write_array_types.py` takes a minute or two on one core. What stands in the table
has run and given the same result as CSR counts in memory.
"""

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

import scmix
from scmix import checkpoints
from scmix.decoders import Settings, ValueDecoder
from scmix.encoder import Config
from scmix.genes import Vocabulary

PAGE = Path(__file__).parents[1] / "docs" / "array_types.md"
TOP, END = "<!-- table -->\n", "<!-- end of table -->\n"
YES, NO = "yes", "no"


def main() -> None:
    """Write the page's table."""
    logging.getLogger("scmix").setLevel(logging.ERROR)
    scmix.settings.progress = False
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(TOP)
    _, tail = rest.split(END)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(FUNCTIONS), choices=list(FUNCTIONS))
    names = parser.parse_args().only
    with tempfile.TemporaryDirectory() as folder:
        table = tried(names, Path(folder))
    table = table.combine_first(read_table()).loc[list(FUNCTIONS), list(KINDS)]
    PAGE.write_text(head + TOP + as_markdown(table) + END + tail, encoding="utf-8")
    print(as_markdown(table))


def tried(names: Iterable[str], folder: Path) -> pd.DataFrame:
    """Whether a function (row) gives with a kind of matrix (column) what it gives with CSR."""
    model = tiny_model()
    made = cells()
    kinds = list(KINDS)
    rows = {}
    for name in names:
        expected = FUNCTIONS[name](made.copy(), {}, model)
        rows[name] = [same(name, kind, made, expected, model, folder) for kind in kinds]
    return pd.DataFrame.from_dict(rows, orient="index", columns=kinds)


def same(name: str, kind: str, made: ad.AnnData, expected: Any, model: Any, folder: Path) -> str:
    """YES, or NO where the call is refused; a different result is an error of scmix."""
    adata, options = KINDS[kind](made.copy(), folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = FUNCTIONS[name](adata, options, model)
    except (ValueError, TypeError, NotImplementedError):
        return NO
    np.testing.assert_allclose(result, expected, atol=2e-5, err_msg=f"{name} with {kind}")
    return YES


def as_markdown(table: pd.DataFrame) -> str:
    """The table with links to the functions."""
    lines = ["| | " + " | ".join(table.columns) + " |", "|---" * (table.shape[1] + 1) + "|"]
    for name, row in zip(table.index, table.to_numpy(), strict=True):
        lines.append(f"| {{func}}`scmix.{name}` | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def read_table() -> pd.DataFrame:
    """The table of the page."""
    text = PAGE.read_text(encoding="utf-8").split(TOP)[1].split(END)[0]
    head, _, *lines = [line.strip("| ").split("|") for line in text.strip().splitlines()]
    names = [line[0].strip().removeprefix("{func}`scmix.").rstrip("`") for line in lines]
    values = [[cell.strip() for cell in line[1:]] for line in lines]
    return pd.DataFrame(values, index=names, columns=[cell.strip() for cell in head])


def tiny_model() -> checkpoints.Model:
    """A small random encoder."""
    vocabulary = Vocabulary.bundled()
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 16, "max_position_embeddings": 64, "initializer_range": 0.3}
    return checkpoints.untrained(Config(vocab_size=vocabulary.n_tokens, **sizes), vocabulary)


def cells() -> ad.AnnData:
    """36 human blood cells of three types and four donors, the genes that many of them have."""
    full = scmix.datasets.pbmc3k()
    kinds = ["B", "CD14+ Mono", "NK"]
    rows = np.concatenate([np.flatnonzero(full.obs["cell_type"] == kind)[:12] for kind in kinds])
    adata = full[np.sort(rows)]
    known = adata.var_names.isin(symbols())
    seen = np.asarray((adata.X > 0).sum(axis=0)).ravel()
    seen[~known] = 0
    adata = adata[:, np.sort(np.argsort(-seen, kind="stable")[:150])].copy()
    adata.obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(adata.obs["cell_type"].astype(str)),
            "donor": pd.Categorical([f"donor {i % 4}" for i in range(adata.n_obs)]),
        },
        index=adata.obs_names,
    )
    adata.X = sp.csr_matrix(adata.X.astype(np.float32))
    return adata


def symbols() -> set[str]:
    """Symbols that stand for one human gene of the vocabulary."""
    genes = Vocabulary.bundled().genes.query("species == 'human'")
    return set(genes["symbol"].drop_duplicates(keep=False))


def in_memory(change: Callable[[Any], Any]) -> Callable[[ad.AnnData, Path], tuple]:
    """A kind that is another matrix in `.X`."""

    def make(adata: ad.AnnData, _: Path) -> tuple[ad.AnnData, dict[str, Any]]:
        adata.X = change(adata.X)
        return adata, {}

    return make


def in_layer(adata: ad.AnnData, _: Path) -> tuple[ad.AnnData, dict[str, Any]]:
    """Counts in a layer beside something else in `.X`."""
    adata.layers["counts"] = adata.X
    adata.X = np.log1p(adata.X.toarray())
    return adata, {"layer": "counts"}


def view(adata: ad.AnnData, _: Path) -> tuple[ad.AnnData, dict[str, Any]]:
    """The cells as a part of a larger object."""
    twice = ad.concat([adata, adata[::-1]], index_unique="-")
    return twice[: adata.n_obs], {}


def backed(change: Callable[[Any], Any]) -> Callable[[ad.AnnData, Path], tuple]:
    """A kind that stays in a file."""

    def make(adata: ad.AnnData, folder: Path) -> tuple[ad.AnnData, dict[str, Any]]:
        path = folder / f"{change.__name__}.h5ad"
        if not path.exists():
            adata.X = change(adata.X)
            adata.write_h5ad(path)
        return ad.read_h5ad(path, backed="r"), {}

    return make


def dense(matrix: sp.csr_matrix) -> np.ndarray:
    """As an array."""
    return matrix.toarray()


def in_dask(matrix: sp.csr_matrix) -> da.Array:
    """Dense chunks of some cells."""
    return da.from_array(matrix.toarray(), chunks=(10, -1))


def in_sparse_dask(matrix: sp.csr_matrix) -> da.Array:
    """CSR chunks of some cells."""
    return in_dask(matrix).map_blocks(sp.csr_matrix)


def added(verb: Callable, slot: str, key: str, **fixed: Any) -> Callable:
    """What a function writes to a slot."""

    def call(adata: ad.AnnData, options: dict[str, Any], model: Any) -> np.ndarray:
        extra = {"model": model} if fixed.get("model") else {}
        verb(adata, **{**fixed, **extra}, **options)
        value = getattr(adata, slot)[key]
        return np.asarray(value.toarray() if sp.issparse(value) else value, dtype=float)

    return call


def mapped(adata: ad.AnnData, options: dict[str, Any], model: Any) -> np.ndarray:
    """Tokens of genes; counts are not read."""
    scmix.pp.map_genes(adata, model=model)
    return adata.var["scmix_token"].to_numpy(float)


def components(adata: ad.AnnData, options: dict[str, Any], model: Any) -> np.ndarray:
    """Shares of variance, which have no sign."""
    scmix.tl.orthologue_pca(adata, n_comps=5, **options)
    return adata.uns["X_pca_orthologues"]["variance_ratio"]


def fine_tuned(adata: ad.AnnData, options: dict[str, Any], model: Any) -> np.ndarray:
    """Logits of the validation cells."""
    made = scmix.tl.fine_tune(adata, "cell_type", model=model, epochs=0, **options)
    return made.calibration["cell_type"].logits


def cross_fitted(adata: ad.AnnData, options: dict[str, Any], model: Any) -> np.ndarray:
    """Logits of the validation cells of both folds."""
    made = scmix.tl.cross_fit(adata, "cell_type", "donor", model=model, epochs=0, **options)
    return np.concatenate([one.calibration["cell_type"].logits for one in made])


def genes_told(adata: ad.AnnData, options: dict[str, Any], model: Any) -> np.ndarray:
    """Share of cells in which each gene was read."""
    labels = dict(zip(adata.var_names, "ab" * (adata.n_vars // 2), strict=True))
    made = scmix.tl.fine_tune_genes(adata, labels, model=model, n_folds=2, epochs=0, **options)
    return made.predictions["detection"].to_numpy(float)


def annotated(adata: ad.AnnData, options: dict[str, Any], model: Any) -> np.ndarray:
    """Probabilities by a classifier that is always made from CSR counts."""
    reference = cells()
    made = scmix.tl.fine_tune(reference, "cell_type", model=model, epochs=0)
    scmix.tl.annotate(adata, made, **options)
    return adata.obsm["scmix_label_probabilities"]


def transferred(adata: ad.AnnData, options: dict[str, Any], model: Any) -> np.ndarray:
    """Probabilities by neighbours, with the same kind of matrix on both sides."""
    scmix.tl.transfer_labels(adata, adata, "cell_type", model=model, **options)
    return adata.obsm["scmix_label_probabilities"]


def evaluated(adata: ad.AnnData, options: dict[str, Any], model: Any) -> np.ndarray:
    """Macro-F1 of all methods."""
    fixed = {"model": model, "groups": "donor", "n_splits": 2, "seeds": [0], "others": ()}
    return scmix.tl.evaluate(adata, "cell_type", **fixed, **options)["macro_f1"].to_numpy()


def perturbed(adata: ad.AnnData, options: dict[str, Any], model: Any) -> np.ndarray:
    """Effects of two genes."""
    genes = list(adata.var_names[:2])
    states = {"state_key": "cell_type", "start": "B", "goal": "NK", "donor_key": "donor"}
    scmix.tl.perturb(adata, genes, model=model, min_cells=2, **states, **options)
    return adata.uns["perturbation"]["scores"].sort_values("gene")["effect"].to_numpy()


def imputed(adata: ad.AnnData, options: dict[str, Any], model: Any) -> np.ndarray:
    """The layer, by a random decoder."""
    torch.manual_seed(0)
    decoder = ValueDecoder(Settings("restore"), model.config).eval()
    scmix.tl.impute(adata, replace(model, decoder=decoder), **options)
    layer = adata.layers["scmix_imputed"]
    return layer.toarray() if sp.issparse(layer) else np.asarray(layer)


KINDS: dict[str, Callable[[ad.AnnData, Path], tuple[ad.AnnData, dict[str, Any]]]] = {
    "CSR": in_memory(sp.csr_matrix),
    "CSC": in_memory(sp.csc_matrix),
    "dense": in_memory(dense),
    "a layer": in_layer,
    "a view": view,
    "backed, sparse": backed(sp.csr_matrix),
    "backed, dense": backed(dense),
    "dask": in_memory(in_dask),
    "dask, sparse": in_memory(in_sparse_dask),
}
FUNCTIONS: dict[str, Callable[[ad.AnnData, dict[str, Any], Any], np.ndarray]] = {
    "pp.map_genes": mapped,
    "pp.rank_encode": added(scmix.pp.rank_encode, "layers", "rank"),
    "tl.embed": added(scmix.tl.embed, "obsm", "X_scmix", model=True),
    "tl.gene_embeddings": added(
        scmix.tl.gene_embeddings, "varm", "scmix_gene", model=True, source="context"
    ),
    "tl.orthologue_pca": components,
    "tl.fine_tune": fine_tuned,
    "tl.fine_tune_genes": genes_told,
    "tl.annotate": annotated,
    "tl.transfer_labels": transferred,
    "tl.evaluate": evaluated,
    "tl.cross_fit": cross_fitted,
    "tl.perturb": perturbed,
    "tl.impute": imputed,
}

if __name__ == "__main__":
    main()
