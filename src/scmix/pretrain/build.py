"""Count files to a corpus: cells are ranked, compared with those before, and stored."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import anndata as ad
import numpy as np
import scipy.sparse as sp
from tqdm.auto import tqdm

from .._errors import InputError, MissingKeyError
from .._rank_kernels import MAX_RANK
from .._slots import iter_counts
from ..batches import Sequences
from ..genes import SPECIES, Vocabulary
from ..pp._match_adata import match_adata
from ..ranks import rank_encode
from ..settings import settings
from ._counts import aligned_counts
from ._duplicates import SeenCells, content_hashes
from ._store import FORMAT, MANIFEST, MEASURED, PER_CELL, VOCABULARY, file_sha256, shard_files
from .corpus import Corpus


@dataclass(frozen=True)
class Source:
    """One h5ad file of a corpus, and how to read it.

    Parameters
    ----------
    path
        The file.
    name
        Name of the data set; None: the file's name without ending. Two files of the same name
        are refused.
    species
        "human" or "mouse"; None: recognised from the genes.
    species_key
        Column of ``obs`` with each cell's species, for a file with both.
    layer
        Layer with the raw counts; None: ``X``.
    cell_key
        Column of ``obs`` that names a cell across files, such as its barcode, for files that
        share cells but not genes. Cells named before in the same ``family`` are left out.
    family
        Which files share the names in ``cell_key``.
    """

    path: str | PathLike[str]
    name: str | None = None
    species: str | None = None
    species_key: str | None = None
    layer: str | None = None
    cell_key: str | None = None
    family: str = ""

    @property
    def dataset(self) -> str:
        return self.name or Path(self.path).name.removesuffix(".h5ad")


@dataclass
class _Report:
    """What became of the cells of one source."""

    name: str
    file: str
    sha256: str
    species: str = ""
    n_read: int = 0
    n_kept: int = 0
    n_few_genes: int = 0
    n_duplicated: int = 0
    n_tokens: int = 0
    coverage: float = 0.0


def build_corpus(
    files: Iterable[Source | str | PathLike[str]],
    out: str | PathLike[str],
    *,
    vocabulary: Vocabulary | None = None,
    n_genes: int | None = 2048,
    values: bool = False,
    min_genes: int = 50,
    overwrite: bool = False,
) -> Corpus:
    """Rank the cells of h5ad files and store their tokens in a folder.

    Files are read in row blocks, so memory does not grow with their size. A cell is left out when
    fewer than ``min_genes`` of its genes are in the vocabulary, or when a cell with the same counts
    (of the genes in the vocabulary) or the same name (:attr:`Source.cell_key`) came before, in any
    file: put the file with more genes first. The folder appears when it is complete.

    Parameters
    ----------
    files
        Paths of h5ad files with raw counts, or :class:`Source` where a file needs more said.
    out
        Folder to write.
    vocabulary
        Genes and tokens; None: the bundled vocabulary.
    n_genes
        Most genes kept of a cell, by rank; None: all.
    values
        Whether raw counts are stored beside the tokens.
    min_genes
        Fewest genes with a count that a cell must have.
    overwrite
        Whether a corpus that is already there may be replaced.

    Returns
    -------
    The corpus, opened. ``corpus.manifest["sources"]`` says how many cells were read, kept and left
    out of each file, and why.

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
    target = Path(out)
    _check_sources(sources)
    _check_target(target, overwrite)
    vocabulary = Vocabulary.bundled() if vocabulary is None else vocabulary
    options = {"n_genes": n_genes, "min_genes": min_genes}
    with _folder_when_complete(target) as folder:
        (folder / "shards").mkdir()
        reports, groups = _write_cells(folder, sources, vocabulary, options, values)
        vocabulary.write(folder / VOCABULARY)
        _write_manifest(folder, reports, vocabulary, {**options, "values": values}, groups)
    return Corpus.open(target)


def _write_cells(
    folder: Path,
    sources: Sequence[Source],
    vocabulary: Vocabulary,
    options: dict[str, int | None],
    values: bool,
) -> tuple[list[_Report], list[tuple[int, int]]]:
    dtype = token_dtype(vocabulary.n_tokens)
    seen, reports = SeenCells(), []
    lengths, species, dataset, totals = [np.zeros(0, np.int64)], [], [], []
    counts_kept, measured, groups = [], [], []
    with _growing_array(folder / "shards/00000.tokens.npy", dtype) as tokens:
        bar = tqdm(sources, desc="Building corpus", disable=not settings.progress)
        for code, source in enumerate(bar):
            report = _Report(source.dataset, Path(source.path).name, file_sha256(Path(source.path)))
            for kept, codes, counts, total, genes in _read_source(
                source,
                vocabulary,
                options["n_genes"] or MAX_RANK,
                options["min_genes"] or 0,
                seen,
                report,
            ):
                tokens.write(kept.tokens.astype(dtype).tobytes())
                lengths.append(kept.lengths)
                species.append(codes)
                dataset.append(np.full(len(kept), code, np.int32))
                totals.append(total)
                counts_kept.append(counts)
                for one in np.unique(codes):
                    if (code, int(one)) not in groups:
                        groups.append((code, int(one)))
                        row = np.zeros(vocabulary.n_tokens, bool)
                        row[genes[genes >= 0]] = True
                        measured.append(row & np.isfinite(vocabulary.medians[one]))
            reports.append(report)
    if not any(report.n_kept for report in reports):
        raise InputError(
            f"No cell of the {len(sources)} files has {options['min_genes']} known genes."
        )
    np.save(folder / "indptr.npy", np.cumsum(np.concatenate([[0], *lengths])))
    np.save(folder / "species.npy", np.concatenate(species).astype(np.int8))
    np.save(folder / "dataset.npy", np.concatenate(dataset))
    np.save(folder / "totals.npy", np.concatenate(totals).astype(np.float32))
    np.save(folder / "measured.npy", np.stack(measured))
    if values:
        every = np.concatenate(counts_kept)
        whole = not (every % 1).any()
        small = np.uint16 if every.max() < 2**16 else np.uint32
        np.save(folder / "shards/00000.counts.npy", every.astype(small if whole else np.float32))
    return reports, groups


def token_dtype(n_tokens: int) -> np.dtype:
    """The smallest type that holds every token."""
    return np.dtype(np.uint16 if n_tokens <= 2**16 else np.uint32)


def _read_source(
    source: Source,
    vocabulary: Vocabulary,
    n_genes: int,
    min_genes: int,
    seen: SeenCells,
    report: _Report,
) -> Iterator[tuple[Sequences, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Ranks of the cells to keep, block by block, with their species."""
    adata = ad.read_h5ad(source.path, backed="r")
    try:
        names = _cell_names(adata, source)
        genes, codes = match_adata(
            adata,
            vocabulary,
            species=source.species,
            species_key=source.species_key,
            gene_ids=None,
            on_duplicate="sum",
        )
        report.coverage = round(float(genes.coverage), 4)
        for start, counts in iter_counts(adata, layer=source.layer):
            rows = slice(start, start + counts.shape[0])
            known = _known_counts(counts, genes.tokens, vocabulary.medians, codes[rows])
            ranks = rank_encode(
                known, genes.tokens, vocabulary.medians, codes[rows], n_genes=n_genes
            )
            enough = ranks.lengths >= min(min_genes, n_genes)
            new = np.zeros(len(ranks), bool)
            new[enough] = seen.first_time(
                content_hashes(known, genes.tokens)[enough],
                None if names is None else [names[start + i] for i in np.flatnonzero(enough)],
            )
            _count(report, ranks, enough, new, codes[rows])
            kept = ranks[np.flatnonzero(new)]
            values = aligned_counts(known[new], genes.tokens, kept)
            total = np.asarray(counts.sum(axis=1)).ravel()[new]
            yield kept, codes[rows][new], values, total, genes.tokens
    finally:
        adata.file.close()


def _known_counts(
    counts: sp.csr_matrix, tokens: np.ndarray, medians: np.ndarray, codes: np.ndarray
) -> sp.csr_matrix:
    """Counts of genes that the vocabulary has for the species of the cell, no zeros stored."""
    token = tokens[counts.indices]
    code = np.repeat(codes, np.diff(counts.indptr))
    known = (token >= 0) & np.isfinite(medians[code, token])
    data = np.where(known, counts.data, 0)
    kept = sp.csr_matrix((data, counts.indices.copy(), counts.indptr.copy()), shape=counts.shape)
    kept.eliminate_zeros()
    return kept


def _cell_names(adata: ad.AnnData, source: Source) -> list[tuple[str, str]] | None:
    if source.cell_key is None:
        return None
    if source.cell_key not in adata.obs:
        raise MissingKeyError(
            f"{source.path} has no column {source.cell_key!r} in obs; "
            f"it has {', '.join(adata.obs.columns)}."
        )
    return [(source.family, name) for name in adata.obs[source.cell_key].astype(str)]


def _count(
    report: _Report, ranks: Sequences, enough: np.ndarray, new: np.ndarray, codes: np.ndarray
) -> None:
    report.n_read += len(ranks)
    report.n_kept += int(new.sum())
    report.n_few_genes += int((~enough).sum())
    report.n_duplicated += int((enough & ~new).sum())
    report.n_tokens += int(ranks.lengths[new].sum())
    found = {SPECIES[code] for code in np.unique(codes)} | {
        *filter(None, report.species.split("+"))
    }
    report.species = "+".join(sorted(found))


def _write_manifest(
    folder: Path,
    reports: list[_Report],
    vocabulary: Vocabulary,
    options: dict[str, Any],
    groups: list[tuple[int, int]],
) -> None:
    names = [*(f"{name}.npy" for name in (*PER_CELL, MEASURED)), VOCABULARY]
    names += shard_files(0, options["values"]).values()
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
        for name in names
    }
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "scmix_version": version("scmix"),
        "vocabulary_sha256": vocabulary.sha256,
        **options,
        "n_cells": sum(report.n_kept for report in reports),
        "n_tokens": sum(report.n_tokens for report in reports),
        "shards": [{"n_cells": sum(report.n_kept for report in reports)}],
        "groups": groups,
        "sources": [asdict(report) for report in reports],
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


@contextmanager
def _growing_array(path: Path, dtype: np.dtype) -> Iterator[BinaryIO]:
    """Write a 1-d npy file whose length is known at the end."""

    def write_header(n: int) -> None:
        header = {"descr": dtype.str, "fortran_order": False, "shape": (n,)}
        # numpy leaves room for the first axis to grow, so the header keeps its length
        np.lib.format.write_array_header_1_0(file, header)

    with open(path, "wb") as file:
        write_header(0)
        start = file.tell()
        yield file
        n_bytes = file.tell() - start
        file.seek(0)
        write_header(n_bytes // dtype.itemsize)
        if file.tell() != start:
            raise RuntimeError(f"The header of {path} has changed its length; report this.")


@contextmanager
def _folder_when_complete(target: Path) -> Iterator[Path]:
    """A hidden folder that takes the target's place when all went well, else vanishes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
            os.replace(target, old / "old")
            os.replace(partial, target)
            shutil.rmtree(old)
        else:
            os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _check_sources(sources: list[Source]) -> None:
    names = [source.dataset for source in sources]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if not sources or repeated:
        found = f"these data sets more than once: {', '.join(repeated)}" if sources else "no files"
        raise InputError(f"Found {found}; expected one or more files with different names.")
    missing = [str(source.path) for source in sources if not Path(source.path).is_file()]
    if missing:
        raise InputError(f"These files do not exist: {', '.join(missing)}.")


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not (target / MANIFEST).is_file() and any(target.iterdir()):
        raise InputError(f"{target} exists and is not a corpus. Choose another folder.")
    if not overwrite:
        raise InputError(f"{target} exists. Open it with Corpus.open, or pass overwrite=True.")
