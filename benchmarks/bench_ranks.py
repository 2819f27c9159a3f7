"""Rank encoding against the published tokenizer's algorithm, in one run on the same file.

The published algorithm (Geneformer V1) is written anew here from its description: genes looked up
one by one, backed chunks of 512 cells, ``X / n_counts * 10,000 / median``, one argsort per cell, a
`datasets.Dataset` with two `.map` passes (truncate, add the length) saved to disk. It calls `.map`
with num_proc=1, for which `datasets` starts a process now (and did not always): it is timed with
that and, kinder, without.

scmix reads the same file, and checks and matches what the published code takes on trust. It is
timed to what its own functions work on, sequences in memory, and to the very thing the published
code leaves behind, a saved dataset. Both give the same tokens (checked; exact ties as sets).
Reading the vocabulary and compiling the kernels is not part of any time. scmix uses all threads: on
a busy machine give both the processor (`chrt -f 1`), and believe no single run.

What limits it, on one core (`chrt -f 1 taskset -c 0`; seconds of 5,000 cells, 10 million counts, in
all 0.15): ranking 64 to 79 ms, which threads share; reading 80 MB by h5py, one thread at a time, 40
to 45 ms; opening the file 14 ms and matching the genes 6 ms before either can begin; checking 4 ms.
With two threads reading and ranking overlap, but opening and matching stay. They hardly grow with
the cells, so that ratios do, which is why 10,000 cells are the default. Two cores that did nothing
else, ratio to the published file-to-dataset (ranks: to its ranks):

    cells    backed file   file read into   backed file    ranks
             to sequences  memory           to dataset     only
    5,000    48.0          36.6             34.6           44.3
    10,000   63.4          33.7             43.0           52.5

At 10,000 cells the published way takes 10.87 s (920 cells/s), scmix 0.171 s from the backed file to
sequences, which is its end to end: nothing in scmix needs a saved dataset. Beside the published way
without a process for .map (the column "kinder", 7.5 s) that is 42 to 46 times as fast.

    pip install scmix[bench]
    python benchmarks/bench_ranks.py                  # 10,000 cells x 20,000 genes, 10 % density
    python benchmarks/bench_ranks.py --cells 500
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numba
import numpy as np
import pandas as pd
import scipy.sparse as sp
from datasets import disable_progress_bars

from scmix._slots import iter_sequences
from scmix.batches import Sequences, concat
from scmix.genes import Vocabulary
from scmix.pp._match_adata import match_adata
from scmix.ranks import rank_encode

N_GENES = 2048
CHUNK = 512
KINDER = "  without a process for .map"


@dataclass
class Case:
    """The file, token and median of its columns, and the dictionaries of the published code."""

    path: Path
    vocabulary: Vocabulary
    tokens: np.ndarray
    medians: np.ndarray
    token_of: dict[str, int]
    median_of: dict[str, float]


class Clock:
    """Wall and processor seconds by step; the best of several runs."""

    def __init__(self) -> None:
        self.seconds: dict[str, np.ndarray] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = np.array([time.perf_counter(), time.process_time()])
        yield
        taken = np.array([time.perf_counter(), time.process_time()]) - start
        self.seconds[name] = np.minimum(taken, self.seconds.get(name, taken))


def make_case(folder: Path, n_cells: int, n_columns: int, density: float) -> Case:
    """Synthetic counts over real human genes, as an uncompressed CSR h5ad file."""
    vocabulary = Vocabulary.bundled()
    rng = np.random.default_rng(0)
    human = vocabulary.genes.query("species == 'human'")
    genes = human.iloc[rng.choice(len(human), n_columns, replace=False)]
    counts = sp.random(n_cells, n_columns, density, "csr", np.float32, rng)
    rate = rng.lognormal(0, 1, n_columns)[counts.indices]
    counts.data[:] = 1 + rng.poisson(rate)
    counts.sort_indices()
    obs = pd.DataFrame(
        {"n_counts": np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()},
        index=[f"cell{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame(index=genes["ensembl_id"].to_numpy(str))
    path = folder / "cells.h5ad"
    ad.AnnData(counts, obs=obs, var=var).write_h5ad(path)
    medians = genes["median"].to_numpy(np.float64)
    by_id = human.set_index("ensembl_id")
    token_of, median_of = by_id["token"].to_dict(), by_id["median"].astype(float).to_dict()
    return Case(path, vocabulary, genes["token"].to_numpy(), medians, token_of, median_of)


# -- the published algorithm ----------------------------------------------------------------------


def published_ranks(
    counts: sp.csr_matrix, totals: np.ndarray, tokens: np.ndarray, medians: np.ndarray
) -> list[np.ndarray]:
    """Scale, then take each row of the matrix out, for its values and for its columns, and sort."""
    scaled = sp.csr_matrix(counts / totals[:, None] * 10_000 / medians)
    ranked = []
    for i in range(scaled.shape[0]):
        row_tokens = tokens[scaled[i].indices]
        ranked.append(row_tokens[np.argsort(-scaled[i].data)])
    return ranked


def published_cells(case: Case) -> list[np.ndarray]:
    """From the file to a list of arrays."""
    adata = ad.read_h5ad(case.path, backed="r")
    columns = np.flatnonzero([name in case.median_of for name in adata.var_names])
    names = adata.var_names[columns]
    medians = np.array([case.median_of[name] for name in names])
    tokens = np.array([case.token_of[name] for name in names])
    cells = []
    for start in range(0, adata.n_obs, CHUNK):
        rows = np.arange(start, min(start + CHUNK, adata.n_obs))
        totals = adata[rows].obs["n_counts"].to_numpy()
        cells += published_ranks(adata[rows, columns].X, totals, tokens, medians)
    adata.file.close()
    return cells


def published(case: Case, folder: Path, n_processes: int | None) -> Sequences:
    """From the file to a saved dataset."""
    from datasets import Dataset

    def truncate(cell):
        cell["input_ids"] = cell["input_ids"][:N_GENES]
        return cell

    def add_length(cell):
        cell["length"] = len(cell["input_ids"])
        return cell

    cells = published_cells(case)
    dataset = Dataset.from_dict({"input_ids": cells})
    for change in (truncate, add_length):
        dataset = dataset.map(change, num_proc=n_processes)
    dataset.save_to_disk(str(folder / "published.dataset"))
    return Sequences.from_list([cell[:N_GENES] for cell in cells])


# -- scmix ----------------------------------------------------------------------------------------


def ours(case: Case, *, backed: bool) -> list[Sequences]:
    """From the file to the sequences that `scmix.tl` works on, which need no file of their own."""
    adata = ad.read_h5ad(case.path, backed="r" if backed else None)
    blocks = iter_sequences(adata, case.vocabulary, n_genes=N_GENES)
    cells = [block.sequences for block in blocks]
    if backed:
        adata.file.close()
    return cells


def save(cells: list[Sequences], folder: Path) -> None:
    """As the dataset that the published code saves."""
    import pyarrow as pa
    from datasets import Dataset

    joined = concat(cells)
    lists = pa.ListArray.from_arrays(joined.indptr.astype(np.int32), joined.tokens)
    table = pa.table({"input_ids": lists, "length": joined.lengths})
    dataset = Dataset(table, fingerprint="scmix")  # else it is made from all tokens, in 0.1 s
    dataset.save_to_disk(str(folder / "scmix.dataset"))


def load(path: Path) -> Sequences:
    """A saved dataset as sequences."""
    from datasets import load_from_disk

    columns = load_from_disk(str(path)).data
    lists = columns.column("input_ids").combine_chunks()
    lengths = columns.column("length").to_numpy()
    return Sequences(lists.flatten().to_numpy(), np.concatenate([[0], np.cumsum(lengths)]))


# -- comparison -----------------------------------------------------------------------------------


def check_equal(case: Case, counts: sp.csr_matrix, a: Sequences, b: Sequences) -> int:
    """Raise unless both have the same scores in the same order; return how many cells differ."""
    if not np.array_equal(a.indptr, b.indptr):
        raise SystemExit("The lengths differ.")
    column = np.empty(case.vocabulary.n_tokens, np.int64)
    column[case.tokens] = np.arange(case.tokens.size)
    n_differ = 0
    for i, (first, second) in enumerate(zip(a, b, strict=True)):
        if np.array_equal(first, second):
            continue
        n_differ += 1
        score = counts[i].toarray()[0].astype(np.float64) / case.medians
        tied = score[column[first]] == score[column[second]]
        inner = score[column[first]] > score[column[first[-1]]]  # the last run may be cut
        if not tied.all() or set(first[inner]) != set(second[inner]):
            raise SystemExit(f"The tokens of cell {i} differ.")
    return n_differ


def same(a: Sequences, b: Sequences) -> bool:
    return np.array_equal(a.tokens, b.tokens) and np.array_equal(a.indptr, b.indptr)


def report(clock: Clock, n_cells: int) -> None:
    slow, sort = "published, file to dataset", "published, ranks only"
    print(f"{'':32}{'seconds':>9}{'CPU s':>9}{'cells/s':>10}{'ratio':>8}{'kinder':>9}")
    for name, (wall, cpu) in clock.seconds.items():
        base = (sort, sort) if name.endswith("only") else (slow, KINDER)
        ratio, kinder = (clock.seconds[other][0] / wall for other in base)
        print(f"{name:32}{wall:9.3f}{cpu:9.3f}{n_cells / wall:10,.0f}{ratio:7.1f}x{kinder:8.1f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=3, help="runs of both; the best counts")
    arguments = parser.parse_args()
    logging.getLogger("scmix").setLevel("WARNING")
    disable_progress_bars()
    clock, warm = Clock(), Clock()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case = make_case(folder, arguments.cells, arguments.genes, arguments.density)
        for backed in (False, True):
            with warm(f"{backed}"):
                ours(case, backed=backed)
        for _ in range(arguments.repeats):
            with clock("published, file to dataset"):
                expected = published(case, folder, 1)
            with clock(KINDER):
                published(case, folder, None)
        for _ in range(arguments.repeats):
            with clock("scmix, file to sequences"):
                ours(case, backed=False)
            with clock("scmix, backed file to sequences"):
                ours(case, backed=True)
            with clock("scmix, backed file to dataset"):
                save(ours(case, backed=True), folder)
        adata = ad.read_h5ad(case.path)
        for _ in range(arguments.repeats):
            with clock("  of which matching genes"):
                match_adata(adata, case.vocabulary)
        with clock("published, ranks only"):
            totals = adata.obs["n_counts"].to_numpy()
            published_ranks(adata.X, totals, case.tokens, case.medians)
        for _ in range(arguments.repeats):
            with clock("scmix, ranks only"):
                rank_encode(adata.X, case.tokens, case.vocabulary.medians, 0, n_genes=N_GENES)
        n_tied = check_equal(case, adata.X, load(folder / "scmix.dataset"), expected)
        if not same(load(folder / "published.dataset"), expected):
            raise SystemExit("The published dataset is not what was put into it.")
    print(
        f"{arguments.cells:,} cells, {adata.X.nnz / arguments.cells:,.0f} counts per cell, "
        f"{numba.get_num_threads()} threads, numpy {np.__version__}, numba {numba.__version__}"
    )
    report(clock, arguments.cells)
    print(f"Same tokens; {n_tied:,} cells have exact ties in another order.")
    print("Compilation and warm-up: " + ", ".join(f"{s[0]:.1f} s" for s in warm.seconds.values()))


if __name__ == "__main__":
    main()
