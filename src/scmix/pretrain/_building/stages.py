"""The stages of a build, each shared by all processes that build the same corpus."""

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..._errors import InputError
from ...genes import Vocabulary
from ...settings import settings
from .._report import REPORT, report_text
from .._store import CELLS, FORMAT, MANIFEST, VOCABULARY, file_sha256, shard_folder
from ..medians import MedianSketch
from .cells import Kept, read_fates, write_cells, write_fates
from .claims import WAIT, Task, claim, do_all
from .parts import write_part
from .plan import Plan, is_free
from .shards import write_shard

_SKETCH = "sketch.npz"


def build(plan: Plan) -> None:
    """Do what nobody has done, together with all other processes that build the same corpus."""
    try:
        _stages(plan)
    except FileNotFoundError:
        if not plan.is_built():  # else another process has finished, and removed the folder
            raise


def work(room: str, parent: str) -> None:
    """Help the process that has started this one."""
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    settings.progress = False
    try:
        build(Plan.read(Path(room)))
    except (InputError, OSError):  # the parent meets the same and says so
        sys.exit(1)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _stages(plan: Plan) -> None:
    files = [(path, partial(write_part, plan, i)) for i, path in enumerate(plan.parts)]
    _do(plan, "Reading", files)
    fates = plan.room / "fates"
    _do(plan, "Comparing", [(fates, partial(write_fates, plan))])
    kept = read_fates(plan, fates)
    cells = plan.corpus / CELLS
    _do(plan, "Indexing", [(cells, partial(write_cells, plan, kept))])
    where = _own_medians(plan, kept) if plan.ranks_again else plan.room / VOCABULARY
    vocabulary = Vocabulary.read(where) if plan.ranks_again else plan.vocabulary
    shards = plan.noted(CELLS)["shards"]
    ends = np.cumsum([0, *(shard["n_cells"] for shard in shards)]).tolist()
    tasks = [
        (plan.corpus / shard_folder(i), partial(write_shard, plan, kept, vocabulary, bounds))
        for i, bounds in enumerate(pairwise(ends))
    ]
    _do(plan, "Writing", tasks)
    _finish(plan, where, vocabulary.sha256, len(shards))


def _do(plan: Plan, title: str, tasks: Sequence[tuple[Path, Callable[[Path], None]]]) -> None:
    with tqdm(total=len(tasks), desc=title, disable=not settings.progress) as bar:
        do_all([Task(result, run) for result, run in tasks], plan.locks, bar.update)


def _own_medians(plan: Plan, kept: Kept) -> Path:
    """File of the vocabulary with the medians of the cells that stay."""
    results = [plan.room / f"medians-{path.name}" for path in plan.parts]
    tasks = [(path, partial(_write_sketch, plan, kept, i)) for i, path in enumerate(results)]
    _do(plan, "Medians", tasks)
    merged = plan.room / "medians"
    _do(plan, "Medians", [(merged, partial(_merge_sketches, plan, results))])
    return merged / VOCABULARY


def _write_sketch(plan: Plan, kept: Kept, number: int, folder: Path) -> None:
    part, rows = kept.parts[number], kept.rows(number)
    sketch = MedianSketch(plan.vocabulary)
    totals, species = part.array("totals"), part.array("species")
    for some, cells, counts in part.read(rows):
        sketch.add(cells, counts, totals[some], species[some])
    sketch.save(folder / _SKETCH)


def _merge_sketches(plan: Plan, results: list[Path], folder: Path) -> None:
    sketch = MedianSketch(plan.vocabulary)
    for path in results:
        sketch.merge(MedianSketch.load(path / _SKETCH, plan.vocabulary))
    sketch.to_vocabulary().write(folder / VOCABULARY)


def _finish(plan: Plan, vocabulary: Path, sha256: str, n_shards: int) -> None:
    """Put the corpus in its place, unless another process does."""
    while plan.corpus.exists():
        with claim(plan.locks / "finish.lock") as mine:
            if mine and plan.corpus.exists():
                if not (plan.corpus / MANIFEST).exists():
                    _write_manifest(plan, vocabulary, sha256, n_shards)
                _move(plan)
                _remove(plan)
                return
        time.sleep(WAIT)


def _write_manifest(plan: Plan, vocabulary: Path, sha256: str, n_shards: int) -> None:
    shutil.copyfile(vocabulary, plan.corpus / VOCABULARY)
    path = plan.corpus / VOCABULARY
    files = {VOCABULARY: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}}
    for name in (CELLS, *map(shard_folder, range(n_shards))):
        entries = plan.noted(Path(name).name)["files"]
        files |= {f"{name}/{file}": entry for file, entry in entries.items()}
    manifest = {
        "format": FORMAT,
        "scmix_version": version("scmix"),
        "plan": plan.sha256,
        "vocabulary_sha256": sha256,
        "n_genes": plan.n_genes,
        "values": plan.values,
        "medians": plan.medians,
        "quality": asdict(plan.quality),
        **plan.noted(CELLS),
        "files": files,
    }
    (plan.corpus / REPORT).write_text(report_text(manifest), "utf-8")
    partial_file = plan.corpus / f"{MANIFEST}.partial"
    partial_file.write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    partial_file.replace(plan.corpus / MANIFEST)


def _move(plan: Plan) -> None:
    """Put the corpus in its place; one that is there is moved away first."""
    if is_free(plan.target):
        if plan.target.exists():
            plan.target.rmdir()
        plan.corpus.replace(plan.target)
        return
    if not plan.overwrite:
        raise InputError(f"{plan.target} has appeared meanwhile. Choose another folder.")
    old = _set_aside(plan.target, plan)
    plan.corpus.replace(plan.target)
    shutil.rmtree(old)


def _remove(plan: Plan) -> None:
    """Remove the folder of intermediate results: at once for processes that look into it."""
    shutil.rmtree(_set_aside(plan.folder, plan), ignore_errors=True)


def _set_aside(folder: Path, plan: Plan) -> Path:
    aside = Path(tempfile.mkdtemp(prefix=f"{plan.folder.name}.", dir=plan.target.parent))
    folder.replace(aside / "old")
    return aside
