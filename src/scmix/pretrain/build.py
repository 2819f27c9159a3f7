"""Count files to a corpus: cells are checked, ranked, compared with each other, and stored."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Literal

from .._errors import InputError, ResourceError
from .._rank_kernels import MAX_RANK
from ..genes import Vocabulary
from ..ranks import n_threads
from ._building.plan import Plan, is_free, stamps_of
from ._building.quality import Quality
from ._building.source import Source, check_sources
from ._building.stages import build
from ._store import MANIFEST
from .corpus import Corpus

__all__ = ["Source", "build_corpus"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_TIDY = 600  # seconds
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_WORKER = "import sys; from scmix.pretrain._building.stages import work; work(*sys.argv[1:])"


def build_corpus(
    files: Iterable[Source | str | PathLike[str]],
    out: str | PathLike[str],
    *,
    vocabulary: Vocabulary | None = None,
    n_genes: int | None = 2048,
    values: bool = False,
    medians: Literal["vocabulary", "corpus"] = "vocabulary",
    min_counts: float = 0,
    max_counts: float | None = None,
    min_genes: int = 50,
    max_genes: int | None = None,
    max_mitochondrial: float | None = None,
    shard_tokens: int = 1 << 29,
    n_jobs: int = 1,
    overwrite: bool = False,
) -> Corpus:
    """Rank the cells of h5ad and zarr files and store their tokens in a folder.

    Files are read in blocks, and results are written as they come, so memory grows neither with
    the number of cells nor with that of files. A cell is left out when quality control (below)
    says so, when a cell with the same counts (of the genes in the vocabulary) came before, or one
    with the same name (:attr:`Source.cell_key`), in any file: put the file with more genes first.

    The folder appears when it is complete. Until then results lie beside it, in
    ``.<name>.building``: a build that was interrupted goes on from there when it is called again
    with the same arguments; after an error the files that were read are not read again. Any number
    of processes, on one machine or several with a common disk, may build the same corpus at once
    by the same call; the corpus does not depend on their number. When a corpus of exactly these
    files and options is there already, it is opened.

    Parameters
    ----------
    files
        Paths of h5ad or zarr files with raw counts, or :class:`Source` where a file needs more
        said.
    out
        Folder to write.
    vocabulary
        Genes and tokens; None: the bundled vocabulary.
    n_genes
        Most genes kept of a cell, by rank; None: all.
    values
        Whether raw counts are stored beside the tokens.
    medians
        Whose medians genes are ranked by: the vocabulary's, or those of the corpus itself
        (:class:`MedianSketch`), each species for itself. ``corpus.vocabulary`` then has them.
    min_counts, max_counts
        Fewest and most counts of a cell, over all genes of its file; None: any number.
    min_genes, max_genes
        Fewest and most genes with a count that the vocabulary has for the cell's species.
    max_mitochondrial
        Greatest share (0 to 1) of a cell's counts in the 13 genes that mitochondria encode; None:
        any. A file without these genes loses no cell by it.
    shard_tokens
        Tokens in each file of the store.
    n_jobs
        Processes that this call starts to build at once, this one among them.
    overwrite
        Whether a corpus that is already there may be replaced.

    Returns
    -------
    The corpus, opened. ``print(corpus.report())`` says how many cells were read, kept and left out
    of each file, and why; ``corpus.manifest["sources"]`` says the same to programs.

    Raises
    ------
    InputError
        When files or options cannot be used, or no cell is left.
    ResourceError
        When the disk is full or cannot be written to.

    Examples
    --------
    >>> import tempfile, anndata as ad, numpy as np, pandas as pd
    >>> from scmix.genes import Vocabulary
    >>> from scmix.pretrain import build_corpus
    >>> genes = Vocabulary.bundled().genes.query("species == 'human'").ensembl_id[:200]
    >>> counts = np.random.default_rng(0).poisson(1.0, (8, 200)).astype(np.float32)
    >>> folder = tempfile.mkdtemp()
    >>> ad.AnnData(counts, var=pd.DataFrame(index=genes)).write_h5ad(folder + "/cells.h5ad")
    >>> build_corpus([folder + "/cells.h5ad"], folder + "/corpus")
    Corpus of 8 cells (8 human, 0 mouse), ... tokens, 1 data sets, vocabulary 'shared'
    """
    sources = [file if isinstance(file, Source) else Source(file) for file in files]
    check_sources(sources)
    _check_options(n_genes, medians, shard_tokens, n_jobs)
    plan = Plan(
        target=Path(out),
        sources=tuple(sources),
        stamps=stamps_of(sources),
        vocabulary=Vocabulary.bundled() if vocabulary is None else vocabulary,
        quality=Quality(min_counts, max_counts, min_genes, max_genes, max_mitochondrial),
        n_genes=n_genes,
        values=values,
        medians=medians,
        shard_tokens=shard_tokens,
        n_threads=max(1, n_threads() // n_jobs),
        overwrite=overwrite,
    )
    with _clear_disk_errors(plan):
        if not plan.is_built() or overwrite:
            _check_target(plan.target, overwrite)
            plan.prepare()
            with _keep_what_was_read(plan), _workers(plan, n_jobs - 1):
                build(plan)
        plan.clean()
    return Corpus.open(plan.target)


def _check_options(n_genes: int | None, medians: str, shard_tokens: int, n_jobs: int) -> None:
    if n_genes is not None and not 1 <= n_genes <= MAX_RANK:
        raise InputError(f"Found n_genes={n_genes}; expected 1 to {MAX_RANK:,}, or None for all.")
    if medians not in ("vocabulary", "corpus"):
        raise InputError(f"Found medians={medians!r}; expected 'vocabulary' or 'corpus'.")
    if shard_tokens < 1 or n_jobs < 1:
        raise InputError(f"Found shard_tokens={shard_tokens}, n_jobs={n_jobs}; expected 1 or more.")


def _check_target(target: Path, overwrite: bool) -> None:
    if is_free(target):
        return
    if not (target / MANIFEST).is_file():
        raise InputError(f"{target} exists and is not a corpus. Choose another folder.")
    if not overwrite:
        raise InputError(
            f"{target} exists and was built from other files or with other options. Open it with "
            "Corpus.open, or pass overwrite=True."
        )


@contextmanager
def _workers(plan: Plan, n: int) -> Iterator[None]:
    """Processes that build too; each knows all it needs from the folder of the plan."""
    command = [sys.executable, "-c", _WORKER, str(plan.room.resolve()), str(os.getpid())]
    running = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(n)]  # noqa: S603
    try:
        yield
        for process in running:  # they find that all is done; one may still be tidying up
            process.wait(_TIDY)
    finally:
        for process in running:
            process.terminate()
            process.wait()


@contextmanager
def _keep_what_was_read(plan: Plan) -> Iterator[None]:
    """After an error, say where parts are, or leave nothing where there are none."""
    try:
        yield
    except InputError as error:
        n_read = sum(path.exists() for path in plan.parts)
        if not n_read:
            shutil.rmtree(plan.folder, ignore_errors=True)
            raise
        raise type(error)(
            f"{error}\n{n_read} of {len(plan.parts)} files were read and are kept in "
            f"{plan.folder}: build again to go on, or delete that folder."
        ) from error


@contextmanager
def _clear_disk_errors(plan: Plan) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceError(
                f"The disk is full. What was built so far is kept in {plan.folder}: make room and "
                "build again with the same arguments, or delete that folder."
            ) from error
        if error.errno in _FORBIDDEN:
            raise ResourceError(
                f"Cannot write to {plan.target.parent}: {error.strerror}. Choose another folder."
            ) from error
        raise
