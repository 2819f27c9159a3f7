"""Vectors of all cells: made here, shared by the processes of a run, or on workers of dask."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from anndata import AnnData

from .. import _processes, _slots
from .._errors import InputError
from .._gene_matching import GeneMatch
from . import _dask_workers
from ._reading import Reader

Match = tuple[GeneMatch, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Embedding:
    """What is filled in.

    Parameters
    ----------
    vectors
        Float32, `(n_cells, H)`; NaN for a cell without a known gene.
    n_read
        Genes that were read of each cell, `(n_cells,)`.
    """

    vectors: np.ndarray
    n_read: np.ndarray

    @classmethod
    def empty(cls, n_cells: int, width: int) -> "Embedding":
        """Nothing filled in yet."""
        return cls(np.full((n_cells, width), np.nan, np.float32), np.zeros(n_cells, np.int64))

    def __getitem__(self, rows: slice) -> "Embedding":
        return Embedding(self.vectors[rows], self.n_read[rows])

    def put(self, start: int, vectors: np.ndarray, n_read: np.ndarray) -> None:
        """Fill in consecutive cells."""
        rows = slice(start, start + len(vectors))
        self.vectors[rows], self.n_read[rows] = vectors, n_read


def embedded(adata: AnnData, reader: Reader, match: Match, **options: Any) -> Embedding:
    """Vectors of all cells.

    Parameters
    ----------
    adata
        Cells, as `_opening.opened` gives them.
    reader
        The model and how it reads.
    match
        What `match_adata` made of the options.
    options
        Of `_slots.iter_sequences`.

    Raises
    ------
    InputError
        When the values are no counts, or no cell has a known gene.
    """
    found = Embedding.empty(adata.n_obs, reader.model.config.hidden_size)
    client = _dask_workers.client_for(adata, options["layer"])
    if client is not None and not _has_ranks(adata, reader, match, options):
        for part in _dask_workers.parts(client, adata, reader, match, options):
            found.put(*part)
    else:
        with _processes.team() as team:
            if team is None:
                _read(found, adata, reader, match, options)
            else:
                _share(team, found, adata, reader, match, options)
    if not found.n_read.any():
        raise InputError(_slots.NO_KNOWN_GENE)
    return found


def in_parts(
    adata: AnnData, reader: Reader, match: Match, **options: Any
) -> Iterator[tuple[int, np.ndarray]]:
    """First row and vectors of some consecutive cells at a time; otherwise as :func:`embedded`.

    Where processes or workers of dask share the work, all vectors come at once.
    """
    if _processes.is_launched() or _dask_workers.client_for(adata, options["layer"]) is not None:
        yield 0, embedded(adata, reader, match, **options).vectors
        return
    blocks = _slots.iter_sequences(
        adata, reader.model.vocabulary, match=match, n_genes=reader.n_genes, **options
    )
    for part in reader.read(blocks, adata.n_obs):
        yield part.start, part.vectors


def _read(
    out: Embedding,
    adata: AnnData,
    reader: Reader,
    match: Match,
    options: dict[str, Any],
    **further: Any,
) -> None:
    blocks = _slots.iter_sequences(
        adata, reader.model.vocabulary, match=match, n_genes=reader.n_genes, **options, **further
    )
    for part in reader.read(blocks, adata.n_obs):
        n_read = np.maximum(part.sequences.lengths - reader.n_special, 0)
        out.put(part.start, part.vectors, n_read)


def _share(
    team: _processes.Team,
    out: Embedding,
    adata: AnnData,
    reader: Reader,
    match: Match,
    options: dict[str, Any],
) -> None:
    """Embed the rows of this process, and have those of the others filled in."""
    genes, codes = match
    team.agree(cells=adata.n_obs, model=reader.model.sha256, options=reader.params(**options))
    rows = team.share(adata.n_obs)
    own = dataclasses.replace(
        reader,
        device=_processes.own_device(reader.device_name),
        shows_progress=team.rank == 0,
    )

    def work() -> None:
        if rows.start < rows.stop:
            part = (genes, codes[rows])
            _read(out[rows], adata[rows], own, part, options, is_part=True)

    team.together(work)
    team.fill(out.vectors)
    team.fill(out.n_read)


def _has_ranks(adata: AnnData, reader: Reader, match: Match, options: dict[str, Any]) -> bool:
    """Whether ranks are stored that will be read instead of counts."""
    return _slots.has_ranks(
        adata,
        reader.model.vocabulary,
        match[1],
        n_genes=reader.n_genes,
        layer=options["layer"],
        gene_ids=options["gene_ids"],
    )
