"""Rank encoding against the published tokenizer's algorithm, in one run on the same file.

The published algorithm (Geneformer V1) is written anew here from its description: backed chunks of
512 cells, ``X / n_counts * 10,000 / median``, one argsort per cell, a `datasets.Dataset` with two
`.map` passes (truncate, add the length) saved to disk, in one process. scmix reads the same file,
in memory or backed, and checks and matches what the published code takes on trust. Both give the
same tokens (checked; exact ties as sets). Reading the vocabulary and compiling the kernels is not
part of either time. On a busy machine look at the processor times: scmix uses all threads.

    pip install scmix[bench]
    python benchmarks/bench_ranks.py                  # 5,000 cells x 20,000 genes, 10 % density
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

from scmix._slots import iter_sequences
from scmix.batches import Sequences, concat
from scmix.genes import Vocabulary
from scmix.pp._match_adata import match_adata
from scmix.ranks import rank_encode

N_GENES = 2048
CHUNK = 512


@dataclass
class Case:
    """The file, and the columns as the published code looks them up."""

    path: Path
    vocabulary: Vocabulary
    tokens: np.ndarray
    medians: np.ndarray


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
    return Case(path, vocabulary, genes["token"].to_numpy(), medians)


# -- the published algorithm ----------------------------------------------------------------------


def published_ranks(counts: sp.csr_matrix, totals: np.ndarray, case: Case) -> list[np.ndarray]:
    """Scale, then take each row of the matrix out, for its values and for its columns, and sort."""
    scaled = sp.csr_matrix(counts / totals[:, None] * 10_000 / case.medians)
    ranked = []
    for i in range(scaled.shape[0]):
        tokens = case.tokens[scaled[i].indices]
        ranked.append(tokens[np.argsort(-scaled[i].data)])
    return ranked


def published(case: Case, folder: Path) -> Sequences:
    """From the file to a saved dataset."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    adata = ad.read_h5ad(case.path, backed="r")
    totals, columns = adata.obs["n_counts"].to_numpy(), np.flatnonzero(case.tokens >= 0)
    cells = []
    for start in range(0, adata.n_obs, CHUNK):
        rows = np.arange(start, min(start + CHUNK, adata.n_obs))
        counts = adata[rows, columns].X
        cells += published_ranks(counts, totals[rows], case)
    adata.file.close()
    dataset = Dataset.from_dict({"input_ids": cells})
    dataset = dataset.map(lambda row: {"input_ids": row["input_ids"][:N_GENES]})
    dataset = dataset.map(lambda row: {"length": len(row["input_ids"])})
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
    """As arrays, for those who want them on disk as the published code puts them."""
    joined = concat(cells)
    np.save(folder / "tokens.npy", joined.tokens)
    np.save(folder / "indptr.npy", joined.indptr)


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


def report(clock: Clock, n_cells: int) -> None:
    slow, fast = "published, file to dataset", "published, ranks only"
    print(f"{'':32}{'seconds':>9}{'CPU s':>9}{'cells/s':>10}{'ratio':>8}{'CPU':>8}")
    for name, (wall, cpu) in clock.seconds.items():
        ratio = clock.seconds[fast if name.endswith("only") else slow] / (wall, cpu)
        rate = n_cells / wall
        print(f"{name:32}{wall:9.3f}{cpu:9.3f}{rate:10,.0f}{ratio[0]:7.1f}x{ratio[1]:7.1f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=3, help="runs of scmix; the best counts")
    arguments = parser.parse_args()
    logging.getLogger("scmix").setLevel("WARNING")
    clock, warm = Clock(), Clock()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case = make_case(folder, arguments.cells, arguments.genes, arguments.density)
        for backed in (False, True):
            with warm(f"{backed}"):
                ours(case, backed=backed)
        with clock("published, file to dataset"):
            expected = published(case, folder)
        for _ in range(arguments.repeats):
            with clock("scmix, file to sequences"):
                cells = concat(ours(case, backed=False))
            with clock("scmix, backed file to sequences"):
                ours(case, backed=True)
            with clock("scmix, backed file to arrays"):
                save(ours(case, backed=True), folder)
        adata = ad.read_h5ad(case.path)
        for _ in range(arguments.repeats):
            with clock("  of which matching genes"):
                match_adata(adata, case.vocabulary)
        with clock("published, ranks only"):
            published_ranks(adata.X, adata.obs["n_counts"].to_numpy(), case)
        for _ in range(arguments.repeats):
            with clock("scmix, ranks only"):
                rank_encode(adata.X, case.tokens, case.vocabulary.medians, 0, n_genes=N_GENES)
        n_tied = check_equal(case, adata.X, cells, expected)
    print(
        f"{arguments.cells:,} cells, {adata.X.nnz / arguments.cells:,.0f} counts per cell, "
        f"{numba.get_num_threads()} threads, numpy {np.__version__}, numba {numba.__version__}"
    )
    report(clock, arguments.cells)
    print(f"Same tokens; {n_tied:,} cells have exact ties in another order.")
    print("Compilation and warm-up: " + ", ".join(f"{s[0]:.1f} s" for s in warm.seconds.values()))


if __name__ == "__main__":
    main()
