"""Peak memory and time of each call on large data: backed h5ad, zarr and dask, up to 1M cells.

Simulated sparse counts are written to disk in a streaming fashion. Each call runs in a process of
its own, whose peak resident set the operating system tells at its end; what a call has to return
grows with the cells, what remains of the peak without it and without the names of the cells (which
anndata keeps in memory) is the price of the call. The model is a tiny one with random weights:
memory, not the encoder, is measured.

    python benchmarks/bench_big.py --folder /tmp/big --cells 10000 100000 1000000

Results are kept in the folder, so that a second call measures only what is missing.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
import zarr
from peak_memory import peak

N_GENES, GENES_PER_CELL, CHUNK = 20_000, 150, 20_000
WIDTH, POSITIONS = 32, 64
N_REFERENCE, N_PERTURBED = 2_000, 100
CLASSES, DONORS = ["a", "b", "c"], [f"d{i}" for i in range(8)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--cells", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--calls", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--run", choices=TASKS, help="for the processes that are measured")
    args = parser.parse_args(arguments)
    if args.run:
        measured(args.run, args.folder, args.cells[0])
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    kept = args.folder / "big.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    for n in args.cells:
        for task in args.calls:
            if f"{task} {n}" not in results:
                make_file(args.folder, n, "zarr" if task in FROM_ZARR else "h5ad")
                results[f"{task} {n}"] = run(task, args.folder, n)
                kept.write_text(json.dumps(results, indent=1))
    print(table(results, args.cells))


def run(task: str, folder: Path, n: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--run", task, "--folder", str(folder), "--cells", str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{task}, {n:,} cells: {done.stderr[-2000:]}")
    print(task, n, done.stdout.splitlines()[-1], file=sys.stderr, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(task: str, folder: Path, n: int) -> None:
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    n_bytes = TASKS[task](folder, n)
    seconds = time.perf_counter() - start
    print(json.dumps({"peak": peak() / 2**20, "result": n_bytes / 2**20, "seconds": seconds}))


def table(results: dict[str, dict[str, float]], sizes: Sequence[int]) -> str:
    """Peak, and in brackets what is left of it without its result and the peak of names alone."""
    lines = ["| call | " + " | ".join(f"{n:,} cells" for n in sizes) + " |"]
    lines.append("| --- |" + " ---: |" * len(sizes))
    for task in TASKS:
        cells = []
        for n in sizes:
            one = results.get(f"{task} {n}")
            if one is None:
                cells.append("not run")
                continue
            rest = one["peak"] - one["result"] - results[f"names {n}"]["peak"]
            cells.append(f"{one['peak']:,.0f} MB ({rest:,.0f}), {one['seconds']:,.0f} s")
        lines.append(f"| {LABELS[task]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# -- what is measured -----------------------------------------------------------------------------


def names(folder: Path, n: int) -> int:
    """What anndata itself keeps of each cell; scmix and torch are imported as in the others."""
    model()
    if not backed(folder, n).obs_names.is_unique:
        raise SystemExit("The names of the cells are not unique.")
    return 0


def embed_backed(folder: Path, n: int) -> int:
    return embed(backed(folder, n))


def embed_zarr(folder: Path, n: int) -> int:
    group = zarr.open(str(folder / f"{n}.zarr"), mode="r")
    tables = [ad.io.read_elem(group[name]) for name in ("obs", "var")]
    return embed(ad.AnnData(ad.io.sparse_dataset(group["X"]), *tables))


def embed_dask(folder: Path, n: int) -> int:
    return embed(ad.experimental.read_lazy(folder / f"{n}.zarr"))


def embed(adata: ad.AnnData) -> int:
    import scmix

    scmix.tl.embed(adata, model(), **EXACT)
    return adata.obsm["X_scmix"].nbytes


def annotate(folder: Path, n: int) -> int:
    import scmix

    adata = backed(folder, n)
    classifier = scmix.tl.fine_tune(
        adata[:N_REFERENCE].to_memory(), "cell_type", model=model(), epochs=0, device="cpu"
    )
    scmix.tl.annotate(adata, classifier, **EXACT)
    return adata.obsm["scmix_label_probabilities"].nbytes + 5 * n


def transfer_labels(folder: Path, n: int) -> int:
    import scmix

    adata = backed(folder, n)
    reference = adata[:N_REFERENCE].to_memory()
    scmix.tl.transfer_labels(adata, reference, "cell_type", model=model(), **EXACT)
    return adata.obsm["scmix_label_probabilities"].nbytes + 5 * n


def perturb(folder: Path, n: int) -> int:
    import scmix

    adata = backed(folder, n)
    genes = list(adata.var_names[:10])
    options = {"state_key": "cell_type", "start": "a", "goal": "b", "donor_key": "donor"}
    scmix.tl.perturb(
        adata, genes, model=model(), max_cells=N_PERTURBED, min_cells=1, **options, **EXACT
    )
    return 0  # a table of ten genes


TASKS = {
    "names": names,
    "embed_backed": embed_backed,
    "embed_zarr": embed_zarr,
    "embed_dask": embed_dask,
    "annotate": annotate,
    "transfer_labels": transfer_labels,
    "perturb": perturb,
}
LABELS = {
    "names": "names of the cells alone",
    "embed_backed": "`tl.embed`, backed h5ad",
    "embed_zarr": "`tl.embed`, zarr through `sparse_dataset`",
    "embed_dask": "`tl.embed`, `read_lazy` (dask)",
    "annotate": "`tl.annotate`, backed h5ad",
    "transfer_labels": f"`tl.transfer_labels`, backed h5ad, {N_REFERENCE:,} reference cells",
    "perturb": f"`tl.perturb`, backed h5ad, 10 genes, max_cells={N_PERTURBED}",
}
FROM_ZARR = {"embed_zarr", "embed_dask"}
EXACT = {"device": "cpu", "dtype": "float32"}


def backed(folder: Path, n: int) -> ad.AnnData:
    return ad.read_h5ad(folder / f"{n}.h5ad", backed="r")


def model():
    """A tiny model with random weights."""
    import scmix
    from scmix import checkpoints
    from scmix.encoder import Config
    from scmix.genes import Vocabulary

    scmix.settings.progress = False
    vocabulary = Vocabulary.bundled()
    config = Config(
        vocab_size=vocabulary.n_tokens,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=WIDTH,
        max_position_embeddings=POSITIONS,
    )
    return checkpoints.untrained(config, vocabulary)


# -- files ----------------------------------------------------------------------------------------


def make_file(folder: Path, n_cells: int, kind: str) -> None:
    """Counts as h5ad or zarr, the same cells in both."""
    path, beside = folder / f"{n_cells}.{kind}", folder / f"{n_cells}.{kind}.partial"
    if path.exists():
        return
    if kind == "zarr":
        shell(n_cells).write_zarr(beside)
        fill(zarr.open_group(str(beside), mode="r+", use_consolidated=False)["X"], n_cells)
        zarr.consolidate_metadata(str(beside))
    else:
        shell(n_cells).write_h5ad(beside)
        with h5py.File(beside, "r+") as file:
            fill(file["X"], n_cells)
    beside.rename(path)


def fill(group: "h5py.Group | zarr.Group", n_cells: int) -> None:
    """Write the counts into an empty CSR matrix, some cells at a time."""
    make = group.create_dataset if isinstance(group, h5py.Group) else group.create_array
    size = n_cells * GENES_PER_CELL
    for name, dtype in (("data", np.float32), ("indices", np.int32)):
        del group[name]
        made = make(name, shape=(size,), dtype=dtype, chunks=(min(size, 1 << 18),))
        made.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    group["indptr"][:] = np.arange(0, size + 1, GENES_PER_CELL)
    for start, indices, counts in chunks(n_cells):
        group["indices"][start : start + counts.size] = indices
        group["data"][start : start + counts.size] = counts


def shell(n_cells: int) -> ad.AnnData:
    """Names and labels, no counts yet."""
    from scmix.genes import Vocabulary

    genes = Vocabulary.bundled().genes
    names = genes.loc[genes["species"] == "human", "ensembl_id"].head(N_GENES)
    numbers = np.arange(n_cells)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(numbers % 3, CLASSES),
            "donor": pd.Categorical.from_codes(numbers // 3 % 8, DONORS),
        },
        index=[f"cell{i}" for i in numbers],
    )
    empty = sp.csr_matrix((n_cells, len(names)), dtype=np.float32)
    return ad.AnnData(empty, obs=obs, var=pd.DataFrame(index=names.to_numpy(str)))


def chunks(n_cells: int):
    """Entries of some cells at a time; the first ten genes are in many cells."""
    rng = np.random.default_rng(0)
    span = N_GENES // GENES_PER_CELL
    for first in range(0, n_cells, CHUNK):
        shape = min(CHUNK, n_cells - first), GENES_PER_CELL
        # one gene out of each of as many equal spans, so that indices rise
        offset = rng.integers(span, size=shape)
        offset[:, 0] = rng.integers(10, size=shape[0])
        indices = np.arange(GENES_PER_CELL) * span + offset
        counts = 1 + rng.poisson(1.0, size=shape)
        counts[:, 0] += 50  # so that the model reads it
        yield first * GENES_PER_CELL, indices.ravel(), counts.ravel()


if __name__ == "__main__":
    main()
