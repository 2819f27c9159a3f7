"""What imputed values are worth, beside simple methods; downstream effects first.

    python benchmarks/bench_impute.py --out impute [--steps 300] [--seeds 0 1 2]
    python benchmarks/bench_impute.py --table impute.csv

Data are those that ship with scmix; with SCMIX_DATA set, also some of its data/. Half of the cells
train: two small models of our own (a value autoencoder and one that restores gene subsets), ridge
regression and low rank. The other half is thinned to 30 % of its molecules, imputed, and compared
with what was measured. Every method fills zeros and leaves counts as they are.

======================  ==========================================================================
false_de_shuffled       200 genes were shuffled over all cells beforehand, so that they differ
                        between no two types: share that a t-test between the two largest types
                        calls different (p < 0.05; 0.05 is right, more is invented)
false_de_null           the same for all genes between random halves of the largest type
ari                     k-means on 30 principal components, against cell types
lost_rmse               error of counts that thinning made zero, as log1p of counts per 10,000
gene_r                  median over genes of the correlation with the values before thinning
panel_r                 the same for a third of the genes that are left out altogether: methods that
                        need a gene's own values have none
======================  ==========================================================================

Zeros are never taken for truth. Writes <out>.csv row by row, and prints the means over seeds.
"""

import argparse
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.linear_model import Ridge
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

import scmix
from scmix.checkpoints import Model
from scmix.decoders import Profiles, predict
from scmix.decoders._log_values import log_values
from scmix.decoders._profiles import by_token
from scmix.genes import SPECIES, Vocabulary
from scmix.pp._match_adata import match_adata

THINNED, N_SHUFFLED, N_GENES = 0.3, 200, 2000
SMALL = {"hidden_size": 64, "intermediate_size": 128, "max_length": 512, "tokens_per_step": 4096}
RECIPES = {"scmix value autoencoder": "value-mini", "scmix restore": "restore-mini"}
DOWNSTREAM = ["false_de_shuffled", "false_de_null", "ari"]
ERRORS = ["lost_rmse", "gene_r", "panel_r"]


@dataclass(frozen=True, eq=False)
class Task:
    """Counts of two halves of a data set, before and after thinning; totals over all genes."""

    train: np.ndarray
    train_thin: np.ndarray
    test: np.ndarray
    test_thin: np.ndarray
    totals: dict[str, np.ndarray]
    types: np.ndarray
    shuffled: np.ndarray
    tokens: np.ndarray
    species: int
    panel: np.ndarray

    def log(self, name: str) -> np.ndarray:
        """Log values of one of the matrices."""
        return log_values(getattr(self, name), self.totals[name][:, None])


def make_task(adata: ad.AnnData, vocabulary, seed: int) -> Task:
    """Choose genes, shuffle some of them, split and thin."""
    rng = np.random.default_rng(seed)
    match, codes = match_adata(adata, vocabulary, on_duplicate="sum")
    counts = sp.csr_matrix(adata.X)
    known = np.flatnonzero(match.tokens >= 0)
    _, first = np.unique(match.tokens[known], return_index=True)
    known = known[np.sort(first)]
    detected = np.asarray((counts[:, known] > 0).mean(0)).ravel()
    genes = known[np.argsort(-detected, kind="stable")[:N_GENES]]
    chosen = counts[:, genes].toarray()
    others = np.asarray(counts.sum(1)).ravel() - chosen.sum(1)
    shuffled = rng.permutation(len(genes))[:N_SHUFFLED]
    chosen[:, shuffled] = rng.permuted(chosen[:, shuffled], axis=0)
    order = rng.permutation(adata.n_obs)
    halves = {"train": order[: len(order) // 2], "test": order[len(order) // 2 :]}
    parts, totals = {}, {}
    for name, rows in halves.items():
        parts[name] = chosen[rows]
        totals[name] = parts[name].sum(1) + others[rows]
        parts[f"{name}_thin"] = rng.binomial(parts[name].astype(int), THINNED).astype(np.float32)
        rest = rng.binomial(others[rows].astype(int), THINNED)
        totals[f"{name}_thin"] = parts[f"{name}_thin"].sum(1) + rest
    types = adata.obs["cell_type"].astype(str).to_numpy()[halves["test"]]
    panel = np.setdiff1d(rng.permutation(len(genes))[: len(genes) // 3], shuffled)
    return Task(
        **parts, totals=totals, types=types, shuffled=shuffled,
        tokens=match.tokens[genes], species=int(codes[0]), panel=panel,
    )  # fmt: skip


Method = Callable[
    [Task, np.ndarray], np.ndarray
]  # task, genes left out -> values of the test cells


def nothing(task: Task, left_out: np.ndarray) -> np.ndarray:
    return _shown(task, left_out, "test_thin")


def gene_mean(task: Task, left_out: np.ndarray) -> np.ndarray:
    return np.tile(task.log("train").mean(0), (len(task.test), 1))


def smoothing(task: Task, left_out: np.ndarray) -> np.ndarray:
    """Mean of 15 nearest cells: of the test cells, or of training cells for genes left out."""
    here, there = (_shown(task, left_out, f"{name}_thin") for name in ("test", "train"))
    space = PCA(30, random_state=0).fit(np.concatenate([here, there]))
    own = NearestNeighbors(n_neighbors=15).fit(space.transform(here))
    out = here[own.kneighbors(space.transform(here), return_distance=False)].mean(1)
    other = NearestNeighbors(n_neighbors=15).fit(space.transform(there))
    near = other.kneighbors(space.transform(here), return_distance=False)
    out[:, left_out] = task.log("train")[:, left_out][near].mean(1)
    return out


def low_rank(task: Task, left_out: np.ndarray) -> np.ndarray:
    """Rank 20 of both halves, what is left out of the test cells starts at the mean of training."""
    here = _shown(task, left_out, "test_thin")
    mean = task.log("train").mean(0)
    here[:, left_out] = mean[left_out]
    for _ in range(5 if left_out.size else 1):
        both = np.concatenate([here, task.log("train")]) - mean
        svd = TruncatedSVD(20, random_state=0).fit(both)
        out = svd.inverse_transform(svd.transform(here - mean)) + mean
        here[:, left_out] = out[:, left_out]
    return out


def ridge(task: Task, left_out: np.ndarray) -> np.ndarray:
    """All genes from the thinned ones that are left; the penalty by a quarter of the training."""
    there, here = (_shown(task, left_out, f"{name}_thin") for name in ("train", "test"))
    truth, cut = task.log("train"), 3 * len(there) // 4
    errors = {}
    for alpha in (100.0, 1_000.0, 10_000.0):
        fit = Ridge(alpha).fit(there[:cut], truth[:cut])
        errors[alpha] = np.square(fit.predict(there[cut:]) - truth[cut:]).mean()
    return Ridge(min(errors, key=errors.get)).fit(there, truth).predict(here)


SIMPLE: dict[str, Method] = {
    "none": nothing, "gene mean": gene_mean, "kNN smoothing": smoothing,
    "low rank": low_rank, "ridge": ridge,
}  # fmt: skip


def of_model(model: Model) -> Method:
    """Impute with a model that reads the thinned cells, one by one."""

    def method(task: Task, left_out: np.ndarray) -> np.ndarray:
        counts = task.test_thin.copy()
        counts[:, left_out] = 0
        columns = task.tokens.copy()
        columns[left_out] = -1
        n = model.vocabulary.n_tokens
        species = np.full(len(counts), task.species, np.int8)
        tokens = by_token(sp.csr_matrix(counts), columns, n)
        medians, totals = model.vocabulary.medians, task.totals["test_thin"]
        measured = np.zeros((2, n), bool)
        measured[task.species, columns[columns >= 0]] = True
        cells = Profiles.of(tokens, medians, species, totals)
        found = predict(
            model.encoder, model.decoder, model.vocabulary, cells, task.tokens, measured=measured
        )
        return np.where(np.isnan(found), task.log("train").mean(0), found)

    return method


def models(
    task: Task, names: np.ndarray, chosen: list[str], steps: int, folder: Path
) -> Iterator[tuple[str, Model]]:
    """Small models that know nothing but the training half, trained when they are asked for."""
    rest = task.totals["train"] - task.train.sum(1)
    counts = sp.csr_matrix(np.column_stack([task.train, rest]).astype(np.float32))
    var = pd.DataFrame(index=[*names, "other_genes"])
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(len(task.train))])
    ad.AnnData(counts, obs=obs, var=var).write_h5ad(folder / "cells.h5ad")
    corpus = scmix.pretrain.build_corpus(
        [folder / "cells.h5ad"], folder / "corpus", vocabulary=Vocabulary.bundled(), n_genes=None,
        values=True,
    )  # fmt: skip
    for name in chosen:
        recipe = RECIPES[name]
        final = scmix.pretrain.train(
            corpus, folder / recipe, recipe, steps=steps, log_every=steps, checkpoint_every=steps,
            value_autoencoder_thinning=0.5, **SMALL,
        )  # fmt: skip
        yield name, scmix.models.load(final)


def scores(task: Task, method: Method) -> dict[str, float]:
    """All columns of the table for one method."""
    nobody = np.empty(0, np.int64)
    shown, truth = task.log("test_thin"), task.log("test")
    values = np.where(shown > 0, shown, method(task, nobody))
    own = np.setdiff1d(np.arange(truth.shape[1]), task.shuffled)
    lost = (task.test[:, own] > 0) & (task.test_thin[:, own] == 0)
    panel = method(task, task.panel)[:, task.panel]
    return {
        **differences(values, task),
        "ari": clustering(values[:, own], task.types),
        "lost_rmse": float(np.sqrt(np.square((values - truth)[:, own][lost]).mean())),
        "gene_r": correlation(values[:, own], truth[:, own]),
        "panel_r": correlation(panel, truth[:, task.panel]),
    }


def differences(values: np.ndarray, task: Task) -> dict[str, float]:
    """Shares of genes called different where nothing differs."""
    largest = pd.Series(task.types).value_counts().index[:2]
    one, two = (np.flatnonzero(task.types == name) for name in largest)
    halves = np.array_split(np.random.default_rng(0).permutation(one), 2)
    shuffled = values[:, task.shuffled]
    return {
        "false_de_shuffled": called(shuffled[one], shuffled[two]),
        "false_de_null": called(values[halves[0]], values[halves[1]]),
    }


def called(one: np.ndarray, two: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a gene without any value
        return float(np.nanmean(stats.ttest_ind(one, two, equal_var=False).pvalue < 0.05))


def clustering(values: np.ndarray, types: np.ndarray) -> float:
    known = types != "nan"
    points = PCA(30, random_state=0).fit_transform(values[known])
    n_types = len(set(types[known]))
    found = KMeans(n_types, n_init=5, random_state=0).fit_predict(points)
    return float(adjusted_rand_score(types[known], found))


def correlation(values: np.ndarray, truth: np.ndarray) -> float:
    """Median over genes; a gene without spread has none, which counts as zero."""
    a, b = values - values.mean(0), truth - truth.mean(0)
    size = np.sqrt(np.square(a).sum(0) * np.square(b).sum(0))
    return float(np.median((a * b).sum(0) / np.where(size > 0, size, np.inf)))


def _shown(task: Task, left_out: np.ndarray, name: str) -> np.ndarray:
    values = task.log(name)
    values[:, left_out] = 0
    return values


def datasets() -> Iterator[tuple[str, ad.AnnData]]:
    yield "pbmc3k", scmix.datasets.pbmc3k()
    pancreas = scmix.datasets.pancreas()
    mouse = (pancreas.obs["species"] == "mouse").to_numpy()
    genes = pancreas.var_names.str.startswith("ENSMUSG")
    yield "pancreas (mouse)", pancreas[mouse, genes].copy()
    folder = os.environ.get("SCMIX_DATA")
    for name in ("zeisel_cortex_sub", "bone_marrow_cytosimplex") if folder else ():
        adata = ad.read_h5ad(Path(folder) / "data" / f"{name}.h5ad")
        yield name, adata


def names_of(tokens: np.ndarray, species: int, vocabulary) -> np.ndarray:
    """Ensembl ids of a species' tokens."""
    genes = vocabulary.genes[vocabulary.genes["species"] == SPECIES[species]]
    return genes.set_index("token")["ensembl_id"].loc[tokens].to_numpy()


def rows(
    steps: int, seeds: list[int], only: list[str], methods: list[str]
) -> Iterator[dict[str, object]]:
    vocabulary = Vocabulary.bundled()
    for name, adata in datasets():
        for seed in seeds if not only or name in only else []:
            task = make_task(adata, vocabulary, seed)
            about = {"data": name, "seed": seed, "steps": steps}
            for label in (label for label in SIMPLE if label in methods):
                yield {**about, "method": label, **scores(task, SIMPLE[label])}
            chosen = [label for label in RECIPES if label in methods]
            with tempfile.TemporaryDirectory() as folder:
                names = names_of(task.tokens, task.species, vocabulary)
                for label, model in models(task, names, chosen, steps, Path(folder)):
                    yield {**about, "method": label, **scores(task, of_model(model))}


def to_table(results: pd.DataFrame) -> str:
    """Means over seeds as Markdown, downstream effects first."""
    mean = results.groupby(["data", "method"], sort=False)[DOWNSTREAM + ERRORS].mean()
    return mean.round(3).reset_index().to_markdown(index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--out", default="impute")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data", nargs="*", default=[], help="names of data sets; all if none")
    every = [*SIMPLE, *RECIPES]
    parser.add_argument("--methods", nargs="+", choices=every, default=every)
    parser.add_argument("--table", help="print the table of a file written before")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    if options.table:
        print(to_table(pd.read_csv(options.table)))
        return
    table: list[dict[str, object]] = []
    for row in rows(options.steps, options.seeds, options.data, options.methods):
        table.append(row)
        pd.DataFrame(table).to_csv(f"{options.out}.csv", index=False)
    print(to_table(pd.DataFrame(table)))


if __name__ == "__main__":
    main()
