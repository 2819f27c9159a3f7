"""Maskers compared on one fixed uniform mask, on cells that ship with scmix.

    python benchmarks/bench_maskers.py

Every row trains the same small encoder for the same number of steps on four fifths of the cells
and differs in the masker only; within an objective rows may be compared. The loss in training
depends on what the masker chooses and is shown beside, not to be compared. The probe is the
macro-F1 of 5 nearest neighbours with labels, in each data set for itself, for mean-pooled vectors
of held-out cells; PCA-50 of the log-normalised counts and the untrained encoder stand below. A
model this small, trained this shortly, says which masker does no harm, hardly which is best: look
at several seeds (`--seeds 3`).
"""

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA

import scmix
from scmix import metrics
from scmix.genes import Vocabulary
from scmix.pretrain import Corpus, Recipe, Source, build_corpus, recipe
from scmix.pretrain._held_out import batches_of
from scmix.pretrain.model import Pretraining, make_model
from scmix.pretrain.objectives._pooling import pooled
from scmix.pretrain.stream import Stream
from scmix.pretrain.uniform_mask import loss_on_uniform_mask

SMALL = {
    "num_hidden_layers": 2,
    "hidden_size": 48,
    "intermediate_size": 96,
    "max_length": 128,
    "length_multiple": 32,
    "tokens_per_step": 2048,
    "precision": "fp32",
    "learning_rate": 5e-3,
    "mam_latents": 16,
    "mam_width": 32,
}
# Share hidden by each masker that takes one, and by the fixed uniform mask.
HIDE = {"mlm": 0.15, "masked_values": 0.3, "wced": 0.5}
RUNS: list[tuple[str, str, dict[str, Any]]] = [
    ("mlm", "uniform", {"masker": "uniform"}),
    ("mlm", "mlm 80/10/10", {"masker": "mlm"}),
    ("mlm", "mam adversarial", {"masker": "mam"}),
    ("masked_values", "uniform", {"masker": "uniform"}),
    ("masked_values", "mam adversarial", {"masker": "mam"}),
    ("masked_values", "mam published", {"masker": "mam", "mam_mode": "published"}),
    ("wced", "uniform", {"part_masker": "uniform"}),
    ("wced", "subset 0.3-1", {"part_masker": "subset", "subset_share": (0.3, 1.0)}),
    ("wced", "keep_k 64", {"part_masker": "keep_k", "keep_k": 64}),
]
N_GENES = 2000  # of each data set: with all genes, minutes would not be enough
N_LOSS, N_PROBE = 200, 600  # cells on which losses are computed; labelled cells of the probe


def corpora(folder: Path) -> tuple[Corpus, Corpus]:
    """Shipped cells as two corpora with all genes and counts: training, held out."""
    data = {"pbmc3k": scmix.datasets.pbmc3k(), "pancreas": scmix.datasets.pancreas()}
    chosen = {name: informative(adata) for name, adata in data.items()}
    ids = np.concatenate([adata.var["ensembl_id"] for adata in chosen.values()])
    genes = Vocabulary.bundled().genes.drop(columns="token")
    vocabulary = Vocabulary.from_table(genes[genes["ensembl_id"].isin(ids)], mode="shared")
    parts: dict[str, list[Source]] = {"training": [], "held_out": []}
    for name, adata in chosen.items():
        held_out = np.random.default_rng(0).random(adata.n_obs) < 0.2
        for part, rows in (("training", ~held_out), ("held_out", held_out)):
            path = folder / f"{name}_{part}.h5ad"
            adata[rows].write_h5ad(path)
            key = "species" if "species" in adata.obs else None
            parts[part].append(Source(path, name, species_key=key, keep=["cell_type"]))
    built = [
        build_corpus(sources, folder / part, vocabulary=vocabulary, n_genes=None, values=True)
        for part, sources in parts.items()
    ]
    return built[0], built[1]


def informative(adata: ad.AnnData) -> ad.AnnData:
    """The genes whose detection differs most between cells, so that a small model can learn."""
    scmix.pp.map_genes(adata, species_key="species" if "species" in adata.obs else None)
    share = np.asarray((adata.X > 0).mean(0)).ravel()
    known = (adata.var["scmix_token"] >= 0).to_numpy()
    best = np.argsort(-(known * share * (1 - share)))[:N_GENES]
    return adata[:, np.sort(best)].copy()


def run(
    training: Corpus,
    held_out: Corpus,
    objective: str,
    changes: dict[str, Any],
    steps: int,
    seed: int,
) -> dict[str, Any]:
    """Train once; losses and probe."""
    settings = settings_of(objective, changes, seed)
    model = make_model(training.vocabulary, settings)
    model.start(training)
    since = time.process_time()
    own = train(model, training, settings, steps)
    seconds = time.process_time() - since
    rows = np.random.default_rng(0).permutation(len(held_out))[:N_LOSS]
    fair = loss_on_uniform_mask(model, held_out, np.sort(rows), settings, share=HIDE[objective])
    return {
        "loss on uniform mask": fair[objective],
        "own training loss": own,
        "probe": probe(model, (training, held_out), settings),
        "CPU s": round(seconds),
    }


def settings_of(objective: str, changes: dict[str, Any], seed: int) -> Recipe:
    """The small recipe with an objective and a masker."""
    base: dict[str, Any] = {
        "objectives": {objective: 1.0},
        "mask_share": HIDE[objective],
        "seed": seed,
    }
    base["positions"] = objective != "masked_values"
    return recipe("wced-rank", **{**SMALL, **base, **changes})


def train(model: Pretraining, corpus: Corpus, settings: Recipe, steps: int) -> float:
    """Mean loss of the objective over the last fifth of the steps."""
    stream = Stream(corpus, settings, model.views)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, steps)
    last: list[float] = []
    model.train()
    for step in range(steps):
        out = model(stream.batch(step))
        optimizer.zero_grad()
        out["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step >= 0.8 * steps:
            last.append(float(out["metrics"][next(iter(settings.objectives))]))
    return float(np.mean(last))


@torch.no_grad()
def embed(model: Pretraining, corpus: Corpus, rows: np.ndarray, settings: Recipe) -> np.ndarray:
    """Mean-pooled vectors of whole cells."""
    model.eval()
    vectors = []
    for batch in batches_of(Stream(corpus, settings, ("full",)), rows):
        view = batch["views"]["full"]
        vectors.append(pooled(model.encoder, model.encode("full", view), view, "mean").numpy())
    return np.concatenate(vectors)


def cells_of(corpus: Corpus) -> np.ndarray:
    """The cells that the probe looks at."""
    return np.sort(np.random.default_rng(1).permutation(len(corpus))[:N_PROBE])


def probe(model: Pretraining, parts: tuple[Corpus, Corpus], settings: Recipe) -> float:
    """Macro-F1 of nearest neighbours, mean over data sets."""
    return macro_f1(parts, [embed(model, part, cells_of(part), settings) for part in parts])


def pca(parts: tuple[Corpus, Corpus]) -> float:
    """The same of 50 principal components of log-normalised counts."""
    dense = [log_normalised(part, cells_of(part)) for part in parts]
    model = PCA(50, svd_solver="randomized", random_state=0).fit(dense[0])
    return macro_f1(parts, [model.transform(x) for x in dense])


def macro_f1(parts: tuple[Corpus, Corpus], vectors: list[np.ndarray]) -> float:
    """Mean over data sets; each is labelled by its own training cells."""
    reference, query = (part.obs(cells_of(part)).reset_index(drop=True) for part in parts)
    scores = []
    for name, own in reference.groupby("dataset", observed=True):
        asked = query[query["dataset"] == name]
        found = metrics.knn_transfer(
            vectors[0][own.index], own["cell_type"], vectors[1][asked.index], k=5
        )
        scores.append(metrics.classification_scores(asked["cell_type"], found)["macro_f1"])
    return float(np.mean(scores))


def log_normalised(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    """Counts of all tokens, shape ``(n_cells, n_tokens)``."""
    cells, counts = corpus.sequences(rows), corpus.counts(rows)
    totals = np.repeat(corpus.totals[rows], cells.lengths)
    dense = np.zeros((len(rows), corpus.vocabulary.n_tokens), np.float32)
    where = np.repeat(np.arange(len(rows)), cells.lengths)
    dense[where, cells.tokens] = np.log1p(1e4 * counts / totals)
    return dense


def table(steps: int, seeds: int, objectives: list[str]) -> Iterator[dict[str, Any]]:
    """A row for each masker and seed, then the baselines."""
    with tempfile.TemporaryDirectory() as folder:
        parts = corpora(Path(folder))
        for objective, masker, changes in RUNS:
            for seed in range(seeds) if objective in objectives else []:
                found = run(*parts, objective, changes, steps, seed)
                yield {"objective": objective, "masker": masker, "seed": seed, **found}
        settings = settings_of("mlm", {"masker": "uniform"}, 0)
        untrained = make_model(parts[0].vocabulary, settings)
        yield {"masker": "untrained", "seed": 0, "probe": probe(untrained, parts, settings)}
        yield {"masker": "PCA-50", "seed": 0, "probe": pca(parts)}


def main() -> None:
    """Print rows as they come, and their means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--objectives", nargs="+", choices=list(HIDE), default=list(HIDE))
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("scmix").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*have several columns")
    rows = []
    for row in table(options.steps, options.seeds, options.objectives):
        rows.append({"objective": "", **row})
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    means = pd.DataFrame(rows).groupby(["objective", "masker"], sort=False).mean(numeric_only=True)
    print(means.drop(columns="seed").round(3).to_string(na_rep=""))


if __name__ == "__main__":
    main()
