"""One file becomes a part: the ranked cells that passed quality control, in a folder."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..._count_blocks import map_counts
from ..._errors import InputError
from ..._gene_matching import GeneMatch
from ...batches import Sequences
from ...genes import SPECIES
from ...pp._match_adata import match_adata
from ...ranks import rank_encode
from .._store import ORGAN, gather, open_array
from .arrays import growing_arrays
from .counts import aligned_counts, extent
from .duplicates import name_hashes
from .plan import Plan
from .quality import REASONS, doublets, mitochondrial_tokens, profile
from .source import Source, obs_column, open_source, source_sha256, stamp

MOST_VALUES = 1 << 16  # of a kept column, so that a corpus opens at once
_TOKENS = 1 << 21  # of the cells read at once
_REPORT = "report.json"


@dataclass(frozen=True)
class Part:
    """A part on disk."""

    folder: Path

    @cached_property
    def report(self) -> dict[str, Any]:
        """What became of the cells of the file, and what its arrays hold."""
        return json.loads((self.folder / _REPORT).read_text("utf-8"))

    def array(self, name: str) -> np.ndarray:
        """One of the arrays, mapped into memory."""
        return open_array(self.folder / f"{name}.npy")

    def hashes(self, name: str) -> np.ndarray | None:
        """Hashes of the cells, shape ``(n, 2)``, if the part has them."""
        has = name == "content" or self.report["named"]
        return self.array(name).reshape(-1, 2) if has else None

    def read(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Sequences, np.ndarray]]:
        """Some rows at a time: which, their tokens, and their counts (none where not stored)."""
        lengths = self.array("lengths")
        starts = (np.cumsum(lengths, dtype=np.int64) - lengths)[rows]
        lengths = lengths[rows]
        ends = np.cumsum(lengths, dtype=np.int64)
        cuts = np.searchsorted(ends, np.arange(_TOKENS, ends.max(initial=0), _TOKENS)) + 1
        for some in np.split(np.arange(rows.size), np.unique(cuts)):
            if some.size:
                yield rows[some], *self._read(starts[some], lengths[some])

    def _read(self, starts: np.ndarray, lengths: np.ndarray) -> tuple[Sequences, np.ndarray]:
        indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        tokens = np.empty(indptr[-1], np.int32)
        gather(self.array("tokens"), starts, indptr[:-1], lengths, tokens)
        if not self.report["values"]:
            return Sequences(tokens, indptr), np.empty(0, np.float32)
        counts = np.empty(indptr[-1], np.float32)
        gather(self.array("counts"), starts, indptr[:-1], lengths, counts)
        return Sequences(tokens, indptr), counts


@dataclass(frozen=True, eq=False)
class _Block:
    """Cells of a block of rows that are kept, and why the others are not."""

    rows: np.ndarray
    reasons: np.ndarray
    sequences: Sequences
    counts: np.ndarray | None
    extent: tuple[float, bool]
    totals: np.ndarray
    content: np.ndarray


@dataclass(eq=False)
class _Tally:
    """What is summed up over the blocks of a file."""

    reasons: Counter = field(default_factory=Counter)
    n_read: int = 0
    species: set[int] = field(default_factory=set)
    largest: float = 0.0
    whole: bool = True

    def add(self, block: _Block, species: np.ndarray) -> None:
        self.n_read += block.reasons.size
        self.reasons.update(block.reasons.tolist())
        self.species.update(np.unique(species).tolist())
        largest, whole = block.extent
        self.largest, self.whole = max(self.largest, largest), self.whole and whole


def write_part(plan: Plan, number: int, folder: Path) -> None:
    """Read a file and write the cells that passed quality control, with their hashes."""
    source = plan.sources[number]
    with open_source(source) as (adata, layer):
        genes, species = match_adata(
            adata,
            plan.vocabulary,
            species=source.species,
            species_key=source.species_key,
            gene_ids=source.gene_ids,
            on_duplicate="sum",
        )
        columns = _columns(adata, source)
        tally = _write_cells(plan, source, folder, (adata, layer), (genes, species), columns)
    if stamp(Path(source.path)) != plan.stamps[number]:
        raise InputError(f"{source.path} has changed while it was read. Build again.")
    np.save(folder / "measured.npy", _measured(plan, genes))
    _write_report(plan, source, folder, genes, tally, columns)


def _write_cells(
    plan: Plan,
    source: Source,
    folder: Path,
    where: tuple[ad.AnnData, str | None],
    match: tuple[GeneMatch, np.ndarray],
    columns: dict[str, pd.Categorical],
) -> _Tally:
    adata, layer = where
    genes, species = match
    names = None if source.cell_key is None else obs_column(adata, source.cell_key).astype(str)
    tally = _Tally()
    blocks = map_counts(
        adata,
        _Reader(plan, genes, species, _doublets(adata, source)),
        layer=layer,
        allow_noninteger=source.allow_noninteger,
        n_threads=plan.n_threads,
    )
    with growing_arrays(folder, _dtypes(plan, columns, names is not None)) as arrays:
        for block in blocks:
            tally.add(block, species[tally.n_read : tally.n_read + block.reasons.size])
            arrays["tokens"].append(block.sequences.tokens)
            arrays["lengths"].append(block.sequences.lengths)
            arrays["species"].append(species[block.rows])
            arrays["totals"].append(block.totals)
            arrays["content"].append(block.content.ravel())
            if block.counts is not None:
                arrays["counts"].append(block.counts)
            if names is not None:
                hashes = name_hashes(source.family, names.iloc[block.rows])
                arrays["names"].append(hashes.ravel())
            for i, column in enumerate(columns.values()):
                arrays[f"column{i}"].append(column.codes[block.rows])
    return tally


def _dtypes(plan: Plan, columns: dict[str, Any], named: bool) -> dict[str, Any]:
    dtypes: dict[str, Any] = {
        "tokens": plan.token_dtype,
        "lengths": np.int32,
        "species": np.int8,
        "totals": np.float32,
        "content": np.uint64,
        **{f"column{i}": np.int32 for i in range(len(columns))},
    }
    if plan.part_values:
        dtypes["counts"] = np.float32
    if named:
        dtypes["names"] = np.uint64
    return dtypes


class _Reader:
    """Looks at a block of counts, and ranks the cells that are kept; called from threads."""

    def __init__(
        self, plan: Plan, genes: GeneMatch, species: np.ndarray, doublet: np.ndarray | None
    ) -> None:
        self.plan, self.species, self.doublet = plan, species, doublet
        self.tokens = genes.tokens
        medians = plan.vocabulary.medians[:, genes.tokens]  # -1 wraps around: masked below
        self.known = np.isfinite(medians) & (genes.tokens >= 0)
        mitochondrial = mitochondrial_tokens(plan.vocabulary)
        self.mitochondrial = mitochondrial[genes.tokens] & (genes.tokens >= 0)

    def __call__(self, start: int, counts: sp.csr_matrix) -> _Block:
        where = slice(start, start + counts.shape[0])
        species = self.species[where]
        cells = profile(counts, self.tokens, self.known, self.mitochondrial, species)
        doublet = None if self.doublet is None else self.doublet[where]
        reasons = self.plan.quality.reasons(cells, doublet)
        rows = np.flatnonzero(reasons == 0)
        kept = counts if rows.size == reasons.size else counts[rows]
        ranks = rank_encode(
            kept,
            self.tokens,
            self.plan.vocabulary.medians,
            species[rows],
            n_genes=self.plan.part_genes,
        )
        values = aligned_counts(kept, self.tokens, ranks) if self.plan.part_values else None
        span = (0.0, True) if values is None else extent(values)
        totals, content = cells.totals[rows], cells.content[rows]
        return _Block(start + rows, reasons, ranks, values, span, totals, content)


def _doublets(adata: ad.AnnData, source: Source) -> np.ndarray | None:
    return None if source.doublet_key is None else doublets(obs_column(adata, source.doublet_key))


def _columns(adata: ad.AnnData, source: Source) -> dict[str, pd.Categorical]:
    """The columns of ``obs`` to keep, by their names in the corpus; missing values are ""."""
    out = {}
    for name, key in source.columns.items():
        column = obs_column(adata, key)
        text = column.astype(object).where(column.notna(), "").astype(str)
        out[name] = pd.Categorical(text)
        if len(out[name].categories) > MOST_VALUES:
            raise InputError(
                f"Column {key!r} of obs has {len(out[name].categories):,} different values; "
                f"columns to keep have at most {MOST_VALUES:,}. Leave it out of keep."
            )
    if source.organ is not None:
        out[ORGAN] = pd.Categorical.from_codes(np.zeros(adata.n_obs, np.int8), [source.organ])
    return out


def _measured(plan: Plan, genes: GeneMatch) -> np.ndarray:
    """Tokens of the file's genes, by species: bool, shape ``(2, n_tokens)``."""
    has = np.zeros(plan.vocabulary.n_tokens, bool)
    has[genes.tokens[genes.tokens >= 0]] = True
    return has & np.isfinite(plan.vocabulary.medians)


def _write_report(
    plan: Plan,
    source: Source,
    folder: Path,
    genes: GeneMatch,
    tally: _Tally,
    columns: dict[str, pd.Categorical],
) -> None:
    path = Path(source.path)
    report = {
        "name": source.dataset,
        "file": path.name,
        "sha256": source_sha256(path),
        "species": "+".join(SPECIES[code] for code in sorted(tally.species)),
        "coverage": round(float(genes.coverage), 4),
        "n_read": tally.n_read,
        **{f"n_{name}": tally.reasons[i + 1] for i, name in enumerate(REASONS)},
    }
    about = {
        "report": report,
        "columns": {name: list(map(str, values.categories)) for name, values in columns.items()},
        "named": source.cell_key is not None,
        "values": plan.part_values,
        "largest": tally.largest,
        "whole": tally.whole,
    }
    (folder / _REPORT).write_text(json.dumps(about), "utf-8")
