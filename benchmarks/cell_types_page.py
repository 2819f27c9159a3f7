"""The page of `bench_cell_types.py`: what ran, the tables, and the paper's own figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scmix import metrics

REFERENCE = ("3,000 genes", "logistic regression")
PAPER = """\
## What the paper reports

Figures of the Mix-Geneformer paper (Tables 1 and 3), **theirs, not measured here**: accuracy in per
cent on other data (nine mouse and nine human organs, random 80:20 split of cells, best epoch chosen
on the test part, one seed). They cannot be compared with the numbers above, only read beside them.

| mean over organs | Geneformer of that species | Mix-Geneformer | without contrast |
|---|---|---|---|
| mouse, fine-tuned | 97.00 | 97.22 | 96.56 |
| mouse, zero-shot | 87.19 | 84.92 | 88.52 |
| human, fine-tuned | 94.56 | 93.52 | 92.21 |
| human, zero-shot | 58.06 | 54.43 | 55.13 |

Their "zero-shot" is a vote of five neighbours among labelled cells of the same data set, on the
output of a pooler; no majority rate and no simple method stands beside it. The paper has no table
of labels transferred between species.
"""
# Data sets that the settings of classifiers were chosen on.
CHOSEN_ON = (
    "zheng_facs_pbmc",
    "jaitin_spleen",
    "marques_oligo",
    "bone_marrow_cytosimplex",
    "sie_haber_scdesign2",
    "lung_celllines_scmixology",
    "FACS PBMC and spleen",
)


def write_page(
    file: Path, rows: Any, names: dict[str, str], held_out: dict[str, str], model: Any,
    versions: dict[str, str], note: str = "",
) -> None:  # fmt: skip
    """Markdown of all rows that are there for the model.

    Parameters
    ----------
    file
        Where to.
    rows
        `Rows` of the benchmark.
    names
        Title of each data set.
    held_out
        Data sets that took no part in training the bundled model.
    model
        Whose rows to take; rows without a model count for all.
    versions
        Packages.
    note
        What else a reader has to know of the runs.
    """
    table = rows.table()
    table = table[table["model_sha256"].isin(["", model.sha256])]
    parts, glance, leads, free = [], [], {}, []
    for data in [name for name in names if name in set(table["data"])]:
        part = table[table["data"] == data]
        seen = held_out.get(data, "")
        for split, chosen in part.groupby("split", sort=False):
            # the cells of the latest call, should there be several sizes
            chosen = chosen[chosen["cells"] == chosen["cells"].iloc[-1]]
            glance.append(_glance(names[data], str(split), chosen, model))
            if lead := _tuned_lead(chosen, rows, model):
                leads[f"{names[data]}: {split}"] = lead
                free += [] if data in CHOSEN_ON else [lead[0]]
            text = _section(names[data], str(split), chosen, rows, _about(data, seen, model))
            parts.append(text + _not_run(chosen, model) + "\n")
    parts = [_head(model, versions, note), _summary(glance), _verdict(leads, free), *parts, PAPER]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(parts), encoding="utf-8")


def _head(model: Any, versions: dict[str, str], note: str) -> str:
    shown = ", ".join(f"{name} {number}" for name, number in versions.items())
    return f"""\
# Cell types, beside simple methods

Made by `benchmarks/bench_cell_types.py`; run it again to check or to extend a row. Model:
`{model.name}`, sha256 `{model.sha256}`. {shown}.

Every method of a section was fitted on the same training cells and asked about the same test cells.
Macro-F1 is the headline: the mean over seeds, ± the standard deviation over seeds, and a 95 %
interval by drawing donors or batches again with all their cells (cells where there are none; such
an interval does not say what to expect of another donor). *Lead* is macro-F1 minus that of logistic
regression on 3,000 highly variable genes, of the same seeds, with its paired interval; **bold**
where the interval lies above zero. A row with fewer seeds than the others is compared on its seeds
alone; *any* stands where no seed changes anything. Donors are few: their intervals are too narrow.
Data sets were cut to a random sample of the size shown. Each section names the row with the highest
mean among those with all seeds; where that is no row of scmix, a simple method did better.
*Fine-tuned* is `scmix.tl.fine_tune` as it is called by default: the encoder stays as it is, and two
regressions, on its vectors and on the genes of a cell, make the classifier. {note}
"""


def _summary(sections: list[dict[str, str]]) -> str:
    """Macro-F1 of the rows that matter, a line for each section; a dash where a row was not run."""
    columns = list(dict.fromkeys(name for section in sections for name in section))
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(s.get(name, '–') for name in columns)} |" for s in sections]
    return "## Macro-F1 at a glance\n\n" + "\n".join(lines) + "\n"


def _glance(title: str, split: str, part: pd.DataFrame, model: Any) -> dict[str, str]:
    shown = {
        "PCA, kNN": ("PCA-50", "kNN"),
        "PCA, logistic": ("PCA-50", "logistic regression"),
        "PCA of orthologues, kNN": ("PCA of orthologues", "kNN"),
        "genes, logistic": REFERENCE,
        "untrained, logistic": ("untrained encoder", "logistic regression"),
        "scmix, kNN": (model.name, "kNN"),
        "scmix, logistic": (model.name, "logistic regression"),
        "scmix, fine-tuned": (f"{model.name}, fine-tuned", "classifier"),
    }
    means = part.groupby(["representation", "classifier"])["macro_f1"].mean()
    cells = {name: f"{means[key]:.3f}" if key in means else "–" for name, key in shown.items()}
    return {"": f"{title}: {split}"} | cells


def _tuned_lead(part: pd.DataFrame, rows: Any, model: Any) -> tuple[float, float, float] | None:
    """Lead of the fine-tuned classifier and its interval, on the seeds that both have."""
    seeds = sorted(set(map(int, part["seed"])))
    methods = dict(iter(part.groupby(["representation", "classifier"])))
    tuned = methods.get((f"{model.name}, fine-tuned", "classifier"))
    if tuned is None or REFERENCE not in methods:
        return None
    return _lead(_read(tuned, seeds, rows), _read(methods[REFERENCE], seeds, rows))


def _verdict(leads: dict[str, tuple[float, float, float]], free: list[float]) -> str:
    """Where the fine-tuned classifier is ahead of regression on genes, and where behind."""
    if not leads:
        return ""
    groups: dict[str, list[str]] = {"Ahead": [], "Behind": [], "Neither": []}
    for name, (mean, low, high) in leads.items():
        side = "Ahead" if low > 0 else "Behind" if high < 0 else "Neither"
        groups[side].append(f"{name} ({mean:+.3f}, {low:+.3f} to {high:+.3f})")
    mean = np.mean([lead for lead, _, _ in leads.values()])
    lines = ["## Fine-tuned, beside logistic regression on genes", ""]
    lines.append(
        f"Mean lead in macro-F1 over {len(leads)} sections: {mean:+.3f}. Settings were chosen on "
        "sorted PBMC, spleen, oligodendrocytes, bone marrow, intestine, lung cell lines, the pair "
        "of sorted PBMC and spleen, and seven tasks that are not in this table, so these leads "
        f"flatter scmix. On the other {len(free)} sections no setting was chosen; the mean lead is "
        f"{np.mean(free or [np.nan]):+.3f} (two of them hold the spleen, one of the former). "
        "That an earlier version was behind on deep cells there is why all genes are read now."
    )
    where = {
        "Ahead": "interval above zero",
        "Behind": "interval below zero",
        "Neither": "zero within the interval",
    }
    lines += ["", *(f"- {k}, {where[k]}: {'; '.join(v) or 'nowhere'}." for k, v in groups.items())]
    return "\n".join(lines) + "\n"


def _not_run(part: pd.DataFrame, model: Any) -> str:
    there = set(part["representation"]) | set(part["classifier"])
    wanted = ["untrained encoder", model.name, f"{model.name}, fine-tuned",
              "CellTypist", "SingleR", "scANVI"]  # fmt: skip
    lacking = [name for name in wanted if name not in there]
    return f" Not run: {', '.join(lacking)}." if lacking else ""


def _about(data: str, seen: str, model: Any) -> str:
    """What the model saw of a data set."""
    if seen:
        return f"held out of all training and tuning of the model ({seen})"
    if any(data in str(item) for item in model.manifest.get("training_data", [])):
        return "the model was trained on these cells, without their labels"
    return "not among the training data of the model"


def _section(title: str, split: str, part: pd.DataFrame, rows: Any, known: str) -> str:
    first = part.iloc[0]
    about = f"`{first['data']}`: {first['n_test']:,} test cells, {first['n_types']} types; "
    about += "types that both species have. " if " to " in split else f"{known}. "
    lines = [f"## {title}: {split}", "", about + f"Intervals over {first['unit']}.", ""]
    lines += ["| | macro-F1 | 95 % | accuracy | ECE | lead | 95 % | seeds |", "|---" * 8 + "|"]
    seeds = sorted(set(map(int, part["seed"])))
    methods = part.groupby(["representation", "classifier"], sort=False)
    found = {name: _read(chosen, seeds, rows) for name, chosen in methods}
    for (representation, classifier), chosen in methods:
        cells = _cells(chosen, found[(representation, classifier)], found.get(REFERENCE))
        name = classifier if representation in ("none", "genes") else (
            f"{representation} · {classifier}"
        )  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    truth = next(iter(next(iter(found.values())).values()))["truth"]
    share = np.bincount(truth).max() / truth.size
    complete = [name for name in found if set(found[name]) == set(seeds)]
    best = " · ".join(methods["macro_f1"].mean().loc[complete].idxmax())
    end = f"Highest of those with all seeds: {best}. "
    end += f"Share of the largest type among test cells: {share:.3f}."
    return "\n".join([*lines, "", end])


def _read(part: pd.DataFrame, seeds: list[int], rows: Any) -> dict[int, dict[str, np.ndarray]]:
    """Predictions of each seed; the same for all where no seed changes them."""
    found = {
        int(seed): dict(np.load(rows.predictions(key)))
        for seed, key in zip(part["seed"], part["key"], strict=True)
    }
    if part["fixed"].iloc[0] and not part["seeded"].iloc[0]:
        return dict.fromkeys(seeds, next(iter(found.values())))
    return found


def _cells(part: pd.DataFrame, found: dict, reference: dict | None) -> list[str]:
    draws = _draws(found, list(found))
    spread = part["macro_f1"].std() if len(part) > 1 else float("nan")
    low, high = np.quantile(draws, [0.025, 0.975])
    cells = [
        f"{part['macro_f1'].mean():.3f}" + ("" if np.isnan(spread) else f" ± {spread:.3f}"),
        f"{low:.3f} to {high:.3f}",
        f"{part['accuracy'].mean():.3f}",
        "" if part["ece"].isna().all() else f"{part['ece'].mean():.3f}",
    ]
    once = bool(part["fixed"].iloc[0]) and not part["seeded"].iloc[0]
    seeds = "any" if once else str(len(part))
    if reference is None or not set(found) & set(reference):
        return [*cells, "", "", seeds]
    mean, low, high = _lead(found, reference)
    text = f"**{mean:+.3f}**" if low > 0 else f"{mean:+.3f}"
    return [*cells, text, f"{low:+.3f} to {high:+.3f}", seeds]


def _lead(found: dict, reference: dict) -> tuple[float, float, float]:
    """Macro-F1 minus that of the reference and its paired interval, on the seeds both have."""
    shared = [seed for seed in found if seed in reference]
    lead = _draws(found, shared) - _draws(reference, shared)
    low, high = np.quantile(lead, [0.025, 0.975])
    return _score(found, shared) - _score(reference, shared), float(low), float(high)


def _draws(found: dict, seeds: list[int]) -> np.ndarray:
    first = found[seeds[0]]
    units = np.unique(first["units"], return_inverse=True)[1]
    predicted = np.stack([found[seed]["codes"] for seed in seeds])
    n_classes = int(max(predicted.max(), first["truth"].max())) + 1
    return metrics.bootstrap_label_scores(first["truth"], predicted, n_classes, units=units)[
        "macro_f1"
    ]


def _score(found: dict, seeds: list[int]) -> float:
    scores = []
    for seed in seeds:
        truth, codes = found[seed]["truth"], found[seed]["codes"]
        n_classes = int(max(truth.max(), codes.max())) + 1
        scores.append(metrics.label_scores(truth, codes, n_classes)["macro_f1"])
    return float(np.mean(scores))
