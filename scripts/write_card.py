"""Write the card of `scmix-mini` from what its run and its benchmark left behind.

    python scripts/write_card.py --run RUN --scores SCORES --out card.md

`--run` is the folder that `pretrain_mini.py` trained in, `--scores` the `--out` of
`benchmarks/bench_zero_shot.py`. No number in the card is typed by hand.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from scmix import checkpoints, models
from scmix.pretrain import Recipe

METHODS = [
    "scmix",
    "untrained",
    "random projection of ranks",
    "random projection",
    "PCA",
    "PCA on orthologues",
]


def main() -> None:
    """Write the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--scores", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = models.load(options.run / "final")
    lines = (options.run / "history.jsonl").read_text(encoding="utf-8").splitlines()
    history = [json.loads(line) for line in lines]
    parts = [
        _head(model),
        _data(model.manifest["training_data"]),
        _recipe(model.manifest["recipe"], history),
        _curves(history),
        _scores(options.scores),
        _use(),
    ]
    options.out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _head(model: checkpoints.Model) -> str:
    config = model.config
    n_genes, n_million = config.max_position_embeddings - 1, model.n_parameters / 1e6
    return f"""# scmix-mini

A small encoder for human and mouse single-cell RNA-seq that ships with scmix:
{config.num_hidden_layers} layers, {config.num_attention_heads} heads, width {config.hidden_size},
feed-forward {config.intermediate_size}, {config.max_position_embeddings} positions,
{n_million:.1f} million parameters, {model.vocabulary.n_tokens:,} tokens
({model.vocabulary.mode} vocabulary: one-to-one orthologues are one token). It reads the first
{n_genes} genes of a cell. The published Mix-Geneformer has 6 layers and 2,048 positions; in the
steps that one core of a shared processor allows, that size was worse within data sets and hardly
better between species (`docs/results/ablation.md`).

Licence of the weights: {model.manifest["licence"]}."""


def _data(sources: list[dict]) -> str:
    table = pd.DataFrame(sources)
    table["n_duplicated"] += table["n_same_name"]
    table = table[["name", "species", "n_kept", "n_duplicated", "n_few_genes"]]
    table.columns = ["data set", "species", "cells", "left out: duplicates", "left out: few genes"]
    total = table.groupby("species")["cells"].sum()
    sums = ", ".join(f"{n:,} {species}" for species, n in total.items())
    return f"""## Training data

{table["cells"].sum():,} cells ({sums}) of public data sets, raw counts, labels not used. Held out
from training and from the vocabulary's medians: `baron_human_cider`, `baron_mouse1`, `pbmc3k`,
`zeisel_cortex_sub` (test) and `lung_celllines_scmixology`, `bone_marrow_cytosimplex` (validation:
settings were chosen on these and on training data sets that were left out for it, without the test
data). Not used at all, because their few genes would bias ranks or name the same genes again and
again: `kang_muscat_ctrl_stim`, `pancreas_e15_supercell`, `sie_haber_scdesign2`,
`lamanno_da_neurons`.

{_markdown(table)}"""


def _recipe(recipe: dict, history: list[dict]) -> str:
    train = [row for row in history if row["kind"] == "train"]
    hours = sum(row["seconds"] for row in train) / 3600
    cells = sum(row["cells"] for row in train)
    usual = json.loads(json.dumps(Recipe(name="").to_dict()))
    settings = pd.DataFrame(
        [(k, json.dumps(v)) for k, v in recipe.items() if v != usual[k]], columns=["setting", ""]
    )
    return f"""## Recipe

{train[-1]["step"]:,} steps, {cells:,} cells seen, {hours:.2f} hours on one CPU core in bfloat16,
one run with seed {recipe["seed"]}. `scripts/pretrain_mini.py` repeats it.

Word embeddings start from the co-expression of genes: loadings on the principal components of the
training cells' ranks, centred in each data set. Position embeddings start so that the share of a
gene in the mean over a cell falls with 1 / log2(1 + rank). The head starts at the frequencies of
genes (`init`). What the model's cell vectors know comes from that start; the short, gentle training
after it teaches the masked language model without spoiling them. `benchmarks/bench_ablation.py`
compares objectives, sizes and vocabularies with the start alone.

Settings that are not the default of `scmix.pretrain.Recipe`:

{_markdown(settings)}"""


def _curves(history: list[dict]) -> str:
    train = pd.DataFrame([row for row in history if row["kind"] == "train"])
    edges = pd.cut(train["step"], 8, labels=False)
    means = train.groupby(edges)[["mlm", "mlm_accuracy", "simcse", "simcse_accuracy"]].mean()
    means.insert(0, "up to step", train.groupby(edges)["step"].max())
    valid = pd.DataFrame([row for row in history if row["kind"] == "validation"])
    names = ["step", "human_mlm", "human_unigram", "mouse_mlm", "mouse_unigram"]
    return f"""## Curves

Training losses (nats), means over eighths of the run. SimCSE accuracy is the share of cells whose
nearest vector is their own other view.

{_markdown(means)}

Masked language model loss on the two validation data sets; `unigram` is that of somebody who knows
how often each gene occurs in the species and nothing about the cell.

{_markdown(valid[names])}"""


def _scores(start: str) -> str:
    within, between = pd.read_csv(f"{start}_within.csv"), pd.read_csv(f"{start}_between.csv")
    within["held_out"] = within["held_out"].fillna("trained on")
    tables = [
        f"### {title}\n\n{_markdown(_wide(within[within.held_out.isin(which)], score))}"
        for score, words in (("macro_f1", "macro-F1"), ("silhouette", "silhouette"))
        for title, which in (
            (f"Held out, test: {words}", ["test"]),
            (f"Held out, validation: {words}", ["validation"]),
            (f"Trained on without labels: {words}", ["trained on"]),
        )
    ]
    across = _spread(between, ["pair", "method"], [c for c in between if _is_score(between[c])])
    means = _means(within)
    n_untrained = within.loc[within.method.str.startswith("untrained"), "method"].nunique()
    return f"""## Scores

By macro-F1 within data sets, scmix-mini is {_verdict(means, "untrained", "the untrained encoder")};
it is {_verdict(means, "random projection of ranks", "a random projection of ranks")}
and {_verdict(means, "PCA", "PCA")}. How it compares between species is in the last table.

`benchmarks/bench_zero_shot.py` prints them. Cell vectors are the mean over genes of the second
to last layer, the default of `scmix.tl.embed`. Random projection of ranks: 256 random directions of
genes that weigh 1 / log2(1 + rank), which is what reading a cell in this way gives without learning
anything; random projection: the same of log counts. Within a data set: vote of the 5 nearest cells
by cosine, 5 folds, 5 splits, at most {within.n_cells.max()} cells; untrained encoders: mean ±
standard deviation of {n_untrained} seeds; PCA: 50 components of the data set's own 2,000 most
variable genes, so it is fitted to each data set while the encoders are not.

### Held out: lead in macro-F1 over the untrained encoder

95 % intervals by drawing the cells of each data set again; the untrained encoder is the mean of its
seeds.

{_leads(start)}

{chr(10).join(f"{table}{chr(10)}" for table in tables)}
### Between species

The vote of the cells of one species on those of the other, at most {within.n_cells.max()} of each,
over shared cell types (`make demo` takes all of its cells, so its numbers differ). Mixing is the
entropy of species among the neighbours within a cell type, 1 where chance decides; alone it is no
merit: vectors that know nothing of the cell mix best.

{_markdown(across)}"""


def _leads(start: str) -> str:
    leads = pd.read_csv(f"{start}_leads.csv")
    leads["95 %"] = [f"{a:+.3f} to {b:+.3f}" for a, b in zip(leads.low, leads.high, strict=True)]
    leads["lead"] = leads["lead"].map("{:+.3f}".format)
    return _markdown(leads[["held_out", "data", "scmix", "untrained", "lead", "95 %"]])


def _means(within: pd.DataFrame) -> pd.DataFrame:
    method = within["method"].str.replace(r" seed \d+$", "", regex=True)
    return within.pivot_table(index="data", columns=method, values="macro_f1", sort=False)


def _verdict(means: pd.DataFrame, other: str, name: str) -> str:
    worse = means.index[means["scmix"] <= means[other]]
    text = f"better than {name} on {len(means) - len(worse)} of {len(means)}"
    return text + (f" (not on {', '.join(worse)})" if len(worse) else "")


def _wide(table: pd.DataFrame, score: str) -> pd.DataFrame:
    keys = ["data", "n_cells", "n_types", "majority", "method"]
    long = _spread(table, keys, [score])
    wide = long.pivot_table(
        index=keys[:-1], columns="method", values=score, aggfunc="first", sort=False
    )
    return wide[[m for m in METHODS if m in wide]].reset_index()


def _spread(table: pd.DataFrame, keys: list[str], scores: list[str]) -> pd.DataFrame:
    """Mean, and standard deviation where several seeds were run, as text."""
    table = table.assign(method=table["method"].str.replace(r" seed \d+$", "", regex=True))
    groups = table.groupby(keys, sort=False)[scores]
    mean, spread, n = groups.mean(), groups.std(), groups.size()
    text = mean.map(lambda value: f"{value:.3f}")
    several = (n > 1).to_numpy()
    for score in scores:
        noted = text[score] + spread[score].map(lambda value: f" ± {value:.3f}")
        text[score] = text[score].where(~several, noted)
    return text.reset_index()


def _is_score(column: pd.Series) -> bool:
    return pd.api.types.is_float_dtype(column) and column.abs().max() <= 1


def _use() -> str:
    return """## Use and limits

For exploring what the software does, for label transfer between species as a first guess, and as a
start for fine-tuning. It has seen tens of thousands of cells where published models saw tens of
millions, few tissues, and mostly blood, brain and pancreas. Compare with PCA on your own data
before you rely on it, and above all where the tables say that PCA is better."""


def _markdown(table: pd.DataFrame) -> str:
    text = table.map(lambda v: f"{v:.3f}" if isinstance(v, float) else str(v))
    lines = [list(text.columns), ["---"] * text.shape[1], *text.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
