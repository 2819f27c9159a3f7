"""Cell types told by scmix and by everything it is judged beside: the table of the documentation.

    SCMIX_DATA=... python benchmarks/bench_cell_types.py --page docs/results/cell_types.md

Each data set is split as `scmix.tl.evaluate` does it (five folds; by donor or batch where these are
known and not the same thing as the cell type), pairs of a human and a mouse data set are learned on
one species and tested on the other. Every method, data set and seed is a row of <out>/rows.csv,
appended when it is done and skipped by later runs, so the script can be stopped and called again;
predictions and vectors lie beside it. Rows are known by the sha256 of the model: another model
makes its own. `--page` writes Markdown from the rows of this model.
"""

import argparse
import hashlib
import logging
import os
import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
from bench_confidence import vectors_kept
from bench_zero_shot import HELD_OUT, PAIRS, load, load_pair
from cell_types_page import write_page

import scmix
from scmix.genes import SPECIES
from scmix.tl._evaluation import methods as simple
from scmix.tl._evaluation import representations as rep
from scmix.tl._evaluation.cells import Cells, read_cells
from scmix.tl._evaluation.fine_tuned import fine_tuned
from scmix.tl._evaluation.folds import Fold
from scmix.tl._evaluation.methods import Method
from scmix.tl._evaluation.other_packages import OTHERS, others
from scmix.tl._evaluation.scores import outcome, predict
from scmix.tl._evaluation.splits import Design, between, within

N_SPLITS = 5
# data set -> what it is, and the column that splits go by
WITHIN = {
    "baron_human_cider": ("pancreas, human", "batch"),
    "baron_mouse1": ("pancreas, mouse", None),
    "pbmc3k": ("PBMC 3k, human", None),
    "zheng_facs_pbmc": ("PBMC sorted, human", None),
    "jaitin_spleen": ("spleen, mouse", None),
    "zeisel_cortex_sub": ("cortex, mouse", None),
    "marques_oligo": ("oligodendrocytes, mouse", None),
    "bone_marrow_cytosimplex": ("bone marrow, mouse", None),
    "sie_haber_scdesign2": ("intestine, mouse", None),
    "lung_celllines_scmixology": ("lung cell lines, human", "batch"),
}
GROUPS = ("baselines", "zero-shot", "fine-tuned", "others")


class Question:
    """A data set and its splits; vectors of the encoders are made when first needed.

    Parameters
    ----------
    name
        Of the data set or pair.
    cells
        Its cells.
    designs
        What is tested on what.
    reading
        How genes are read, for the model.
    groups
        Column of donors or batches.
    """

    def __init__(
        self,
        name: str,
        cells: Cells,
        designs: list[Design],
        reading: dict[str, object],
        groups: str | None,
    ) -> None:
        self.name, self.cells, self.designs = name, cells, designs
        self.reading, self.groups = reading, groups

    def vectors(self, model: scmix.checkpoints.Model, cache: Path) -> np.ndarray:
        key = hashlib.sha256(
            f"{self.name} {model.sha256} {len(self.cells.codes)}".encode()
            + "".join(self.cells.adata.obs_names).encode()
        )
        file = cache / f"{self.name.replace(' ', '_')}-{key.hexdigest()[:16]}.npy"
        if not file.exists():
            vectors = rep.embed_cells(self.cells, model, **self.reading)
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, vectors)
        return np.load(file)


def question(folder: Path, name: str, seeds: Sequence[int], max_cells: int) -> Question:
    """A data set or pair by name."""
    pair = name in PAIRS
    groups = None if pair else WITHIN[name][1]
    adata = load_pair(folder, *PAIRS[name], max_cells) if pair else load(folder, name, max_cells)
    reading = {
        "species": None,
        "species_key": "species",
        "gene_ids": None,
        "on_duplicate": "sum",
        "allow_noninteger": False,
    }
    cells = read_cells(adata, "cell_type", groups=groups, layer=None, fewest=N_SPLITS, **reading)
    designs = (
        between(cells.species, SPECIES, seeds)
        if pair
        else [within(cells.codes, cells.groups, N_SPLITS, seeds, groups or "")]
    )
    return Question(name, cells, designs, reading, groups)


def methods_of(
    group: str, asked: Question, model: scmix.checkpoints.Model, cache: Path
) -> list[Method]:
    """Rows of the table that belong to a group."""
    if group == "baselines":
        rows = simple.baselines()
        if not asked.cells.two_species:
            return rows
        vectors = rep.orthologue_components(asked.cells, asked.reading)
        known = rep.Representation("PCA of orthologues", "baseline", vectors)
        return [*rows, *both(known), *both(rep.centred(known, asked.cells))]
    if group == "zero-shot":
        twin = scmix.models.untrained(model, seed=0)
        known = rep.Representation("untrained encoder", "baseline", asked.vectors(twin, cache))
        ours = rep.Representation(model.name, "scmix", asked.vectors(model, cache))
        rows = [*both(known), *both(ours)]
        return [*rows, *both(rep.centred(ours, asked.cells))] if asked.cells.two_species else rows
    if group == "fine-tuned":
        return [fine_tuned(model, asked.groups, asked.reading, {})]
    return [method for method in others(list(OTHERS)) if not method.missing]


def both(known: rep.Representation) -> list[Method]:
    return simple.on_vectors(known)


def needs_model(method: Method) -> bool:
    return method.kind == "scmix" or method.representation == "untrained encoder"


class Rows:
    """The rows that are done.

    Parameters
    ----------
    folder
        Holds `rows.csv` and `predictions/`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "rows.csv"
        (folder / "predictions").mkdir(parents=True, exist_ok=True)
        self.done = set(self.table()["key"]) if self.file.exists() else set()

    def table(self) -> pd.DataFrame:
        return pd.read_csv(self.file, keep_default_na=False, na_values=["nan"])

    def add(self, row: dict, codes: np.ndarray, truth: np.ndarray, units: np.ndarray) -> None:
        """Append a row; its predictions are written first, so that a row always has them."""
        np.savez_compressed(self.predictions(row["key"]), codes=codes, truth=truth, units=units)
        pd.DataFrame([row]).to_csv(
            self.file, mode="a", header=not self.file.exists(), index=False, na_rep="nan"
        )
        self.done.add(row["key"])

    def predictions(self, key: str) -> Path:
        return self.folder / "predictions" / f"{key}.npz"


def run(
    asked: Question, group: str, model: scmix.checkpoints.Model, rows: Rows, cache: Path
) -> None:
    """All rows of a data set that are not there yet."""
    made: list[Method] = []
    for design in asked.designs:
        for seed, about, name in planned(asked, design, group, model, rows):
            made = made or methods_of(group, asked, model, cache)
            folds = [Fold(asked.cells, split) for split in design.by_seed[seed]]
            for method in made:
                if design.fixed and not method.seeded and seed != next(iter(design.by_seed)):
                    continue  # no seed changes it
                row = about | key_of(method, about, name, model)
                if row["key"] not in rows.done:
                    answer(asked, design, method, folds, row, rows)


def planned(
    asked: Question, design: Design, group: str, model: scmix.checkpoints.Model, rows: Rows
) -> Iterator[tuple[int, dict, str]]:
    """Seeds that a group still has to do, without making vectors to find out."""
    cells = asked.cells
    name = hashlib.sha256("".join(cells.adata.obs_names).encode()).hexdigest()[:12]
    for seed in design.by_seed:
        about = {
            "data": asked.name,
            "split": design.name,
            "seed": seed,
            "cells": name,
            "n_test": design.tested.size,
            "n_types": len(np.unique(cells.codes[design.tested])),
            "unit": "donors or batches" if cells.groups is not None else "cells",
            "fixed": design.fixed,
        }
        mark = f"{name} {design.name} {seed} {group} {model.sha256}"
        done = rows.folder / "done" / hashlib.sha256(mark.encode()).hexdigest()[:24]
        if done.exists():
            continue
        yield seed, about, name
        done.parent.mkdir(exist_ok=True)
        done.touch()


def key_of(method: Method, about: dict, name: str, model: scmix.checkpoints.Model) -> dict:
    sha = model.sha256 if needs_model(method) else ""
    parts = [name, about["split"], method.representation, method.classifier, about["seed"], sha]
    key = hashlib.sha256(" | ".join(map(str, parts)).encode()).hexdigest()[:24]
    return {
        "key": key,
        "representation": method.representation,
        "classifier": method.classifier,
        "kind": method.kind,
        "seeded": method.seeded,
        "model_sha256": sha,
    }


def answer(
    asked: Question, design: Design, method: Method, folds: list[Fold], row: dict, rows: Rows
) -> None:
    start = time.perf_counter()
    truth = asked.cells.codes[design.tested]
    found = outcome(method, predict(method, folds), truth)
    groups = asked.cells.groups
    units = np.arange(truth.size) if groups is None else groups[design.tested]
    seconds = round(time.perf_counter() - start, 1)
    rows.add(row | found.scores | {"seconds": seconds}, found.codes, truth, units)
    print(
        f"{row['data']:28} {row['split']:20} {method.representation} {method.classifier} seed "
        f"{row['seed']}: macro-F1 {found.scores['macro_f1']:.3f} ({seconds} s)",
        flush=True,
    )


def versions() -> dict[str, str]:
    """Versions of the packages that made the numbers."""
    names = ("scmix", "torch", "scikit-learn", "scanpy", "anndata", "numpy", "celltypist",
             "scvi-tools", "singler")  # fmt: skip
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="scmix-mini", help="name or folder")
    parser.add_argument("--data-sets", default=",".join([*WITHIN, *PAIRS]), help="by comma")
    parser.add_argument("--methods", default=",".join(GROUPS), help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="by comma")
    parser.add_argument("--max-cells", type=int, default=1500, help="of a data set or side")
    parser.add_argument("--out", type=Path, default=Path("cell_types"), help="folder of the rows")
    parser.add_argument("--page", type=Path, help="Markdown file to write from all rows there are")
    parser.add_argument("--note", default="", help="a sentence for the head of the page")
    args = parser.parse_args(arguments)
    if "SCMIX_DATA" not in os.environ:
        print("SCMIX_DATA is not set: it names the folder with data/. Nothing to do.")
        return
    unknown = (set(listed(args.data_sets)) - {*WITHIN, *PAIRS}) | (
        set(listed(args.methods)) - set(GROUPS)
    )
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    logging.getLogger("scmix").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    scmix.settings.progress = False
    folder = Path(os.environ["SCMIX_DATA"]) / "data"
    model = scmix.models.load(args.model)
    rows = Rows(args.out)
    seeds = [int(seed) for seed in listed(args.seeds)]
    for group in listed(args.methods):
        for name in listed(args.data_sets):
            asked = question(folder, name, seeds, args.max_cells)
            with vectors_kept():  # no row trains the encoder
                run(asked, group, model, rows, args.out / "vectors")
    if args.page:
        names = {name: title for name, (title, _) in WITHIN.items()} | {n: n for n in PAIRS}
        write_page(args.page, rows, names, HELD_OUT, model, versions(), args.note)


if __name__ == "__main__":
    main()
