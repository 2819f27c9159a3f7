"""Building and loading a corpus: scmix beside per-cell token lists in a `datasets` table.

The published way, as Geneformer's tokenizer and trainer go about it: 512 cells at a time are read
from a backed h5ad, divided by the medians and ranked one by one into a list of arrays; that list
becomes a table of the package `datasets`, is cut to 2,048 genes by `map`, and saved; in training
the cells of a batch are taken out as lists, padded to the longest, and masked. Both read the same
files and keep the same genes.

Every build runs in a process of its own, and its peak resident set is what the operating system
says at the end. Loading is measured alone, in one process, beside what a training step of the same
cells takes on the same machine. Cells per second are given by the clock, and per second of one core
(processor time, all processes of a build together), which other work on the machine disturbs less.

    python benchmarks/bench_corpus.py --cells 2000 20000 --threads 2
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

sys.path.append(str(Path(__file__).parent))
from peak_memory import peak

N_FILES, N_COLUMNS, TEMPLATE, LONGEST = 4, 20_000, 1_000, 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, default=50, help="loaded by each way")
    parser.add_argument("--steps", type=int, default=3, help="of training")
    parser.add_argument("--tokens", type=int, default=12_288, help="in a batch")
    parser.add_argument("--run", choices=BUILDS, help="for the processes that are measured")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.run:
        run(args.run, args.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        last = build_all(args.cells, Path(folder))
        load_all(last, args)


def build_all(sizes: list[int], folder: Path) -> Path:
    """Measure the builds; return the folder of the largest size."""
    columns = [f"{n:,} cells: cells/s | per core | peak MB" for n in sizes]
    print("| build | " + " | ".join(columns) + " |")
    print("| --- |" + " --- | --- | --- |" * len(sizes))
    make_files(folder / "warm-up", 100 * N_FILES)
    for n in sizes:
        make_files(folder / str(n), n)
    for name in ways():
        cells = []
        for n in sizes:
            done = measured(name, folder / str(n))
            rates = [done["cells"] / done[kind] for kind in ("seconds", "processor")]
            cells.append(f"{rates[0]:,.0f} | {rates[1]:,.0f} | {done['peak']:,.0f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    return folder / str(sizes[-1])


def ways() -> list[str]:
    if find_spec("datasets"):
        return list(BUILDS)
    print("The package datasets is not installed: the published way is left out.", file=sys.stderr)
    return [name for name in BUILDS if name != PUBLISHED]


def measured(name: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--run", name, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def run(name: str, folder: Path) -> None:
    import scmix

    scmix.settings.progress = False
    files = sorted(folder.glob("*.h5ad"))
    # packages are imported, and kernels read
    BUILDS[name]([folder.parent / "warm-up" / "0.h5ad"], folder / "warm-up")
    start, before = time.perf_counter(), processor_seconds()
    n_cells = BUILDS[name](files, folder / slug(name))
    seconds, processor = time.perf_counter() - start, processor_seconds() - before
    done = {"cells": n_cells, "seconds": seconds, "processor": processor, "peak": peak() / 1e6}
    print(json.dumps(done))


def processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def build(files: list[Path], out: Path, **options) -> int:
    from scmix.pretrain import build_corpus

    return len(build_corpus(files, out, overwrite=True, **options))


def build_published(files: list[Path], out: Path) -> int:
    from datasets import Dataset

    tokens = []
    for path in files:
        tokens += token_lists(ad.read_h5ad(path, backed="r"))
    table = Dataset.from_dict({"input_ids": tokens})
    table = table.map(cut)
    table = table.map(measure)
    table.save_to_disk(str(out))
    return len(table)


def cut(cell: dict) -> dict:
    return {"input_ids": cell["input_ids"][:LONGEST]}


def measure(cell: dict) -> dict:
    return {"length": len(cell["input_ids"])}


def token_lists(adata: ad.AnnData) -> list[np.ndarray]:
    from scmix.genes import Vocabulary

    table = Vocabulary.bundled().genes.set_index("ensembl_id").loc[adata.var_names]
    tokens, medians = table.token.to_numpy(), table["median"].to_numpy()
    lists = []
    for start in range(0, adata.n_obs, 512):
        counts = adata[start : start + 512].X
        totals = np.asarray(counts.sum(axis=1))
        scores = sp.csr_matrix(counts.multiply(1 / totals).multiply(10_000).multiply(1 / medians))
        for i in range(scores.shape[0]):
            row = scores[i]
            lists.append(tokens[row.indices[np.argsort(-row.data)]])
    return lists


PUBLISHED = "published way (datasets)"
BUILDS: dict[str, Callable[..., int]] = {
    "scmix": build,
    "scmix, all genes with counts": lambda files, out: build(files, out, n_genes=None, values=True),
    PUBLISHED: build_published,
}


def make_files(folder: Path, n_cells: int) -> None:
    """Files of counts with the spread of rates and depths that cells have, no two cells alike."""
    from scmix.genes import Vocabulary

    folder.mkdir()
    genes = Vocabulary.bundled().genes
    names = genes.loc[genes.species == "human", "ensembl_id"].head(N_COLUMNS).to_numpy()
    rng = np.random.default_rng(0)
    rates = rng.lognormal(0, 2.2, N_COLUMNS)
    depth = rng.lognormal(8.3, 0.5, (TEMPLATE, 1))
    template = sp.csr_matrix(rng.poisson(depth * rates / rates.sum()).astype(np.float32))
    for number in range(N_FILES):
        blocks, left = [], n_cells // N_FILES
        while left > 0:
            block = template[: min(left, TEMPLATE)].copy()
            block.data += rng.poisson(0.5, block.nnz)
            blocks.append(block)
            left -= block.shape[0]
        counts = sp.vstack(blocks, format="csr")
        obs = pd.DataFrame(index=[f"{number}-{i}" for i in range(counts.shape[0])])
        adata = ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=names))
        adata.write_h5ad(folder / f"{number}.h5ad")


def load_all(folder: Path, args: argparse.Namespace) -> None:
    """Cells per second that each way of loading gives, and that a training step takes."""
    import torch

    from scmix.pretrain import Corpus, recipe
    from scmix.pretrain.model import make_model
    from scmix.pretrain.stream import Stream

    torch.set_num_threads(args.threads)
    # with dropout of its weights attention holds them, and a step of the published recipe 16 GB
    options = {"attention_probs_dropout_prob": 0.0, "tokens_per_step": args.tokens}
    settings = recipe("mix-geneformer", **options)
    corpus = Corpus.open(folder / slug("scmix"))
    model = make_model(corpus.vocabulary, settings)
    stream = Stream(corpus, settings, model.views)
    rows = [stream.sampler.rows(step) for step in range(args.batches + 1)]
    whole = Corpus.open(folder / slug("scmix, all genes with counts"))
    print("\n| load | cells/s | per core | tokens/s per core |\n| --- | --- | --- | --- |")
    rate("tokens of random cells", lambda i: corpus.sequences(rows[i]).lengths, args.batches)
    rate("the same with counts", lambda i: counted(whole, rows[i]), args.batches)
    loaded = rate(
        "batches of mix-geneformer, made",
        lambda i: corpus.lengths[stream.batch(i)["rows"]],
        args.batches,
    )
    if (folder / slug(PUBLISHED)).exists():
        padded = Padded(folder / slug(PUBLISHED))
        n = max(args.batches // 10, 2)
        rate(f"{PUBLISHED}, padded and masked", lambda i: padded.batch(rows[i]), n)
    batches = [stream.batch(i) for i in range(args.steps + 1)]

    def step(i: int) -> np.ndarray:
        model(batches[i])["loss"].backward()
        return corpus.lengths[batches[i]["rows"]]

    needed = rate(f"a training step takes ({args.threads} threads)", step, args.steps)
    print(f"\nLoading takes 1/{loaded / needed:,.0f} of the processor time of training.")


def counted(corpus, rows: np.ndarray) -> np.ndarray:
    cells, counts = corpus.sequences(rows), corpus.counts(rows)
    if counts.size != cells.tokens.size:
        raise SystemExit("Counts and tokens do not fit.")
    return cells.lengths


def rate(name: str, load: Callable[[int], np.ndarray], n: int) -> float:
    """Print cells per second, return those per second of a core; the first call is not counted."""
    load(0)
    start, before = time.perf_counter(), processor_seconds()
    lengths = np.concatenate([load(i) for i in range(1, n + 1)])
    seconds, processor = time.perf_counter() - start, processor_seconds() - before
    rates = [lengths.size / seconds, lengths.size / processor, lengths.sum() / processor]
    shown = (f"{one:,.0f}" if one >= 10 else f"{one:.2f}" for one in rates)
    print(f"| {name} | " + " | ".join(shown) + " |", flush=True)
    return lengths.size / processor


class Padded:
    """Batches as a padding collator makes them, with 15 % of the tokens masked 80/10/10."""

    def __init__(self, folder: Path) -> None:
        from datasets import load_from_disk

        self.table = load_from_disk(str(folder))

    def batch(self, rows: np.ndarray) -> np.ndarray:
        import torch

        lists = self.table[rows.tolist()]["input_ids"]
        longest = max(map(len, lists))
        tokens = torch.zeros((len(lists), longest), dtype=torch.long)
        for i, cell in enumerate(lists):
            tokens[i, : len(cell)] = torch.tensor(cell)
        labels = torch.where((torch.rand(tokens.shape) < 0.15) & (tokens > 0), tokens, -100)
        draw = torch.rand(tokens.shape)
        tokens[(labels >= 0) & (draw < 0.8)] = 1
        other = (labels >= 0) & (draw >= 0.9)
        tokens[other] = torch.randint(4, 30_000, tokens.shape)[other]
        return np.array([len(cell) for cell in lists])


if __name__ == "__main__":
    main()
