"""Cells of a dask array embedded where its chunks are: on the workers of a dask.distributed client.

What travels to a worker: the model (once), species codes. What comes back: vectors.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from anndata import AnnData

from .. import _slots, inference
from .._count_blocks import count_blocks, count_check, counts_layer
from .._counts import Summary, as_array, as_counts
from .._gene_matching import GeneMatch
from .._row_blocks import is_dask
from ._reading import Reader

Part = tuple[int, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Work:
    """All that a worker needs besides the counts.

    Parameters
    ----------
    reader
        The model and how it reads.
    ranking
        Makes ranked genes of counts.
    """

    reader: Reader
    ranking: _slots.Ranking

    def __call__(self, rows: Any, codes: np.ndarray) -> tuple[Summary, np.ndarray, np.ndarray]:
        """What the counts look like; vectors and number of genes read of each cell."""
        array = as_array(rows)
        seen = Summary.of(array)
        ranked = self.ranking(as_counts(array, all_positive=seen.all_positive), codes)
        made = list(self.reader.read([_slots.Block(0, ranked, codes)], len(codes)))
        n_read = [np.maximum(one.sequences.lengths - self.reader.n_special, 0) for one in made]
        return seen, np.concatenate([one.vectors for one in made]), np.concatenate(n_read)


def client_for(adata: AnnData, layer: str | None) -> Any:
    """The client of dask.distributed whose workers hold the counts; None where there is none."""
    distributed = sys.modules.get("distributed")  # without it there is no client
    if distributed is None or not adata.n_obs or not is_dask(_counts(adata, layer)):
        return None
    try:
        return distributed.default_client()
    except ValueError:
        return None


def parts(
    client: Any,
    adata: AnnData,
    reader: Reader,
    match: tuple[GeneMatch, np.ndarray],
    options: dict[str, Any],
) -> Iterator[Part]:
    """First row, vectors and number of genes read of the cells of each chunk, in order."""
    import dask

    genes, codes = match
    layer, blocks = count_blocks(adata, options["layer"])
    check = count_check(adata, layer, blocks.n_stored, options["allow_noninteger"])
    ranking = _slots.Ranking(genes.tokens, reader.model.vocabulary.medians, reader.n_genes)
    work = client.scatter(Work(_on_worker(client, reader), ranking), broadcast=True)
    chunks = _counts(adata, layer).rechunk({1: -1}).to_delayed().ravel()
    tasks = [
        dask.delayed(_call)(work, chunk, codes[start:stop])
        for chunk, (start, stop) in zip(chunks, blocks.bounds, strict=True)
    ]
    futures = client.compute(tasks)
    del tasks
    try:
        for start, stop in blocks.bounds:
            seen, vectors, n_read = futures[0].result()
            check.add(start, seen, functools.partial(blocks.read, start, stop))
            del futures[0]  # lets the worker forget them
            yield start, vectors, n_read
        check.close()
    finally:
        client.cancel(futures)


def _call(work: Work, rows: Any, codes: np.ndarray) -> tuple[Summary, np.ndarray, np.ndarray]:
    return work(rows, codes)


def _on_worker(client: Any, reader: Reader) -> Reader:
    """The reader with device and number format as the workers have them."""
    device, dtype = client.submit(inference.choose, reader.device_name, reader.dtype).result()
    return dataclasses.replace(
        reader,
        device=device.type,
        dtype=str(dtype).removeprefix("torch."),
        shows_progress=False,
    )


def _counts(adata: AnnData, layer: str | None) -> Any:
    layer = counts_layer(adata, layer)
    return adata.X if layer is None else adata.layers[layer]
