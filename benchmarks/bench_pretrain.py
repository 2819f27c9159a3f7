"""Build, load and train the masked language model: scmix beside the published way.

Both read the same files: the shipped data sets, a file for each species. Both train
`BertForMaskedLM` of the published size (6 layers, width 256, 4 heads, 2,048 positions, the bundled
vocabulary) with AdamW, on the same cells in the same batches, 15 % of genes masked. The published
way is that of Geneformer's code: cells ranked one by one into a table of the package `datasets`,
cut and measured by `map`; in training, rows padded to the longest of the batch, eager attention,
float32, logits of every token. Each way trains in a process of its own, for its peak of memory; a
first step warms up and is not counted.

    python benchmarks/bench_pretrain.py --steps 3 --threads 2

Prints a table with ratios. Seconds are those of the processor, summed over its cores, which change
less than those of the clock when others use the machine; `wall` are those of the clock.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import torch

import scmix
from scmix import pretrain
from scmix.genes import Vocabulary
from scmix.pretrain.model import make_model
from scmix.pretrain.stream import Stream

sys.path.append(str(Path(__file__).parent))
import bench_corpus
from peak_memory import peak

WAYS = ("published", "scmix float32", "scmix bfloat16")
SEED = 0
N_LOADS = 20


@dataclass(frozen=True)
class Way:
    """How batches are made, and what a step does with them."""

    load: Callable[[int], tuple[Any, int, int]]  # number -> batch, cells, tokens
    loss: Callable[[Any], torch.Tensor]
    model: torch.nn.Module
    optimiser: torch.optim.Optimizer

    def update(self, batch: Any) -> float:
        """A step of training."""
        self.optimiser.zero_grad()
        loss = self.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return float(loss.detach())


def main() -> None:
    """Measure every way and print the table."""
    options = _options()
    scmix.settings.progress = False
    torch.set_num_threads(options.threads)
    if options.way:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.corpus = Path(folder) / "corpus"
        built = build(Path(folder), options.corpus)
        rows = {way: run_apart(way, options) | built[way.split()[0]] for way in WAYS}
    print(table(rows, options))


def build(folder: Path, out: Path) -> dict[str, dict[str, float]]:
    """Count files to a corpus, both ways; seconds of processor and cells."""
    files = list(shipped(folder))
    pretrain.build_corpus(files[:1], folder / "first")  # compiles the kernels
    bench_corpus.build_published(files[:1], folder / "first-published")  # imports the package
    calls = {
        "scmix": lambda: len(pretrain.build_corpus(files, out)),
        "published": lambda: bench_corpus.build_published(files, folder / "published"),
    }
    built = {}
    for name, call in calls.items():
        before = bench_corpus.processor_seconds()
        n_cells = call()
        built[name] = {"built": n_cells / (bench_corpus.processor_seconds() - before)}
    return built


def shipped(folder: Path) -> Iterator[Path]:
    """The shipped data sets as files with Ensembl ids, one for each species."""
    for name in ("pbmc3k", "pancreas"):
        adata = getattr(scmix.datasets, name)()
        key = "species" if "species" in adata.obs else None
        scmix.pp.map_genes(adata, species_key=key)
        for species in adata.obs[key].unique() if key else ["human"]:
            mine = adata[adata.obs[key] == species] if key else adata
            ids = mine.var["ensembl_id"]
            used = (mine.var["scmix_token"] >= 0).to_numpy() & ~ids.duplicated().to_numpy()
            used &= np.asarray(mine.X.sum(0)).ravel() > 0
            path = folder / f"{name}_{species}.h5ad"
            var = mine.var[used].set_index("ensembl_id")[[]]
            ad.AnnData(mine.X[:, used], obs=mine.obs[[]], var=var).write_h5ad(path)
            yield path


def stream_of(options: argparse.Namespace) -> Stream:
    """The batches that every way trains on."""
    recipe = pretrain.recipe(
        "mix-geneformer",
        vocabulary="shared",
        objectives={"mlm": 1.0},
        attention_probs_dropout_prob=0.0,
        tokens_per_step=options.tokens,
        seed=SEED,
    )
    return Stream(pretrain.Corpus.open(options.corpus), recipe, ("masked",))


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Load some batches and train some steps one way; what it took, and the memory it added."""
    stream = stream_of(options)
    way = published(stream) if options.way == "published" else packed(stream, options.way)
    before = peak()
    way.update(way.load(0)[0])
    memory = peak() - before
    started = time.process_time()
    n_loaded = sum(way.load(number)[1] for number in range(1, N_LOADS + 1))
    loaded = n_loaded / (time.process_time() - started)
    batches = [way.load(number) for number in range(1, options.steps + 1)]
    wall, processor = time.perf_counter(), time.process_time()
    for batch, _, _ in batches:
        way.update(batch)
    return {
        "cells": sum(n for _, n, _ in batches),
        "tokens": sum(n for _, _, n in batches),
        "wall": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "memory": max(memory, peak() - before),
        "loaded": loaded,
    }


def packed(stream: Stream, name: str) -> Way:
    """A step as `scmix.pretrain.train` makes it."""
    model = make_model(stream.corpus.vocabulary, stream.recipe).train()

    def load(number: int) -> tuple[Any, int, int]:
        batch = stream.batch(number)
        return batch, len(batch["rows"]), batch["views"]["masked"]["indptr"][-1]

    def loss(batch: Any) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=name.endswith("bfloat16")):
            return model(batch)["loss"]

    return Way(load, loss, model, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True))


def published(stream: Stream) -> Way:
    """A step as the published code makes it, on the same cells."""
    from transformers import BertConfig, BertForMaskedLM

    config = make_model(stream.corpus.vocabulary, stream.recipe).encoder.config
    model = BertForMaskedLM(BertConfig(**config.to_dict(), attn_implementation="eager")).train()
    rows = _dataset(stream.corpus)
    rng = np.random.default_rng(SEED)

    def load(number: int) -> tuple[Any, int, int]:
        cells = rows[stream.sampler.rows(number).tolist()]["input_ids"]
        return _padded(cells, stream.corpus.vocabulary, rng), len(cells), sum(map(len, cells))

    def loss(batch: Any) -> torch.Tensor:
        return model(**batch).loss

    return Way(load, loss, model, torch.optim.AdamW(model.parameters(), lr=1e-4))


def _dataset(corpus: pretrain.Corpus) -> Any:
    import datasets

    every = corpus.sequences(np.arange(len(corpus)), max_genes=2047)
    prefix = [corpus.vocabulary.prefix(code) for code in (0, 1)]
    cells: Iterator[dict[str, list[int]]] = (
        {"input_ids": [*prefix[corpus.species[i]], *every[i].tolist()]} for i in range(len(every))
    )
    return datasets.Dataset.from_list(list(cells))


def _padded(
    cells: list[list[int]], vocabulary: Vocabulary, rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """Ids, attention mask and labels, padded to the longest; 80/10/10 of 15 %."""
    longest = max(map(len, cells))
    ids = np.full((len(cells), longest), vocabulary.special["<pad>"])
    for row, cell in zip(ids, cells, strict=True):
        row[: len(cell)] = cell
    real = np.arange(longest) < np.array([[len(cell)] for cell in cells])
    chosen = real & ~np.isin(ids, vocabulary.special_ids) & (rng.random(ids.shape) < 0.15)
    labels = np.where(chosen, ids, -100)
    draw = rng.random(ids.shape)
    ids[chosen & (draw < 0.8)] = vocabulary.special["<mask>"]
    random = chosen & (draw >= 0.9)
    ids[random] = rng.integers(4, vocabulary.n_tokens, random.sum())
    arrays = {"input_ids": ids, "attention_mask": real.astype(np.int64), "labels": labels}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def run_apart(way: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure a way in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--corpus", str(options.corpus)]
    for name in ("steps", "threads", "tokens"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: dict[str, dict[str, float]], options: argparse.Namespace) -> str:
    """Markdown: speed, memory and ratios to the published way."""
    base = rows["published"]
    lines = [
        f"{options.threads} threads, torch {torch.__version__}, {options.steps} steps of about "
        f"{options.tokens:,} tokens ({base['cells'] / options.steps:.0f} cells). Cells and tokens "
        "per second of one core.",
        "",
        "| way | build: cells/s | load and mask: cells/s | step: cells/s | step: tokens/s "
        "| memory of training (GB) | step: times faster | times less memory | loading / step "
        "| wall s of a step |",
        "|" + "---|" * 10,
    ]
    for way, row in rows.items():
        trained = row["cells"] / row["processor"]
        speed = row["tokens"] / row["processor"]
        lines.append(
            f"| {way} | {row['built']:,.0f} | {row['loaded']:,.0f} | {trained:.2f} | {speed:,.0f} "
            f"| {row['memory'] / 1e9:.2f} | {speed / (base['tokens'] / base['processor']):.1f} "
            f"| {base['memory'] / row['memory']:.1f} | {trained / row['loaded']:.2%} "
            f"| {row['wall'] / options.steps:.1f} |"
        )
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=8192, help="of a step, as in a recipe")
    parser.add_argument("--way", choices=WAYS, help="measure this one only (used inside)")
    parser.add_argument("--corpus", type=Path, help="of --way")
    return parser.parse_args()


if __name__ == "__main__":
    main()
