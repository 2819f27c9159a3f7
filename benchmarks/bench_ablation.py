"""Which objective, vocabulary and size makes the best small model? One row for each recipe.

    SCMIX_DATA=... python benchmarks/bench_ablation.py --out runs/ablation --steps 100

Every recipe is trained on the same cells and judged, by nearest neighbours (k=5, cosine) on frozen
vectors, on development data that took no part in training: `DEVELOPMENT` below, whose families are
left out of the corpus together with the test and validation data of the bundled model. Test data is
not read. PCA-50, PCA on orthologues and untrained encoders are judged in the same run. A run that
was interrupted goes on: rows are appended to <out>/rows.csv as they come. ablation_curves.py draws
them.
"""

import argparse
import logging
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import scmix
from scmix.genes import Vocabulary
from scmix.pretrain import Corpus, build_corpus, train

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "scripts")]
import bench_zero_shot as zero_shot
from pretrain_mini import MIN_GENES, TEST, VALIDATION, _n_genes, _source

DEVELOPMENT = (
    "bone_marrow_cytosimplex",
    "lung_celllines_scmixology",
    "jaitin_spleen",
    "marques_oligo",
    "pancreas_e15_veloviz",
)
LEFT_OUT = ("jaitin_spleen", "marques_oligo", "pancreas_e15")  # starts of file names
PAIR = "FACS PBMC and spleen"
START: dict = {"steps": 1, "learning_rate": 1e-9}
MLM = {"objectives": {"mlm": 1.0}}
CONTRAST = {
    "objectives": {"mlm": 1.0, "subset_contrast": 1.0},
    "subset_contrast_negatives": "dataset",
}
RECIPES: dict[str, dict] = {
    "random start (no step)": {"init": "random", **START},
    "co-expression (no step)": START,
    "co-expression, ranks not weighed (no step)": {"init": "coexpression", **START},
    "mlm + simcse (scmix-mini)": {},
    "mlm": MLM,
    "mlm + subset contrast": CONTRAST,
    "wced": {"objectives": {"wced": 1.0}},
    "wced + mlm": {"objectives": {"wced": 1.0, "mlm": 1.0}},
    "poisson": {"objectives": {"poisson": 1.0}},
    "separate vocabulary": {"vocabulary": "separate"},
    "no species token": {"species_token_dropout": 1.0},
    "2 layers": {"num_hidden_layers": 2},
    "6 layers, 2,048 positions (as published)": {"num_hidden_layers": 6, "max_length": 2048},
    "random start (trained)": {"init": "random"},
}


def main() -> None:
    """Train and judge what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for corpora, runs and rows")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--recipes", help="comma-separated names; all by default")
    parser.add_argument("--max-cells", type=int, default=500, help="of a data set or side")
    args = parser.parse_args()
    if "SCMIX_DATA" not in os.environ:
        print("SCMIX_DATA is not set: it names the folder with data/. Nothing to do.")
        return
    folder = Path(os.environ["SCMIX_DATA"]) / "data"
    logging.getLogger("scmix").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    scmix.settings.progress = False
    rows = Rows(args.out / "rows.csv")
    for name, embedder in (("PCA-50", zero_shot.pca), ("PCA on orthologues", None)):
        if not rows.has(name, 0, 0):
            rows.add(name, 0, 0, judged(folder, embedder, args.max_cells))
    chosen = args.recipes.split(",") if args.recipes else list(RECIPES)
    for seed in range(args.seeds):
        for name in chosen:
            changes = {"steps": args.steps, **RECIPES[name], "seed": seed}
            if not rows.has(name, seed, changes["steps"]):
                model = trained(args.out, folder, name, changes)
                by_model = zero_shot.by_model(model)
                rows.add(name, seed, changes["steps"], judged(folder, by_model, args.max_cells))
    print(rows.markdown())


def trained(out: Path, folder: Path, name: str, changes: dict) -> scmix.checkpoints.Model:
    """The model of a recipe, trained now or before."""
    mode = changes.get("vocabulary", "shared")
    short = "".join(c if c.isalnum() else "-" for c in name)
    run = out / f"{short}-{changes['steps']}-{changes['seed']}"
    return scmix.models.load(
        train(corpus(out, folder, mode), run, "scmix-mini", checkpoint_every=50, **changes)
    )


def corpus(out: Path, folder: Path, mode: str) -> Corpus:
    """All cells but those of test, validation and development data, with their counts."""
    target = out / f"corpus-{mode}"
    if target.is_dir():
        return Corpus.open(target)
    files = [
        path
        for path in folder.glob("*.h5ad")
        if path.stem not in {*TEST, *VALIDATION} and not path.stem.startswith(LEFT_OUT)
    ]
    sizes = {path: _n_genes(path) for path in files}
    used = sorted((p for p in files if sizes[p] >= MIN_GENES), key=lambda p: (-sizes[p], p.name))
    sources = [_source(path) for path in used]
    vocabulary = Vocabulary.bundled(mode)
    return build_corpus(sources, target, vocabulary=vocabulary, n_genes=None, values=True)


def judged(folder: Path, embedder: zero_shot.Embedder | None, max_cells: int) -> dict[str, float]:
    """Macro-F1 within the development data and between the species, without embedder: PCA's."""
    across = {"it": embedder or zero_shot.orthologue_pca}
    scores: dict[str, float] = {}
    if embedder is not None:
        table = zero_shot.within(folder, {"it": embedder}, names=DEVELOPMENT, max_cells=max_cells)
        scores = dict(zip(table["data"], table["macro_f1"], strict=True))
    if embedder is not zero_shot.pca:
        pair = zero_shot.between(folder, across, pairs=[PAIR], max_cells=max_cells).iloc[0]
        scores |= {"human to mouse": pair["h2m_macro_f1"], "mouse to human": pair["m2h_macro_f1"]}
    return scores


class Rows:
    """Rows of the table, kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.table = pd.read_csv(path) if path.exists() else pd.DataFrame()

    def has(self, name: str, seed: int, steps: int) -> bool:
        if self.table.empty:
            return False
        found = self.table[["recipe", "seed", "steps"]] == [name, seed, steps]
        return bool(found.all(axis=1).any())

    def add(self, name: str, seed: int, steps: int, scores: dict[str, float]) -> None:
        row = pd.DataFrame([{"recipe": name, "seed": seed, "steps": steps, **scores}])
        self.table = pd.concat([self.table, row], ignore_index=True)
        partial = self.path.with_suffix(".part")
        self.table.to_csv(partial, index=False)
        partial.replace(self.path)

    def markdown(self) -> str:
        """Means over seeds, with the spread of the mean over data sets where there are several."""
        table = self.table.copy()
        table.insert(3, "mean", table[list(DEVELOPMENT)].mean(axis=1, skipna=False))
        between = table[["human to mouse", "mouse to human"]].mean(axis=1, skipna=False)
        table.insert(len(table.columns) - 2, "mean between", between)
        groups = table.groupby(["recipe", "steps"], sort=False)
        means = groups.mean(numeric_only=True).drop(columns="seed")
        means.insert(0, "seeds", groups.size())
        means.insert(2, "sd", groups["mean"].std())
        return zero_shot.markdown(means.replace({np.nan: ""}))


if __name__ == "__main__":
    main()
