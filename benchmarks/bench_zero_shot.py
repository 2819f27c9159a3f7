"""Zero-shot quality of a model beside its baselines, on every labelled data set at hand.

    SCMIX_DATA=... python benchmarks/bench_zero_shot.py --model scmix-mini --out zero_shot

Within a data set: 5-fold stratified nearest neighbours (k=5, cosine) over 5 seeds, and the cosine
silhouette of cell types. Between species: the same vote from the cells of one species to the
other, over the cell types they share, and species mixing. Over the data sets held out for test and
for validation: the mean lead over the untrained encoder, with an interval. Writes
<out>_within.csv, <out>_between.csv and <out>_leads.csv and prints Markdown. Held-out data sets took
no part in any training.

`within` and `between` can be imported; both return DataFrames.
"""

import argparse
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from sklearn.model_selection import StratifiedKFold
from sklearn.random_projection import GaussianRandomProjection

import scmix
from scmix import metrics
from scmix.checkpoints import Model

HELD_OUT = {
    "baron_human_cider": "test",
    "baron_mouse1": "test",
    "pbmc3k": "test",
    "zeisel_cortex_sub": "test",
    "lung_celllines_scmixology": "validation",
    "bone_marrow_cytosimplex": "validation",
}
FEWEST_GENES = 6_000  # files with fewer hold selected genes only, which biases ranks
N_FOLDS, N_SPLITS = 5, 5
N_DRAWS = 2_000
IMMUNE = {
    "B": ["B", "B cell", "GC B cell", "CD19+ B"],
    "NK": ["NK", "NK_cell", "CD56+ NK"],
    "monocyte": ["CD14+ Mono", "FCGR3A+ Mono", "CD14+ Monocyte", "monocyte_or_neutrophil"],
    "DC": ["DC", "CD8+CD86+", "CD8+CD86-", "CD8-CD4+ESAM+"],
}
PAIRS = {
    "pancreas": ("baron_human_cider", "baron_mouse1", None),
    "pbmc3k and spleen": ("pbmc3k", "jaitin_spleen", IMMUNE),
    "FACS PBMC and spleen": ("zheng_facs_pbmc", "jaitin_spleen", IMMUNE),
}
Embedder = Callable[[ad.AnnData], np.ndarray]


def within(
    folder: Path,
    embedders: dict[str, Embedder],
    *,
    names: Iterable[str] | None = None,
    max_cells: int = 1500,
    predictions: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] | None = None,
) -> pd.DataFrame:
    """Scores of every embedding on every labelled data set; one row for each pair.

    `predictions` is filled with the labels and what was predicted, by data set and embedding.
    """
    rows = []
    for name in names or labelled(folder):
        adata = load(folder, name, max_cells)
        labels = adata.obs["cell_type"].astype(str).to_numpy()
        about = {
            "data": name,
            "held_out": HELD_OUT.get(name, ""),
            "n_cells": adata.n_obs,
            "n_types": len(set(labels)),
        }
        for method, embedder in embedders.items():
            vectors = embedder(adata)
            predicted = predictions_within(vectors, labels)
            rows.append({**about, "method": method, **scores_within(vectors, labels, predicted)})
            say(rows[-1])
            if predictions is not None:
                predictions[name, method] = labels, predicted
    return pd.DataFrame(rows)


def between(
    folder: Path,
    embedders: dict[str, Embedder],
    *,
    pairs: Iterable[str] = tuple(PAIRS),
    max_cells: int = 1500,
) -> pd.DataFrame:
    """Scores of every embedding on every pair of a human and a mouse data set."""
    rows = []
    for name in pairs:
        adata = load_pair(folder, *PAIRS[name], max_cells)
        for method, embedder in embedders.items():
            vectors = embedder(adata)
            rows.append({"pair": name, "method": method, **scores_between(vectors, adata.obs)})
            say(rows[-1])
    return pd.DataFrame(rows)


def predictions_within(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What nearest neighbours of the other folds say, (N_SPLITS, n_cells)."""
    predicted = np.empty((N_SPLITS, len(labels)), dtype=object)
    for seed in range(N_SPLITS):
        folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed).split(labels, labels)
        for known, asked in folds:
            voted = metrics.knn_transfer(vectors[known], labels[known], vectors[asked])
            predicted[seed, asked] = voted
    return predicted


def scores_within(
    vectors: np.ndarray, labels: np.ndarray, predicted: np.ndarray
) -> dict[str, float]:
    """Mean over seeds of the pooled predictions of all folds; spread over seeds."""
    table = pd.DataFrame([metrics.classification_scores(labels, one) for one in predicted])
    return {
        "majority": table["majority_rate"].mean(),
        "accuracy": table["accuracy"].mean(),
        "macro_f1": table["macro_f1"].mean(),
        "macro_f1_sd": table["macro_f1"].std(),
        "silhouette": metrics.silhouette(vectors, labels),
    }


def leads(predictions: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """Macro-F1 of the model beside the untrained encoder: each held-out data set, and their means.

    95 % intervals by drawing the cells of each data set again, the same cells for both. The
    untrained encoder is the mean of its seeds.
    """
    names = [name for name in HELD_OUT if (name, "scmix") in predictions]
    drawn = {name: _drawn_scores(name, predictions) for name in names}
    rows = []
    for kind in ("test", "validation"):
        members = [name for name in names if HELD_OUT[name] == kind]
        whole = {f"mean of {len(members)}": members} if members else {}
        for title, which in {**{name: [name] for name in members}, **whole}.items():
            ours, other = np.mean([drawn[name] for name in which], axis=0)
            low, high = np.quantile((ours - other)[1:], [0.025, 0.975])
            lead = ours[0] - other[0]
            rows.append((kind, title, ours[0], other[0], lead, low, high))
    columns = ["held_out", "data", "scmix", "untrained", "lead", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _drawn_scores(
    name: str, predictions: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Macro-F1 of the model and of the untrained encoder, (2, 1 + draws); first of all cells."""
    labels = predictions[name, "scmix"][0]
    types, truth = np.unique(labels, return_inverse=True)
    rows = np.random.default_rng(0).integers(len(labels), size=(N_DRAWS, len(labels)))
    rows = np.vstack([np.arange(len(labels)), rows])
    untrained = [m for data, m in predictions if data == name and m.startswith("untrained")]
    scores = [
        [_macro_f1(truth, np.searchsorted(types, one), rows, len(types)) for one in voted]
        for method in ("scmix", *untrained)
        for voted in [predictions[name, method][1]]
    ]
    means = np.mean(scores, axis=1)
    return np.stack([means[0], means[1:].mean(axis=0)])


def _macro_f1(truth: np.ndarray, voted: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Of each draw of cells, over the types that it holds."""
    offset = np.arange(len(rows))[:, None] * n

    def counts(codes: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        found = np.bincount((codes[rows] + offset)[chosen[rows]], minlength=n * len(rows))
        return found.reshape(len(rows), n)

    everyone = np.ones(len(truth), dtype=bool)
    right, true, said = (
        counts(truth, truth == voted),
        counts(truth, everyone),
        counts(voted, everyone),
    )
    f1 = 2 * right / np.maximum(true + said, 1)
    return f1.sum(axis=1) / np.maximum((true > 0).sum(axis=1), 1)


def scores_between(vectors: np.ndarray, obs: pd.DataFrame) -> dict[str, float]:
    """Transfer in both directions and mixing, over the cell types that both species have."""
    labels, species = (obs[c].astype(str).to_numpy() for c in ("cell_type", "species"))
    sides = [set(labels[species == name]) for name in ("human", "mouse")]
    shared = np.isin(labels, list(sides[0] & sides[1]))
    out: dict[str, float] = {"types": len(sides[0] & sides[1])}
    for source, target, short in (("human", "mouse", "h2m"), ("mouse", "human", "m2h")):
        known, asked = (shared & (species == name) for name in (source, target))
        predicted = metrics.knn_transfer(vectors[known], labels[known], vectors[asked])
        scores = metrics.classification_scores(labels[asked], predicted)
        out |= {f"{short}_n": scores["n_cells"], f"{short}_majority": scores["majority_rate"]}
        out |= {f"{short}_{key}": scores[key] for key in ("accuracy", "macro_f1")}
    out["mixing"] = metrics.species_mixing(vectors, species, labels)
    out["silhouette"] = metrics.silhouette(vectors[shared], labels[shared])
    return out


def labelled(folder: Path) -> list[str]:
    """Data sets with all their genes and at least two cell types, the held-out ones first."""
    table = pd.read_csv(folder / "MANIFEST.csv")
    usable = (table["genes"] >= FEWEST_GENES) & (table["n_labels"] >= 2)
    names = table.loc[usable, "name"].tolist()
    return sorted(names, key=lambda name: (HELD_OUT.get(name, "zzz"), name))


def load(folder: Path, name: str, max_cells: int) -> ad.AnnData:
    """Labelled cells of types with enough cells for the folds; at most `max_cells`, by a seed."""
    adata = ad.read_h5ad(folder / f"{name}.h5ad")
    adata = adata[(adata.obs["cell_type"] != "unlabeled").to_numpy()]
    adata = adata[some_rows(adata.n_obs, max_cells)]
    sizes = adata.obs["cell_type"].value_counts()
    adata = adata[adata.obs["cell_type"].isin(sizes.index[sizes >= N_FOLDS]).to_numpy()].copy()
    adata.obs["species"] = adata.obs["organism"].astype(str)
    adata.uns["name"] = f"{name}-{max_cells}"
    return adata


def load_pair(
    folder: Path, human: str, mouse: str, kinds: dict[str, list[str]] | None, max_cells: int
) -> ad.AnnData:
    """A human and a mouse data set in one object, genes by Ensembl id."""
    parts = []
    for name in (human, mouse):
        part = load(folder, name, 10**9)
        if kinds is not None:
            names = {old: new for new, olds in kinds.items() for old in olds}
            part.obs["cell_type"] = part.obs["cell_type"].astype(str).map(names)
            part = part[part.obs["cell_type"].notna().to_numpy()]
        known = (part.var["ensembl_id"] != "") & ~part.var["ensembl_id"].duplicated()
        part = part[some_rows(part.n_obs, max_cells), known.to_numpy()].copy()
        part.var_names = part.var["ensembl_id"].to_numpy(dtype=str)
        parts.append(part)
    pair = ad.concat(parts, join="outer", fill_value=0, index_unique="-", keys=["h", "m"])
    pair.uns["name"] = f"{human}+{mouse}-{max_cells}"
    return pair


def some_rows(n_rows: int, size: int) -> np.ndarray:
    """All rows, or as many at random as `size` says."""
    chosen = np.random.default_rng(0).permutation(n_rows)[:size]
    return np.sort(chosen)


def by_model(model: Model, cache: Path | None = None, **options: object) -> Embedder:
    """The model's embedding; `options` go to `scmix.tl.embed`."""

    def embed(adata: ad.AnnData) -> np.ndarray:
        key = f"{adata.uns['name']}-{model.sha256[:16]}-{sorted(options.items())}"
        file = None if cache is None else cache / f"{key}.npy"
        if file is not None and file.exists():
            return np.load(file)
        scmix.tl.embed(
            adata, model, species_key="species", on_duplicate="sum", overwrite=True, **options
        )
        if file is not None:
            cache.mkdir(parents=True, exist_ok=True)
            np.save(file, adata.obsm["X_scmix"])
        return adata.obsm["X_scmix"]

    return embed


def pca(adata: ad.AnnData) -> np.ndarray:
    """PCA-50 of 2,000 highly variable genes."""
    logged = log_counts(adata)
    sc.pp.highly_variable_genes(logged, n_top_genes=min(2_000, logged.n_vars))
    logged = logged[:, logged.var["highly_variable"].to_numpy()].copy()
    sc.pp.pca(logged, n_comps=min(50, min(logged.shape) - 1), random_state=0)
    return logged.obsm["X_pca"]


def random_projection(adata: ad.AnnData) -> np.ndarray:
    """A Gaussian random projection of log counts to 256 dimensions."""
    return GaussianRandomProjection(256, random_state=0).fit_transform(log_counts(adata).X)


def projected_ranks(adata: ad.AnnData) -> np.ndarray:
    """A Gaussian random projection to 256 dimensions of each gene's 1 / log2(1 + rank)."""
    ranked = scmix.pp.rank_encode(
        adata, species_key="species", on_duplicate="sum", n_genes=1023, copy=True
    )
    ranks = ranked.layers["rank"].astype(np.float32)
    ranks.data = 1 / np.log2(1 + ranks.data)
    return GaussianRandomProjection(256, random_state=0).fit_transform(ranks)


def orthologue_pca(adata: ad.AnnData) -> np.ndarray:
    """PCA-50 of one-to-one orthologues."""
    made = scmix.tl.orthologue_pca(adata, species_key="species", copy=True)
    return made.obsm["X_pca_orthologues"]


def log_counts(adata: ad.AnnData) -> ad.AnnData:
    logged = ad.AnnData(adata.X.astype(np.float32))
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    return logged


def say(row: dict) -> None:
    shown = {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()}
    print("  ".join(f"{key}={value}" for key, value in shown.items()), flush=True)


def summarise(within_table: pd.DataFrame, between_table: pd.DataFrame) -> str:
    """The tables in Markdown, untrained seeds as mean and spread."""
    parts = []
    for score in ("macro_f1", "accuracy", "silhouette"):
        if len(within_table):
            table = pooled(within_table).pivot_table(
                index=["held_out", "data", "n_cells", "n_types", "majority"],
                columns="method",
                values=score,
                sort=False,
            )
            means = table.groupby(level="held_out").mean()
            parts.append(f"### Within: {score}\n\n{markdown(table)}\n\n{markdown(means)}")
    if len(between_table):
        table = pooled(between_table).set_index(["pair", "method"])
        parts.append(f"### Between species\n\n{markdown(table)}")
    return "\n\n".join(parts)


def pooled(table: pd.DataFrame) -> pd.DataFrame:
    """One row for all seeds of the untrained encoder."""
    groups = [c for c in ("data", "held_out", "pair", "method") if c in table]
    table = table.assign(method=table["method"].str.replace(r" seed \d+$", "", regex=True))
    means = table.groupby(groups, sort=False, as_index=False).mean(numeric_only=True)
    return means.round(6)  # the majority rate of all seeds is one number again


def markdown(table: pd.DataFrame) -> str:
    flat = table.reset_index()
    lines = [flat.columns, ["---"] * flat.shape[1], *flat.map(shown).to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(value: object) -> str:
    """Scores with three decimals, numbers of cells with none."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value > 1 and value.is_integer() else f"{value:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="scmix-mini", help="name or folder")
    parser.add_argument("--datasets", help="comma-separated names; all labelled ones by default")
    parser.add_argument("--pairs", default=",".join(PAIRS), help="comma-separated; '' for none")
    parser.add_argument("--max-cells", type=int, default=1500, help="of a data set or side")
    parser.add_argument("--untrained", type=int, default=3, help="seeds of the untrained encoder")
    parser.add_argument("--no-baselines", action="store_true", help="the model only")
    parser.add_argument("--pool", default="mean", help="of tl.embed")
    parser.add_argument("--hidden-layer", type=int, default=-2)
    parser.add_argument("--cache", type=Path, help="folder that keeps embeddings between runs")
    parser.add_argument("--out", default="zero_shot", help="start of the names of the csv files")
    args = parser.parse_args(arguments)
    if "SCMIX_DATA" not in os.environ:
        print("SCMIX_DATA is not set: it names the folder with data/. Nothing to do.")
        return
    folder = Path(os.environ["SCMIX_DATA"]) / "data"
    logging.getLogger("scmix").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    scmix.settings.progress = False
    options = {"pool": args.pool, "hidden_layer": args.hidden_layer}
    model = scmix.models.load(args.model)
    ours = {"scmix": by_model(model, args.cache, **options)}
    if not args.no_baselines:
        for seed in range(args.untrained):
            twin = scmix.models.untrained(model, seed=seed)
            ours[f"untrained seed {seed}"] = by_model(twin, args.cache, **options)
    simple, across = {}, {}
    if not args.no_baselines:
        simple = {
            "PCA": pca,
            "random projection": random_projection,
            "random projection of ranks": projected_ranks,
        }
        across = {"PCA on orthologues": orthologue_pca}
    names = [name for name in (args.datasets or "").split(",") if name] or None
    pairs = [name for name in args.pairs.split(",") if name]
    predictions: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    inside = within(
        folder,
        {**simple, **ours},
        names=names,
        max_cells=args.max_cells,
        predictions=predictions,
    )
    outside = between(folder, {**across, **ours}, pairs=pairs, max_cells=args.max_cells)
    inside.to_csv(f"{args.out}_within.csv", index=False)
    outside.to_csv(f"{args.out}_between.csv", index=False)
    print("\n" + summarise(inside, outside))
    if not args.no_baselines and args.untrained:
        held_out = leads(predictions)
        held_out.to_csv(f"{args.out}_leads.csv", index=False)
        table = markdown(held_out.set_index("held_out"))
        print(f"\n### Held out: lead over the untrained encoder\n\n{table}")


if __name__ == "__main__":
    main()
