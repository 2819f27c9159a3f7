"""A training step of the masked language model: scmix beside the published way, on the same cells.

Both train `BertForMaskedLM` of the published size (6 layers, width 256, 4 heads, 2,048 positions,
the bundled vocabulary) with AdamW, on the same cells of the shipped data sets in the same batches,
15 % of genes masked. The published way is that of Geneformer's code: rows of a `datasets.Dataset`,
padded to the longest of the batch, eager attention, float32, logits of every token. Each way runs
in a process of its own, for its peak of memory; a first step warms up and is not counted.

    python benchmarks/bench_pretrain.py --steps 3 --threads 2

Prints a table with ratios. Seconds are those of the processor, summed over its cores, which do not
change when others use the machine; `wall` are those of the clock.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import scmix
from scmix import pretrain
from scmix.genes import Vocabulary
from scmix.pretrain.model import make_model
from scmix.pretrain.stream import Stream

WAYS = ("published", "scmix float32", "scmix bfloat16")
SEED = 0


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
        built = build(options.corpus)
        loading = measure_loading(options)
        rows = {way: run_apart(way, options) for way in WAYS}
    print(table(rows, built, loading, options))


def build(folder: Path) -> dict[str, float]:
    """Count files to a corpus; cells per second of wall and of processor."""
    files = []
    for name in ("pbmc3k", "pancreas"):
        adata = getattr(scmix.datasets, name)()
        for species in adata.obs.species.unique() if "species" in adata.obs else ["human"]:
            mine = adata[adata.obs.species == species] if "species" in adata.obs else adata
            seen = np.asarray(mine.X.sum(0)).ravel() > 0
            files.append(folder.parent / f"{name}_{species}.h5ad")
            mine[:, seen].copy().write_h5ad(files[-1])
    pretrain.build_corpus(files[:1], folder.parent / "first")  # compiles the kernels
    wall, processor = time.perf_counter(), time.process_time()
    corpus = pretrain.build_corpus(files, folder)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {"cells": len(corpus), "wall": wall, "processor": processor}


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


def measure_loading(options: argparse.Namespace) -> dict[str, float]:
    """Batches alone, masked and ready to train on."""
    stream = stream_of(options)
    stream.batch(0)
    n_cells = n_tokens = 0
    wall, processor = time.perf_counter(), time.process_time()
    for step in range(1, 41):
        batch = stream.batch(step)
        n_cells += len(batch["rows"])
        n_tokens += batch["views"]["masked"]["indptr"][-1]
    return {
        "cells": n_cells,
        "tokens": n_tokens,
        "wall": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
    }


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Train some steps one way; seconds, cells, tokens and the memory that steps add."""
    stream = stream_of(options)
    step = published(stream) if options.way == "published" else packed(stream, options.way)
    before = _peak()
    step(0)
    totals = {"cells": 0, "tokens": 0, "loss": 0.0}
    wall, processor = time.perf_counter(), time.process_time()
    for number in range(1, options.steps + 1):
        for name, value in step(number).items():
            totals[name] += value
    totals |= {
        "wall": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "memory": _peak() - before,
    }
    return totals


def packed(stream: Stream, way: str) -> Callable[[int], dict[str, float]]:
    """A step as `scmix.pretrain.train` makes it."""
    model = make_model(stream.corpus.vocabulary, stream.recipe).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(number: int) -> dict[str, float]:
        batch = stream.batch(number)
        with torch.autocast("cpu", torch.bfloat16, enabled=way.endswith("bfloat16")):
            loss = model(batch)["loss"]
        return _update(optimiser, model, loss) | {
            "cells": len(batch["rows"]),
            "tokens": batch["views"]["masked"]["indptr"][-1],
        }

    return step


def published(stream: Stream) -> Callable[[int], dict[str, float]]:
    """A step as the published code makes it, on the same cells."""
    from transformers import BertConfig, BertForMaskedLM

    config = make_model(stream.corpus.vocabulary, stream.recipe).encoder.config
    model = BertForMaskedLM(BertConfig(**config.to_dict(), attn_implementation="eager")).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    rows = _dataset(stream.corpus)
    rng = np.random.default_rng(SEED)

    def step(number: int) -> dict[str, float]:
        cells = rows[stream.sampler.rows(number).tolist()]["input_ids"]
        batch = _padded(cells, stream.corpus.vocabulary, rng)
        loss = model(**batch).loss
        return _update(optimiser, model, loss) | {
            "cells": len(cells),
            "tokens": sum(map(len, cells)),
        }

    return step


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


def _update(
    optimiser: torch.optim.Optimizer, model: torch.nn.Module, loss: torch.Tensor
) -> dict[str, float]:
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return {"loss": float(loss.detach())}


def _peak() -> int:
    """Most memory this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_apart(way: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure a way in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--corpus", str(options.corpus)]
    for name in ("steps", "threads", "tokens"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(
    rows: dict[str, dict[str, float]],
    built: dict[str, float],
    loading: dict[str, float],
    options: argparse.Namespace,
) -> str:
    """Markdown: speed, memory and ratios to the published way."""
    base = rows["published"]
    lines = [
        f"{options.threads} threads, torch {torch.__version__}, {options.steps} steps of about "
        f"{options.tokens:,} tokens ({base['cells'] / options.steps:.0f} cells).",
        "",
        "| step | cells / s | tokens / s | memory of a step (GB) | times faster "
        "| times less memory | wall s |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, row in rows.items():
        speed = row["tokens"] / row["processor"] / (base["tokens"] / base["processor"])
        lines.append(
            f"| {way} | {options.threads * row['cells'] / row['processor']:.2f} "
            f"| {options.threads * row['tokens'] / row['processor']:,.0f} "
            f"| {row['memory'] / 1e9:.2f} | {speed:.1f} | {base['memory'] / row['memory']:.1f} "
            f"| {row['wall']:.0f} |"
        )
    fastest = max(r["tokens"] / r["processor"] for w, r in rows.items() if w != "published")
    share = loading["processor"] / loading["tokens"] * fastest
    lines += [
        "",
        f"Building the corpus: {built['cells'] / built['processor']:,.0f} cells per second of "
        f"processor ({built['cells'] / built['wall']:,.0f} by the clock). Loading and masking "
        f"alone: {loading['cells'] / loading['processor']:,.0f} cells "
        f"({loading['tokens'] / loading['processor']:,.0f} tokens) per second, {share:.1%} of the "
        "time of the fastest step.",
    ]
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
