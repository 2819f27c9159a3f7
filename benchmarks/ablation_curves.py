"""Draw the runs of bench_ablation.py: losses in training, and scores beside the baselines.

    python benchmarks/ablation_curves.py runs/ablation docs/results/ablation.png

Reads `rows.csv` and the histories of the runs in the folder. Losses are unweighted means over ten
steps on the cells of these steps; runs of one seed see the same cells as long as their batches are
alike. Prints the losses as a table too.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from scmix.pl._colors import category_colors
from scmix.pl._style import PAGE, RULE, THIN, styled, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSSES = ("mlm", "simcse", "subset_contrast", "wced", "poisson_excess")
SPECIES = ["human to mouse", "mouse to human"]
NOT_SCORES = ["recipe", "seed", "steps", *SPECIES]


def main() -> None:
    """Print the losses and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="--out of bench_ablation.py")
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    rows = pd.read_csv(args.folder / "rows.csv")
    losses = histories(args.folder, rows)
    print(losses.round(3).to_markdown(index=False))
    draw(losses, means(rows), args.picture)


def folder_of(row: pd.Series) -> str:
    """Name of a run's folder, as bench_ablation.py makes it."""
    short = "".join(c if c.isalnum() else "-" for c in row["recipe"])
    return f"{short}-{row['steps']}-{row['seed']}"


def histories(folder: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Losses of all runs: recipe, seed, step, and a column for each loss."""
    found = []
    for _, row in rows.iterrows():
        path = folder / folder_of(row) / "history.jsonl"
        if not path.exists() or row["steps"] == 1:
            continue
        for line in path.read_text("utf-8").splitlines():
            record = json.loads(line)
            if record["kind"] == "train":
                losses = {name: record[name] for name in LOSSES if name in record}
                found.append({**row[["recipe", "seed"]], "step": record["step"], **losses})
    return pd.DataFrame(found)


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """For each recipe, means over seeds: of the data sets, and of the two directions."""
    within = [name for name in rows if name not in NOT_SCORES]
    table = rows.assign(
        within=rows[within].mean(axis=1, skipna=False),
        between=rows[SPECIES].mean(axis=1, skipna=False),
    )
    return table.groupby("recipe", sort=False)[["within", "between"]].mean()


def draw(losses: pd.DataFrame, scores: pd.DataFrame, picture: Path) -> None:
    """Left: loss of masked genes; right: scores, with those of PCA as lines."""
    with styled():
        figure, (left, right) = subplots(1, 2, PAGE, 2.8)
        draw_losses(left, losses[losses["mlm"].notna()])
        draw_scores(right, scores)
        figure.savefig(picture, bbox_inches="tight")


def draw_losses(axes: "Axes", losses: pd.DataFrame) -> None:
    names = losses["recipe"].unique()
    colors = category_colors(list(names))
    for name, mine in losses.groupby("recipe", sort=False):
        curve = mine.groupby("step")["mlm"].mean()
        axes.plot(curve.index, curve, marker="o", markersize=3, color=colors[name], label=name)
    axes.set(xlabel="step", ylabel="loss at masked genes (nats)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncol=2, fontsize=6)
    axes.spines[["top", "right"]].set_visible(False)


def draw_scores(axes: "Axes", scores: pd.DataFrame) -> None:
    trained = scores.drop(index=["PCA-50", "PCA on orthologues"])[::-1]
    colors = category_colors(["within", "between"])
    lines = {"within": "PCA-50", "between": "PCA on orthologues"}
    labels = {"within": "within data sets", "between": "between species"}
    for kind, marker in (("within", "o"), ("between", "s")):
        axes.plot(
            trained[kind],
            range(len(trained)),
            marker,
            color=colors[kind],
            label=labels[kind],
            markersize=4,
        )
        bar = scores.loc[lines[kind], kind]
        axes.axvline(bar, color=colors[kind], linewidth=THIN, linestyle="--", label=lines[kind])
    axes.set_yticks(range(len(trained)), list(trained.index))
    axes.set(xlabel="macro-F1", xlim=(0, 1))
    axes.grid(axis="y", color=RULE, linewidth=THIN)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.2), ncol=2, fontsize=6)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
