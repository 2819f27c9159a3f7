"""Draw one picture of every plot of scmix, on the cells that ship with it, for the gallery.

`python scripts/draw_gallery.py` makes docs/gallery/*.png in about three minutes on two cores;
`--format pdf --out folder` makes files for print.
"""

import argparse
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # files are drawn, no window

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.figure import Figure

import scmix

DOCS = Path(__file__).parents[1] / "docs"
N_GROUPS = 8
FEWEST_CELLS = 15  # in which an affected gene has to be seen, with the perturbed one


def main() -> None:
    """Draw what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "gallery")
    parser.add_argument("--format", default="png", choices=("png", "pdf", "svg"))
    parser.add_argument("--only", nargs="*", default=list(PICTURES), choices=list(PICTURES))
    args = parser.parse_args()
    logging.getLogger("scmix").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*(names stand for|genes have several columns)")
    scmix.settings.progress = False
    args.out.mkdir(parents=True, exist_ok=True)
    for maker in dict.fromkeys(PICTURES[name] for name in args.only):
        for name, figure in maker().items():
            path = args.out / f"{name}.{args.format}"
            figure.savefig(path)
            print(f"{path} {path.stat().st_size / 1024:.0f} KB")


def embeddings() -> dict[str, Figure]:
    """Pancreas of both species in two embeddings."""
    adata = scmix.datasets.pancreas()
    scmix.tl.embed(adata, species_key="species")
    scmix.tl.orthologue_pca(adata, species_key="species")
    figure = scmix.pl.umap_compare(
        adata,
        ["X_scmix", "X_pca_orthologues"],
        color=["species", "cell_type"],
        titles=["scmix-mini", "PCA on orthologues"],
        numbers=True,
        return_fig=True,
    )
    return {"umap_compare": figure}


def labels() -> dict[str, Figure]:
    """Blood cells labelled by a classifier that has not seen B cells, and by neighbours."""
    reference, new = halves(scmix.datasets.pbmc3k())
    reference = reference[reference.obs["cell_type"] != "B"].copy()
    classifier = scmix.tl.fine_tune(
        reference, "cell_type", recipe="tuned", validation_share=0.3, epochs=2
    )
    scmix.tl.annotate(new, classifier, reject="distance", key_added="classifier")
    scmix.tl.transfer_labels(new, reference, "cell_type", key_added="neighbours")
    known = new[new.obs["cell_type"] != "B"]
    keys = ["classifier", "neighbours"]
    return {
        "confusion": scmix.pl.confusion(new, "cell_type", "classifier", return_fig=True),
        "confidence": scmix.pl.confidence(known, "cell_type", keys, n_bins=8, return_fig=True),
        "history": scmix.pl.history(classifier, return_fig=True),
    }


def halves(adata: AnnData, n_cells: int = 500) -> list[AnnData]:
    """Two random parts of so many cells."""
    order = np.random.default_rng(0).permutation(adata.n_obs)
    return [adata[order[i * n_cells : (i + 1) * n_cells]].copy() for i in (0, 1)]


def methods() -> dict[str, Figure]:
    """What simple methods reach on the same blood cells."""
    cells = halves(scmix.datasets.pbmc3k(), 400)[0]
    table = scmix.tl.evaluate(cells, "cell_type", others=(), seeds=[0, 1])
    return {"evaluation": scmix.pl.evaluation(table, return_fig=True)}


def perturbed() -> dict[str, Figure]:
    """Genes deleted from monocytes of one kind, and what that has to do with the other."""
    adata = monocytes()
    call = {"state_key": "cell_type", "start": "CD14+ Mono", "goal": "FCGR3A+ Mono", "n_genes": 255}
    scmix.tl.perturb(
        adata,
        donor_key="group",
        other_states=["NK", "B"],
        screen=15,
        n_sample=25,
        vectors_of=["LYZ", "FTL"],
        **call,
    )
    some = ["LYZ", "S100A8", "S100A9", "FCN1", "CST3", "TYROBP", "AIF1", "FTL", "FTH1"]
    call |= {"effects": "genes", "max_cells": 60, "test_states": False, "key_added": "on_genes"}
    scmix.tl.perturb(adata, some, **call)
    on_genes = adata.uns["on_genes"]
    on_genes["genes"] = on_genes["genes"].query("n_cells >= @FEWEST_CELLS")
    both = adata[adata.obs["cell_type"].isin(["CD14+ Mono", "FCGR3A+ Mono"])].copy()
    scmix.tl.embed(both, n_genes=255)
    layout(both)
    draw = {"adata": adata, "return_fig": True}
    return {
        "perturbation": scmix.pl.perturbation(n_genes=15, **draw),
        "perturbation_shift": scmix.pl.perturbation_shift(both, return_fig=True),
        "perturbation_heatmap": scmix.pl.perturbation_heatmap(n_genes=12, **draw),
        "perturbation_heatmap_genes": scmix.pl.perturbation_heatmap(
            by="genes", key="on_genes", n_genes=14, **draw
        ),
    }


def monocytes() -> AnnData:
    """Both kinds of monocytes, NK and B cells, dealt out to groups that stand for donors."""
    cells = scmix.datasets.pbmc3k()
    kinds = ["CD14+ Mono", "FCGR3A+ Mono", "NK", "B"]
    rows = [np.flatnonzero(cells.obs["cell_type"] == kind)[:80] for kind in kinds]
    adata = cells[np.concatenate(rows)].copy()
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.remove_unused_categories()
    adata.obs["group"] = pd.Categorical([f"group {i % N_GROUPS}" for i in range(adata.n_obs)])
    return adata


def layout(adata: AnnData) -> None:
    """A UMAP in obsm["X_umap"]."""
    import scanpy as sc

    sc.pp.neighbors(adata, use_rep="X_scmix", metric="cosine")
    sc.tl.umap(adata)


PICTURES: dict[str, Callable[[], dict[str, Figure]]] = {
    "umap_compare": embeddings,
    "confusion": labels,
    "confidence": labels,
    "history": labels,
    "evaluation": methods,
    "perturbation": perturbed,
    "perturbation_shift": perturbed,
    "perturbation_heatmap": perturbed,
}

if __name__ == "__main__":
    main()
