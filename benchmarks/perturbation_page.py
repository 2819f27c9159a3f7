"""The page of results of perturbation, from the tables that two benchmarks saved.

    python benchmarks/perturbation_page.py --results drivers --out docs/results/perturbation.md

<results> is the folder of bench_drivers.py; nulls_null.csv and nulls_drivers.csv of bench_nulls.py
lie there, too.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

SEED, FEWEST_CELLS = 0, 10
INTERFERON = (
    *("ISG15", "IFI6", "IFIT1", "IFIT2", "IFIT3", "MX1", "MX2", "OAS1", "OAS2", "OAS3", "OASL"),
    *("IRF7", "IRF9", "STAT1", "STAT2", "ISG20", "IFITM1", "IFITM2", "IFITM3", "RSAD2", "LY6E"),
    *("IFI44L", "IFI44", "HERC5", "XAF1", "EIF2AK2", "DDX58", "BST2", "TNFSF10", "IFI35"),
    *("PLSCR1", "SAMD9", "SAMD9L", "UBE2L6", "CXCL10", "IFI16", "PARP14", "GBP1", "TRIM22"),
)


def mean_effects(table: pd.DataFrame) -> pd.DataFrame:
    """Mean effect and number of cells by token, for genes in enough cells."""
    found = table.groupby("token")["effect"].agg(effect="mean", n_cells="size")
    return found[found["n_cells"] >= FEWEST_CELLS]


def interval(
    table: pd.DataFrame, score: Callable[[pd.DataFrame], float], n: int = 500
) -> tuple[float, float, float]:
    """A score of a table with its 95 % interval over resampled rows."""
    rng = np.random.default_rng(SEED)
    values = [score(table.iloc[rng.integers(len(table), size=len(table))]) for _ in range(n)]
    return (score(table), *np.nanquantile(values, [0.025, 0.975]))


def knockout_rank(out: Path) -> pd.DataFrame:
    """Place of Trem2 among all genes by each ranking; the interval is over resampled cells."""
    screen, genes = pd.read_csv(out / "screen.csv"), pd.read_csv(out / "genes.csv")
    token = int(genes.loc[genes["symbol"] == "Trem2", "token"].iloc[0])
    genes = genes.set_index("token").reindex(mean_effects(screen).index)
    matrix = screen.pivot(index="cell", columns="token", values="effect")[genes.index]
    rng, places = np.random.default_rng(SEED), []
    for _ in range(300):
        drawn = matrix.iloc[rng.integers(len(matrix), size=len(matrix))].mean()
        places.append(int((drawn > drawn[token]).sum()) + 1)
    rows = [("effect (estimate)", place(mean_effects(screen)["effect"], token))]
    rows += [
        ("abs. log fold change", place(genes["log_change"].abs(), token)),
        ("log fold change down", place(-genes["log_change"], token)),
        ("detection", place(genes["detection"], token)),
        ("mean expression", place(genes["mean"], token)),
    ]
    table = pd.DataFrame(rows, columns=["ranking", "place of Trem2"])
    table["of genes"] = len(genes)
    ends = np.quantile(places, [0.025, 0.975]).astype(int)
    table["95 % interval"] = [f"{ends[0]} to {ends[1]}"] + [""] * (len(table) - 1)
    return table


def share_below(table: pd.DataFrame) -> str:
    """Share of the genes that Trem2 comes before by its effect."""
    first = table.iloc[0]
    return f"{1 - first['place of Trem2'] / first['of genes']:.0%}"


def place(values: pd.Series, token: int) -> int:
    """Place of a gene, 1 for the largest value."""
    return int((values > values[token]).sum()) + 1


def screen_agreement(out: Path) -> tuple[float, int]:
    """Rank correlation of estimate and exact over the random sample, and its size."""
    screen, exact = pd.read_csv(out / "screen.csv"), pd.read_csv(out / "exact.csv")
    both = screen.merge(exact, on=["cell", "token"])
    means = both.groupby("token")[["effect_x", "effect_y"]].mean()
    return float(spearmanr(means["effect_x"], means["effect_y"]).statistic), len(means)


def knockout_genes(out: Path) -> pd.DataFrame:
    """Agreement of predictions with the measured change, over genes of both conditions."""
    genes, pairs = pd.read_csv(out / "genes.csv"), pd.read_csv(out / "pairs.csv")
    correlated = pd.read_csv(out / "correlation.csv").set_index("symbol")["correlation"]
    token = int(genes.loc[genes["symbol"] == "Trem2", "token"].iloc[0])
    genes = genes[(genes["detection"] > 0.05) & (genes["detection_goal"] > 0.05)]
    own = pairs[(pairs["token"] == token) & (pairs["n_cells"] >= FEWEST_CELLS)]
    table = genes.merge(own, left_on="token", right_on="affected")
    table["others"] = table["affected"].map(
        pairs[pairs["token"] != token].groupby("affected")["moved"].mean()
    )
    table["change"] = table["log_change"].abs()
    table["correlation"] = table["symbol"].map(correlated).abs()
    table = table.dropna(subset=["others"])
    scores = {
        "moved by deleting Trem2": table["moved"],
        "moved by deleting four like genes": table["others"],
        "moved by Trem2 beyond the like genes": table["moved"] / table["others"],
        "correlation with Trem2 in WT cells": table["correlation"],
        "mean expression": table["mean"],
        "random": pd.Series(np.random.default_rng(SEED).random(len(table)), table.index),
    }
    rows = []
    for name, values in scores.items():
        scored = table.assign(score=values)
        middle, low, high = interval(scored, lambda t: spearmanr(t["score"], t["change"]).statistic)
        top = min(50, len(scored) // 5)
        shared = set(scored.nlargest(top, "score").index) & set(
            scored.nlargest(top, "change").index
        )
        rows.append((name, f"{middle:.3f} ({low:.3f} to {high:.3f})", f"{len(shared)} of {top}"))
    columns = ["prediction", "Spearman with abs. log fold change", "shared among the top"]
    made = pd.DataFrame(rows, columns=columns)
    made.attrs["n_genes"] = len(table)
    made.attrs["by_chance"] = top**2 / len(table)
    return made


def interferon_scores(out: Path) -> pd.DataFrame:
    """How well interferon-response genes stand out, with intervals over resampled genes."""
    effects, genes = pd.read_csv(out / "interferon.csv"), pd.read_csv(out / "interferon_genes.csv")
    table = mean_effects(effects).join(genes.set_index("token"))
    table["is_response"] = table["symbol"].isin(INTERFERON)
    table["random"] = np.random.default_rng(SEED).random(len(table))
    table["change"] = table["log_change"].abs()
    scores = {
        "effect of overexpression": "effect",
        "detection in untreated cells": "detection",
        "mean expression in untreated cells": "mean",
        "random": "random",
        "abs. log fold change (sees the treated cells)": "change",
    }
    rows = []
    for name, column in scores.items():
        row = [name]
        for metric in (roc_auc_score, average_precision_score):
            found = interval(table, lambda t, m=metric, c=column: m(t["is_response"], t[c]))
            row.append("{:.3f} ({:.3f} to {:.3f})".format(*found))
        rows.append(row)
    made = pd.DataFrame(rows, columns=["ranking", "AUROC", "AUPRC"])
    made.attrs["n"] = (int(table["is_response"].sum()), int((~table["is_response"]).sum()))
    made.attrs["top"] = table.nlargest(10, "effect")["symbol"].to_list()
    return made


def markdown(table: pd.DataFrame) -> str:
    """Markdown of a table, numbers with three digits."""
    lines = [list(table.columns), ["---"] * table.shape[1]]
    for row in table.itertuples(index=False):
        lines.append([f"{value:.3f}" if isinstance(value, float) else str(value) for value in row])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(out: Path) -> str:
    """The page, from what is saved."""
    agreement, n_checked = screen_agreement(out)
    genes, response, rank = knockout_genes(out), interferon_scores(out), knockout_rank(out)
    parts = [
        INTRODUCTION.format(
            model=(out / "model.txt").read_text().strip(),
            place=rank["place of Trem2"].iloc[0],
            n_genes=rank["of genes"].iloc[0],
            auroc=response["AUROC"].iloc[0],
        ),
        KNOCKOUT.format(
            rank=markdown(rank),
            above=share_below(rank),
            agreement=f"{agreement:.2f}",
            n_checked=n_checked,
            genes=markdown(genes),
            n_genes=genes.attrs["n_genes"],
            by_chance=f"{genes.attrs['by_chance']:.1f}",
        ),
        *fine_tuned_part(out / "fine_tuned"),
        RESPONSE.format(
            table=markdown(response),
            n_response=response.attrs["n"][0],
            n_others=response.attrs["n"][1],
            top=", ".join(response.attrs["top"]),
        ),
    ]
    null, drivers = out / "nulls_null.csv", out / "nulls_drivers.csv"
    if null.exists() and drivers.exists():
        parts.insert(
            1,
            SIMULATION.format(
                null=markdown(pd.read_csv(null)), drivers=markdown(pd.read_csv(drivers))
            ),
        )
    return "\n".join(parts)


def fine_tuned_part(folder: Path) -> list[str]:
    """The part on the fine-tuned encoder, when its tables are complete."""
    if not (folder / "correlation.csv").exists():
        return []
    return [
        FINE_TUNED.format(
            rank=markdown(knockout_rank(folder)),
            above=share_below(knockout_rank(folder)),
            genes=markdown(knockout_genes(folder)),
        )
    ]


INTRODUCTION = """# Perturbation: what comes out

Written by `benchmarks/perturbation_page.py`; numbers in parentheses are 95 % intervals. Model:
{model}.

```text
python benchmarks/bench_nulls.py --sets 60 --out drivers/nulls
SCMIX_DATA=... python benchmarks/bench_drivers.py --out drivers --fine-tune
python benchmarks/perturbation_page.py --results drivers --out docs/results/perturbation.md
```

In short: where there is nothing to find, the tests of scmix together call next to nothing, the
published one most genes. Of a real knock-out, the gene that was knocked out is at place {place} of
{n_genes} of its list. Genes of the interferon response are told from others with an AUROC of
{auroc}, where 0.5 is chance.
"""

SIMULATION = """## When there is nothing to find, and when there is

Simulated counts of eight donors (four per state) and 300 genes, and a simulated encoder
(`benchmarks/bench_nulls.py` says how). The first table has worlds in which no gene should be
called: the goal is a random half of each donor's cells, or a random half of the donors, or the
states do differ but the encoder knows no gene that drives them. Columns: share of genes with
p <= 0.05 (± 1.96 standard errors over data sets), share with an adjusted p <= 0.05, share of data
sets with any call. In brackets: variants of the first test that scmix does not use.

{null}

In the idle world the states are real, so shuffling them does not protect against genes that
move cells along the real direction by accident; that is what matched genes are for. Matching alone
calls the outliers that any set of genes has. Both together are what a hit needs.

Second: area under the precision-recall curve for 15 drivers among 300 genes, of which 40 others
change with the state, by how much the encoder knows of the drivers. 0.05 is chance.

{drivers}

This shows that the statistics find what the encoder knows and nothing where it knows nothing. It
does not show that any trained model knows drivers.
"""

KNOCKOUT = """## Knock-out of Trem2 in microglia

Cuprizone-treated mice, 12 weeks (Nugent et al. 2020): 622 wild-type and 748 knock-out cells of one
sample each. With one donor per state there is no test; intervals are over resampled cells or
genes of these samples and say nothing about other mice. The model was not fine-tuned on the states;
the cells took part in its pretraining, without their labels. Knock-out cells still have transcripts
of Trem2, fewer of them.

Place of Trem2 among the genes seen in at least ten of 60 wild-type cells, by the estimated shift
towards knock-out cells when it is deleted (the deleted gene itself is left out of what is
compared). Rank correlation of estimate and exact effect over {n_checked} genes (Trem2, the ten
highest, and random ones): {agreement}.

{rank}

By its effect Trem2 comes before {above} of the genes; chance would be half of them, and a list of
drivers would have to show it among the first few.

Do the genes whose own vectors move when Trem2 is deleted from wild-type cells change in the
knock-out? Over {n_genes} genes detected in more than 5 % of the cells of both conditions; by
chance, {by_chance} would be shared among the top.

{genes}
"""

FINE_TUNED = """### After fine-tuning on the states

The encoder learned to tell wild type from knock-out on a random half of the cells, from which the
counts of Trem2 were taken out, and was asked about the other half: what it says of Trem2 it has
from other genes and from pretraining. Both halves are of the same two samples, so this is no test
on other mice.

{rank}

By its effect Trem2 comes before {above} of the genes.

{genes}
"""

RESPONSE = """## Interferon in monocytes

CD14+ monocytes of two donors, untreated and after interferon-beta (Kang et al. 2018; 1,267
pre-selected genes). {n_response} genes of the interferon response and {n_others} others that are
detected about as often in untreated cells were each put first in 16 untreated cells; the effect is
the shift towards treated cells. Two donors: no test. The cells took part in pretraining, without
their labels.

{table}

Highest effects: {top}.

The log fold change sees the treated cells gene by gene and is the answer key rather than a
competitor. Detection in untreated cells was matched because it alone tells genes of the response
from genes drawn at random (they are rare without interferon: an AUROC of about 0.85 for rarity).
"""


def main(arguments: list[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="folder of saved tables")
    parser.add_argument("--out", type=Path, required=True, help="the page")
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page(options.results), encoding="utf-8")


if __name__ == "__main__":
    main()
