"""Raw counts of an AnnData in blocks of cells: where they are, read ahead, checked."""

import logging
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import partial
from threading import Lock
from typing import TypeVar

import anndata as ad
import numpy as np
import scipy.sparse as sp

from scmix._counts import CountCheck, Summary, as_counts, is_counts
from scmix._errors import InputError, MissingKeyError
from scmix._row_blocks import RowBlocks, ahead, matrix_blocks, row_blocks
from scmix._writer import is_ours

logger = logging.getLogger("scmix")

NO_COUNTS = "No layer holds counts: load them from the file they came in."
_SAMPLE_CELLS = 64

_Made = TypeVar("_Made")


def iter_counts(
    adata: ad.AnnData,
    *,
    layer: str | None = None,
    allow_noninteger: bool = False,
    block_cells: int | None = None,
) -> Iterator[tuple[int, sp.csr_matrix]]:
    """Read raw counts in blocks of cells.

    Data in memory is checked as a whole before this returns; backed and dask data block by block
    as it is read. A block may share memory with `adata`: do not write to it.

    Parameters
    ----------
    adata
        Cells by genes, in memory, a view, backed or dask.
    layer
        Layer with the counts; `.X` by default, or `layers["counts"]` when `.X` is None.
    allow_noninteger
        Accept fractional values, such as counts corrected for ambient RNA.
    block_cells
        Cells in a block; by default as many as hold about a million counts.

    Returns
    -------
    Row of the first cell, and counts as CSR in float32 or float64: sorted, without duplicate
    entries or explicit zeros.

    Raises
    ------
    MissingKeyError
        When there is no such layer.
    InputError
        When the values are no raw counts, or there are none.
    """
    return map_counts(
        adata,
        lambda start, counts: (start, counts),
        layer=layer,
        allow_noninteger=allow_noninteger,
        block_cells=block_cells,
        n_threads=1,
    )


def map_counts(
    adata: ad.AnnData,
    function: Callable[[int, sp.csr_matrix], _Made],
    *,
    layer: str | None,
    allow_noninteger: bool,
    block_cells: int | None = None,
    n_threads: int,
    is_part: bool = False,
) -> Iterator[_Made]:
    """What a function makes of each block that :func:`iter_counts` would read, in order.

    Threads read blocks and call the function ahead of the caller. Of a file, the function sees a
    block before it is checked, but what it made of it is given out only after that. With `is_part`
    the cells are some of many, which may all be empty.
    """
    layer, blocks = count_blocks(adata, layer, block_cells)
    check = count_check(adata, layer, blocks.n_stored, allow_noninteger, is_part)
    make = _map_memory if blocks.in_memory else _map_file
    return make(blocks, check, function, n_threads)


def count_blocks(
    adata: ad.AnnData, layer: str | None, block_cells: int | None = None
) -> tuple[str | None, RowBlocks]:
    """Name of the layer that holds the counts (None for `.X`), and its blocks."""
    if not adata.n_obs or not adata.n_vars:
        raise InputError(
            f"Found {adata.n_obs} cells and {adata.n_vars} genes; expected at least one of each. "
            "Filter less, or read the file again."
        )
    layer = counts_layer(adata, layer)
    return layer, row_blocks(adata, layer, block_cells)


def count_check(
    adata: ad.AnnData,
    layer: str | None,
    capacity: int,
    allow_noninteger: bool,
    is_part: bool = False,
) -> CountCheck:
    """What refuses values that are no counts; see :class:`CountCheck`."""
    where = ".X" if layer is None else f'layers["{layer}"]'
    return CountCheck(
        where,
        adata.obs_names,
        adata.var_names,
        capacity=capacity,
        allow_noninteger=allow_noninteger,
        is_part=is_part,
        advice=lambda: _advice(adata, where),
    )


def _map_memory(
    blocks: RowBlocks,
    check: CountCheck,
    function: Callable[[int, sp.csr_matrix], _Made],
    n_threads: int,
) -> Iterator[_Made]:
    positive = []
    for (start, stop), seen in zip(
        blocks.bounds,
        ahead(lambda where: Summary.of(blocks.read(*where)), blocks.bounds, n_threads),
        strict=True,
    ):
        check.add(start, seen, partial(blocks.read, start, stop))
        positive.append(seen.all_positive)
    check.close()

    def make(block: tuple[tuple[int, int], bool]) -> _Made:
        where, all_positive = block
        return function(where[0], as_counts(blocks.read(*where), all_positive=all_positive))

    return ahead(make, zip(blocks.bounds, positive, strict=True), n_threads)


def _map_file(
    blocks: RowBlocks,
    check: CountCheck,
    function: Callable[[int, sp.csr_matrix], _Made],
    n_threads: int,
) -> Iterator[_Made]:
    one_reads = Lock()  # not every kind of file can be read by several threads

    def read(start: int, stop: int) -> sp.csr_matrix | np.ndarray:
        with one_reads:
            return blocks.read(start, stop)

    def make(where: tuple[int, int]) -> tuple[Summary, _Made]:
        rows = read(*where)
        seen = Summary.of(rows)
        return seen, function(where[0], as_counts(rows, all_positive=seen.all_positive))

    made = ahead(make, blocks.bounds, n_threads)
    for where, (seen, result) in zip(blocks.bounds, made, strict=True):
        check.add(where[0], seen, partial(read, *where))
        yield result
    check.close()


def counts_layer(adata: ad.AnnData, layer: str | None) -> str | None:
    """Name of the layer to read; None for `.X`."""
    if layer is None and _has_x(adata):
        return None
    if layer is None and "counts" in adata.layers:
        logger.info('.X is None: reading layers["counts"].')
        return "counts"
    if layer is None:
        names = _layer_names(adata)
        known = f"Pass layer=, one of {names}." if names else ""
        raise InputError(f".X is None. {known or _raw_advice(adata)}")
    if layer not in adata.layers:
        names = _layer_names(adata)
        close = get_close_matches(layer, names)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        in_raw = layer == "raw" and _raw_has_counts(adata)
        raw = " adata.raw holds counts: pass adata.raw.to_adata()." if in_raw else ""
        raise MissingKeyError(
            f"Found no layer {layer!r}; there are {names}.{hint}{raw} layer=None reads .X."
        )
    return layer


def _layer_names(adata: ad.AnnData) -> list[str]:
    return [name for name in adata.layers if name is not None]  # since anndata 0.13, None is .X


def _has_x(adata: ad.AnnData) -> bool:
    if not adata.isbacked:
        return adata.X is not None
    if not adata.file.is_open:
        adata.file.open()
    return "X" in adata.file


def _advice(adata: ad.AnnData, where: str) -> str:
    """Where counts are to be had instead, from a look at the first cells."""
    if where != ".X" and _has_x(adata) and _holds_counts(row_blocks(adata, None, _SAMPLE_CELLS)):
        return "Pass layer=None: .X holds counts."
    names = [
        name
        for name in _layer_names(adata)
        if f'layers["{name}"]' != where
        and not is_ours(adata.uns.get(name))
        and _holds_counts(row_blocks(adata, name, _SAMPLE_CELLS))
    ]
    if names:
        best = min(names, key=lambda name: ("count" not in name.lower(), "raw" not in name.lower()))
        return f'Pass layer="{best}".'
    return _raw_advice(adata)


def _raw_advice(adata: ad.AnnData) -> str:
    if _raw_has_counts(adata):
        return 'adata.raw holds counts: pass layer="raw", or adata.raw.to_adata().'
    return NO_COUNTS


def _raw_has_counts(adata: ad.AnnData) -> bool:
    return adata.raw is not None and _holds_counts(matrix_blocks(adata.raw.X, _SAMPLE_CELLS))


def _holds_counts(blocks: RowBlocks) -> bool:
    """Whether the first cells hold counts."""
    try:
        return is_counts(blocks.read(*blocks.bounds[0]))
    except InputError:
        return False
