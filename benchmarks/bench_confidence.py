"""Whether confidence, conformal sets and "unknown" hold on donors and types never seen.

    SCMIX_DATA=... python benchmarks/bench_confidence.py --out confidence

Coverage: each donor or batch is left out in turn; a classifier is trained and calibrated on the
others (by whole donors) and labels it. Unknown: each cell type is left out in turn; the classifier
is trained and calibrated on half of the other cells and labels the other half and the type left
out. Two scores are compared for telling them apart: the distance to the nearest class mean and
1 - the largest probability. Writes <out>_coverage.csv and <out>_unknown.csv row by row, and
prints their means.

With `--epochs 0`, the default, the encoder stays as it is and the head is a regression, calibrated
by cross-validation, so vectors are computed once for each cell; with more (recipe "tuned", a part
of the cells set aside) the encoder is fine-tuned every time, which takes hours on a processor.
"""

import argparse
import hashlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

import scmix
from scmix import inference, statistics
from scmix.classifiers import CellClassifier

GROUPED = (
    "lung_celllines_scmixology",
    "kang_muscat_ctrl_stim",
    "kang_pbmc_ifnb",
    "kang_muscat_5donors",
)
TYPED = (
    "pbmc3k",
    "zeisel_cortex_sub",
    "baron_mouse1",
    "bone_marrow_cytosimplex",
    "zheng_facs_pbmc",
    "jaitin_spleen",
    "marques_oligo",
    "sie_haber_scdesign2",
)
ALPHA = 0.1
FEWEST_CELLS = 12  # of a type, so that each part of the data has some
MOST_GROUPS, MOST_TYPES = 5, 6


def coverage(adata: ad.AnnData, seed: int, **training: Any) -> Iterator[dict[str, Any]]:
    """A row for each group of cells left out; `groups` of `obs` names them."""
    for group in adata.obs["groups"].cat.categories:
        test = (adata.obs["groups"] == group).to_numpy()
        known = set(adata.obs["cell_type"][~test])
        new = adata[test & adata.obs["cell_type"].isin(known).to_numpy()].copy()
        classifier = scmix.tl.fine_tune(
            adata[~test], "cell_type", groups="groups", seed=seed, **training
        )
        scmix.tl.annotate(new, classifier, reject="distance", alpha=ALPHA, on_duplicate="sum")
        yield {"group": group, "seed": seed, **held_out_scores(new, classifier)}


def held_out_scores(new: ad.AnnData, classifier: CellClassifier) -> dict[str, Any]:
    """How labels, confidence and sets do on cells of known types."""
    kept = classifier.calibration["cell_type"]
    chances = new.obsm["scmix_label_probabilities"].astype(float)
    classes = list(classifier.classes["cell_type"])
    true = np.array([classes.index(name) for name in new.obs["cell_type"].astype(str)])
    right = chances.argmax(axis=1) == true
    raw = statistics.probabilities(np.log(chances), 1 / kept.temperature)
    scores = {
        "n_cells": len(true),
        "n_calibration": kept.n_cells,
        "temperature": kept.temperature,
        "accuracy": right.mean(),
        "ece": statistics.expected_calibration_error(chances, true),
        "ece_uncalibrated": statistics.expected_calibration_error(raw, true),
        "brier": statistics.brier_score(chances, true),
        "aurc": statistics.aurc(chances.max(axis=1), right),
        "far": (new.obs["scmix_label"] == "unknown").mean(),
    }
    for method in ("lac", "aps"):
        threshold = statistics.conformal_threshold(kept.probabilities, kept.labels, ALPHA, method)
        sets = statistics.conformal_sets(chances, threshold, method)
        scores[f"coverage_{method}"] = statistics.coverage(sets, true)
        scores[f"size_{method}"] = sets.sum(axis=1).mean()
        if method == "lac":
            scores["empty"] = (~sets.any(axis=1)).mean()
    return scores


def unknown(adata: ad.AnnData, seed: int, **training: Any) -> Iterator[dict[str, Any]]:
    """A row for each cell type left out."""
    train = np.random.default_rng(seed).permutation(adata.n_obs) < adata.n_obs // 2
    names = adata.obs["cell_type"].value_counts().index
    for name in names[:MOST_TYPES]:
        strange = (adata.obs["cell_type"] == name).to_numpy()
        classifier = scmix.tl.fine_tune(adata[train & ~strange], "cell_type", seed=seed, **training)
        new = adata[~train | strange].copy()
        scmix.tl.annotate(new, classifier, reject="distance", alpha=ALPHA, on_duplicate="sum")
        outside = (new.obs["cell_type"] == name).to_numpy()
        row = {"left_out": name, "n_unknown": outside.sum(), "n_known": (~outside).sum()}
        scores = {
            "distance": new.obs["scmix_label_distance"].to_numpy(),
            "softmax": 1 - new.obs["scmix_label_confidence"].to_numpy(),
        }
        for score, values in scores.items():
            found = statistics.unknown_detection(values[~outside], values[outside])
            row |= {f"auroc_{score}": found.auroc, f"fpr95_{score}": found.fpr_at_95_tpr}
        yield {**row, "seed": seed}


@contextmanager
def vectors_kept() -> Iterator[None]:
    """Remember the vector that each encoder gives a cell, as long as no encoder is trained."""
    compute, kept = inference.run, {}

    def run(encoder: Any, sequences: Any, **options: Any) -> np.ndarray:
        some = encoder.bert.embeddings.word_embeddings.weight[:100].detach().cpu().numpy()
        reading = f"{options.get('pool')} {options.get('layer')}"
        mark = hashlib.sha256(some.tobytes() + reading.encode())
        keys = [_marked(mark, cell) for cell in sequences]
        missing = [row for row, key in enumerate(keys) if key not in kept]
        if missing:
            found = compute(encoder, sequences[np.array(missing)], **options)
            kept.update({keys[row]: vector for row, vector in zip(missing, found, strict=True)})
        if not keys:
            return compute(encoder, sequences, **options)
        return np.stack([kept[key] for key in keys])

    inference.run = run
    try:
        yield
    finally:
        inference.run = compute


def _marked(mark: Any, cell: np.ndarray) -> bytes:
    key = mark.copy()
    key.update(cell.tobytes())
    return key.digest()


def load(folder: Path, name: str, max_cells: int) -> ad.AnnData:
    """Labelled cells at random, of types with enough of them; donors or batches as `groups`."""
    adata = ad.read_h5ad(folder / f"{name}.h5ad")
    adata = adata[(adata.obs["cell_type"] != "unlabeled").to_numpy()]
    rng = np.random.default_rng(0)
    order = rng.permutation(adata.n_obs)
    labels = adata.obs["cell_type"].iloc[order].astype(str)
    rank = labels.groupby(labels.to_numpy()).cumcount().to_numpy()
    order = order[rank < max_cells // 3][:max_cells]  # no type has most of the cells
    adata = adata[np.sort(order)]
    sizes = adata.obs["cell_type"].value_counts()
    kept = adata.obs["cell_type"].isin(sizes.index[sizes >= FEWEST_CELLS])
    adata = adata[kept.to_numpy()].copy()
    donors = adata.obs["donor" if "donor" in adata.obs else "batch"].astype(str)
    groups = pd.Series(pd.factorize(donors, sort=True)[0] % MOST_GROUPS)
    adata.obs["groups"] = pd.Categorical(groups.astype(str).to_numpy())
    return adata


def say(row: dict[str, Any]) -> None:
    shown = {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()}
    print("  ".join(f"{key}={value}" for key, value in shown.items()), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="scmix-mini", help="name or folder")
    parser.add_argument("--grouped", default=",".join(GROUPED), help="data sets for coverage")
    parser.add_argument("--typed", default=",".join(TYPED), help="data sets for unknown types")
    parser.add_argument("--max-cells", type=int, default=600, help="of a data set")
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", default="confidence", help="start of the names of the csv files")
    args = parser.parse_args(arguments)
    if "SCMIX_DATA" not in os.environ:
        print("SCMIX_DATA is not set: it names the folder with data/. Nothing to do.")
        return
    folder = Path(os.environ["SCMIX_DATA"]) / "data"
    logging.getLogger("scmix").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    scmix.settings.progress = False
    training = {
        "model": scmix.models.load(args.model),
        "on_duplicate": "sum",
    }
    if args.epochs:
        training |= {"recipe": "tuned", "epochs": args.epochs, "validation_share": 0.3}
    for kind, names, rows_of in (
        ("coverage", args.grouped, coverage),
        ("unknown", args.typed, unknown),
    ):
        rows: list[dict[str, Any]] = []
        for name in filter(None, names.split(",")):
            adata = load(folder, name, args.max_cells)
            keeping = vectors_kept() if args.epochs == 0 else nullcontext()
            with keeping:
                for seed in range(args.seeds):
                    for row in rows_of(adata, seed, **training):
                        rows.append({"data": name, **row})
                        say(rows[-1])
                        pd.DataFrame(rows).to_csv(f"{args.out}_{kind}.csv", index=False)
        if rows:
            means = pd.DataFrame(rows).groupby("data", sort=False).mean(numeric_only=True)
            print(f"\n{kind}, means over what was left out\n{means.round(3).to_string()}\n")


if __name__ == "__main__":
    main()
