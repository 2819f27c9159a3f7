"""Peak memory does not grow with the number of cells, apart from the result itself.

Ranks (streamed from a backed h5ad) and `tl.embed` (a small encoder on the same file) at 10,000
and 100,000 cells, and the names of the cells alone, which anndata keeps in memory; each runs in a
process of its own, and its peak resident set is what the operating system says at the end. The
file is made once, in a temporary folder.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import scipy.sparse as sp
from peak_memory import peak

N_GENES, GENES_PER_CELL, CHUNK = 20_000, 500, 5_000
WIDTH = 64  # of the small encoder: the result has 4 * WIDTH bytes per cell


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--run", choices=TASKS, help="for the processes that are measured")
    parser.add_argument("--file", type=Path)
    args = parser.parse_args(arguments)
    if args.run:
        TASKS[args.run](args.file)
        print(peak() / 2**20)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(args.cells, Path(folder))


def measure(sizes: list[int], folder: Path) -> None:
    files = {n: make_file(folder / f"{n}.h5ad", n) for n in sizes}
    print("| what | " + " | ".join(f"{n:,} cells" for n in sizes) + " | ratio |")
    print("| --- |" + " --- |" * (len(sizes) + 1))
    for task in TASKS:
        peaks = [run(task, files[n]) for n in sizes]
        row(f"{task}, peak MB", peaks)
        if task == "embed":
            results = [n * WIDTH * 4 / 2**20 for n in sizes]
            rest = [peak - own for peak, own in zip(peaks, results, strict=True)]
            row("embed, without the result, MB", rest)


def row(name: str, values: list[float]) -> None:
    shown = " | ".join(f"{v:,.0f}" for v in values)
    print(f"| {name} | {shown} | {values[-1] / values[0]:.2f} |", flush=True)


def run(task: str, file: Path) -> float:
    command = [sys.executable, __file__, "--run", task, "--file", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def ranks(file: Path) -> None:
    from scmix import _slots
    from scmix.genes import Vocabulary

    adata = ad.read_h5ad(file, backed="r")
    n = sum(len(b.sequences) for b in _slots.iter_sequences(adata, Vocabulary.bundled()))
    if n != adata.n_obs:
        raise SystemExit(f"{n} of {adata.n_obs} cells were read")


def embed(file: Path) -> None:
    import scmix
    from scmix import checkpoints
    from scmix.encoder import Config
    from scmix.genes import Vocabulary

    vocabulary = Vocabulary.bundled()
    config = Config(
        vocab_size=vocabulary.n_tokens,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=WIDTH,
        max_position_embeddings=64,
    )
    scmix.settings.progress = False
    adata = ad.read_h5ad(file, backed="r")
    scmix.tl.embed(adata, checkpoints.untrained(config, vocabulary), device="cpu")


def names(file: Path) -> None:
    """What anndata itself keeps of each cell."""
    if not ad.read_h5ad(file, backed="r").obs_names.is_unique:
        raise SystemExit("The names of the cells are not unique.")


TASKS = {"names": names, "ranks": ranks, "embed": embed}


def make_file(path: Path, n_cells: int) -> Path:
    """Counts of human genes, written a chunk at a time."""
    from scmix.genes import Vocabulary

    genes = Vocabulary.bundled().genes
    names = genes.loc[genes["species"] == "human", "ensembl_id"].head(N_GENES)
    empty = sp.csr_matrix((n_cells, len(names)), dtype=np.float32)
    shell = ad.AnnData(empty)
    shell.var_names = names.to_numpy(dtype=str)
    shell.write_h5ad(path)
    rng = np.random.default_rng(0)
    n_entries = n_cells * GENES_PER_CELL
    with h5py.File(path, "r+") as file:
        group = file["X"]
        for name, dtype in (("data", np.float32), ("indices", np.int32)):
            del group[name]
            group.create_dataset(name, (n_entries,), dtype, chunks=(CHUNK * GENES_PER_CELL // 10,))
        group["indptr"][:] = np.arange(0, n_entries + 1, GENES_PER_CELL)
        for start in range(0, n_cells, CHUNK):
            rows = min(CHUNK, n_cells - start)
            where = slice(start * GENES_PER_CELL, (start + rows) * GENES_PER_CELL)
            # one gene out of each of as many equal spans, so that indices rise
            span = len(names) // GENES_PER_CELL
            picked = np.arange(GENES_PER_CELL) * span + rng.integers(
                span, size=(rows, GENES_PER_CELL)
            )
            group["indices"][where] = picked.ravel()
            group["data"][where] = 1 + rng.poisson(1.0, size=picked.size)
    return path


if __name__ == "__main__":
    main()
