"""From raw counts of human and mouse pancreas to a table and a picture: what `make demo` runs."""

import argparse
import logging
import time
from collections.abc import Sequence

import matplotlib as mpl

mpl.use("Agg")  # a file is drawn, no window

import numpy as np
import pandas as pd
from anndata import AnnData

import scmix
from scmix import metrics

SPECIES = ("human", "mouse")
COLUMNS = (
    "species mixing",
    "cell-type silhouette",
    "human→mouse accuracy",
    "human→mouse macro-F1",
    "mouse→human accuracy",
    "mouse→human macro-F1",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="demo.png", help="the picture")
    parser.add_argument("--model", default="scmix-mini", help="name or folder of a model")
    parser.add_argument("--seeds", type=int, default=3, help="untrained encoders to compare with")
    args = parser.parse_args(arguments)
    logging.getLogger("scmix").setLevel(logging.WARNING)
    start = time.perf_counter()

    say(start, "Loading human and mouse pancreas cells (Baron et al. 2016)")
    adata = scmix.datasets.pancreas()
    model = scmix.models.load(args.model)

    say(start, "Matching genes and ranking them in each cell")
    scmix.pp.map_genes(adata, model=model, species_key="species")
    scmix.pp.rank_encode(adata, model=model, species_key="species")

    say(start, f"Embedding {adata.n_obs} cells with {model.name}")
    scmix.tl.embed(adata, model, species_key="species")

    say(start, "PCA on one-to-one orthologues, for comparison")
    scmix.tl.orthologue_pca(adata, species_key="species")
    rows = {
        model.name: scores(adata, "X_scmix"),
        "PCA on orthologues": scores(adata, "X_pca_orthologues"),
    }

    twins = []
    shared = adata[is_shared(adata)].copy()
    for seed in range(args.seeds):
        say(
            start,
            f"Embedding with an untrained encoder of the same shape ({seed + 1}/{args.seeds})",
        )
        twin = scmix.models.untrained(model, seed=seed)
        scmix.tl.embed(shared, twin, species_key="species")
        twins.append(scores(shared, "X_scmix"))

    say(start, "Drawing")
    figure = scmix.pl.umap_compare(
        adata,
        ["X_scmix", "X_pca_orthologues"],
        titles=[model.name, "PCA on orthologues"],
        color=["species", "cell_type"],
        return_fig=True,
    )
    figure.savefig(args.output, dpi=220)

    say(start, "Done")
    print(f"\n{table(rows, pd.DataFrame(twins), majority(shared))}\n")
    print(EXPLANATION.format(types=", ".join(sorted(set(shared.obs["cell_type"]))), n=args.seeds))
    print(f"Picture: {args.output}")


EXPLANATION = """\
Over the cell types that both species have ({types}).
Species mixing: entropy of species among neighbours within a cell type, 1 mixed, 0 apart.
Cell-type silhouette: 1 well apart, 0 not told apart. Accuracy and macro-F1: each cell of one
species is named by its 5 nearest cells of the other, without any training on these data.
Untrained: mean ± standard deviation of {n} random encoders. Majority: always the commonest type.
"""


def is_shared(adata: AnnData) -> np.ndarray:
    """Cells of a type that both species have."""
    types = [set(adata.obs.loc[adata.obs["species"] == name, "cell_type"]) for name in SPECIES]
    return adata.obs["cell_type"].isin(types[0] & types[1]).to_numpy()


def scores(adata: AnnData, key: str) -> dict[str, float]:
    """One row of the table, over the shared cell types."""
    cells = adata[is_shared(adata)]
    vectors, labels = cells.obsm[key], cells.obs["cell_type"].to_numpy(dtype=str)
    species = cells.obs["species"].to_numpy(dtype=str)
    row = [metrics.species_mixing(vectors, species, labels), metrics.silhouette(vectors, labels)]
    for source, target in (SPECIES, SPECIES[::-1]):
        known, asked = species == source, species == target
        predicted = metrics.knn_transfer(vectors[known], labels[known], vectors[asked])
        result = metrics.classification_scores(labels[asked], predicted)
        row += [result["accuracy"], result["macro_f1"]]
    return dict(zip(COLUMNS, row, strict=True))


def majority(cells: AnnData) -> dict[str, float]:
    """What naming every cell by the commonest type of its species would score."""
    row = [np.nan, np.nan]
    for target in SPECIES[::-1]:
        labels = cells.obs.loc[cells.obs["species"] == target, "cell_type"].to_numpy(dtype=str)
        names, sizes = np.unique(labels, return_counts=True)
        always = np.full(len(labels), names[sizes.argmax()])
        result = metrics.classification_scores(labels, always)
        row += [result["accuracy"], result["macro_f1"]]
    return dict(zip(COLUMNS, row, strict=True))


def table(rows: dict[str, dict], twins: pd.DataFrame, floor: dict[str, float]) -> str:
    """The rows as aligned text under two lines of headings."""
    lines = [["", *(name.split()[0] for name in COLUMNS)]]
    lines.append(["", *(name.split()[1] for name in COLUMNS)])
    lines += [[name, *(f"{row[c]:.2f}" for c in COLUMNS)] for name, row in rows.items()]
    if len(twins):
        spread = twins.std(ddof=0)
        cells = [f"{twins[c].mean():.2f} ± {spread[c]:.2f}" for c in COLUMNS]
        lines.append(["untrained encoder", *cells])
    lines.append(["majority class", *("" if np.isnan(v) else f"{v:.2f}" for v in floor.values())])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    return "\n".join([*text[:2], "-" * len(text[0]), *text[2:]])


def say(start: float, text: str) -> None:
    """One line of progress."""
    print(f"[{time.perf_counter() - start:5.1f} s] {text}", flush=True)


if __name__ == "__main__":
    main()
