"""The boundary to AnnData: counts and sequences are read here, results are written by `write`."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import scipy.sparse as sp

from scmix._counts import CountCheck, as_counts, is_counts
from scmix._errors import InputError, MissingKeyError
from scmix._row_blocks import RowBlocks, row_blocks
from scmix._species import SPECIES
from scmix._writer import is_ours, params, write
from scmix.batches import Sequences
from scmix.ranks import layer_to_sequences, rank_encode

if TYPE_CHECKING:
    from scmix._gene_matching import GeneMatch, OnDuplicate
    from scmix.genes import Vocabulary

__all__ = ["Block", "iter_counts", "iter_sequences", "params", "write"]

logger = logging.getLogger("scmix")

NO_COUNTS = "No layer holds counts: load them from the file they came in."
NO_KNOWN_GENE = (
    "No cell has a count of a gene that the vocabulary knows. Check species= and gene_ids=."
)
_SAMPLE_CELLS = 64


@dataclass(frozen=True, eq=False)
class Block:
    """Ranked genes of consecutive cells.

    Parameters
    ----------
    start
        Row of the first cell.
    sequences
        Gene tokens of each cell, most distinctive first; no special tokens.
    species
        Species code of each cell.
    """

    start: int
    sequences: Sequences
    species: np.ndarray


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
        Cells in a block; by default as many as hold about 4 million counts.

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
    if not adata.n_obs or not adata.n_vars:
        raise InputError(
            f"Found {adata.n_obs} cells and {adata.n_vars} genes; expected at least one of each."
        )
    layer = _counts_layer(adata, layer)
    where = ".X" if layer is None else f'layers["{layer}"]'
    blocks = row_blocks(adata, layer, block_cells)
    check = CountCheck(
        where,
        adata.obs_names,
        adata.var_names,
        capacity=blocks.n_stored,
        allow_noninteger=allow_noninteger,
        advice=lambda: _advice(adata, where),
    )
    if not blocks.in_memory:
        return _read_checked(blocks, check)
    parts = [(start, blocks.read(start, stop)) for start, stop in blocks.bounds]
    positive = [check.add(start, rows) for start, rows in parts]
    check.close()
    return (
        (start, as_counts(rows, all_positive=all_positive))
        for (start, rows), all_positive in zip(parts, positive, strict=True)
    )


def _read_checked(blocks: RowBlocks, check: CountCheck) -> Iterator[tuple[int, sp.csr_matrix]]:
    for start, rows in blocks.ahead():
        all_positive = check.add(start, rows)
        yield start, as_counts(rows, all_positive=all_positive)
    check.close()


def _counts_layer(adata: ad.AnnData, layer: str | None) -> str | None:
    """Name of the layer to read; None for `.X`."""
    if layer is None and _has_x(adata):
        return None
    if layer is None and "counts" in adata.layers:
        logger.info('.X is None: reading layers["counts"].')
        return "counts"
    if layer is None:
        names = _layer_names(adata)
        known = f"Pass layer=, one of {names}." if names else ""
        raise InputError(f".X is None. {known or _raw_advice(adata) or NO_COUNTS}")
    if layer not in adata.layers:
        names = _layer_names(adata)
        close = get_close_matches(layer, names)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raw = f" {_raw_advice(adata)}" if layer == "raw" else ""
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
    in_file = adata.isbacked and adata.is_view  # its .X would be read as a whole
    if where != ".X" and not in_file and _has_x(adata) and _holds_counts(adata.X):
        return "Pass layer=None: .X holds counts."
    names = [
        name
        for name in _layer_names(adata)
        if f'layers["{name}"]' != where
        and not is_ours(adata.uns.get(name))
        and _holds_counts(adata.layers[name])
    ]
    if names:
        best = min(names, key=lambda name: ("count" not in name.lower(), "raw" not in name.lower()))
        return f'Pass layer="{best}".'
    return _raw_advice(adata) or NO_COUNTS


def _raw_advice(adata: ad.AnnData) -> str:
    if adata.raw is not None and _holds_counts(adata.raw.X):
        return "adata.raw holds counts: pass adata.raw.to_adata()."
    return ""


def _holds_counts(matrix: Any) -> bool:
    """Whether the first cells hold counts."""
    rows = matrix.tocsr() if sp.issparse(matrix) else matrix
    rows = rows[:_SAMPLE_CELLS]
    try:
        return is_counts(rows.compute() if hasattr(rows, "compute") else rows)
    except InputError:
        return False


def iter_sequences(
    adata: ad.AnnData,
    vocabulary: "Vocabulary",
    *,
    match: "tuple[GeneMatch, np.ndarray] | None" = None,
    layer: str | None = None,
    species: str | None = None,
    species_key: str | None = None,
    gene_ids: str | None = None,
    on_duplicate: "OnDuplicate" = "error",
    allow_noninteger: bool = False,
    n_genes: int = 2048,
    rank_layer: str | None = "rank",
    block_cells: int | None = None,
) -> Iterator[Block]:
    """Read cells as sequences of gene tokens, in blocks.

    Ranks stored by :func:`scmix.pp.rank_encode` are used when they were made with the same
    vocabulary, species and `gene_ids`, at least as many genes and, where `layer` is given, from
    that layer. Otherwise counts are ranked as they are read.

    Parameters
    ----------
    adata
        Cells by genes.
    vocabulary
        Gives tokens and medians.
    match
        What :func:`scmix.pp._match_adata.match_adata` made of the same options; made here when not
        given.
    layer, allow_noninteger, block_cells
        As in :func:`iter_counts`.
    species, species_key, gene_ids, on_duplicate
        As in :func:`scmix.pp.map_genes`.
    n_genes
        How many genes to keep of a cell.
    rank_layer
        Where ranks may be stored; None never to look.

    Raises
    ------
    InputError
        When the genes or counts cannot be used, or no cell has a count of a known gene.
    """
    if match is None:
        from scmix.pp._match_adata import match_adata

        match = match_adata(
            adata,
            vocabulary,
            species=species,
            species_key=species_key,
            gene_ids=gene_ids,
            on_duplicate=on_duplicate,
        )
    genes, codes = match

    def rank(rows: sp.csr_matrix, cell_species: np.ndarray) -> Sequences:
        return rank_encode(rows, genes.tokens, vocabulary.medians, cell_species, n_genes=n_genes)

    def read_ranks(start: int, stop: int) -> Sequences:
        ranks = sp.csr_matrix(blocks.read(start, stop))
        return layer_to_sequences(ranks, genes.tokens, n_genes=n_genes)

    expected = {
        "vocabulary_sha256": vocabulary.sha256,
        "gene_ids": gene_ids,
        "species": {SPECIES[code] for code in np.unique(codes)},
        "layer": layer,
        "n_genes": n_genes,
    }
    if rank_layer is not None and _has_ranks(adata, rank_layer, expected):
        logger.info('Using the ranks in layers["%s"].', rank_layer)
        blocks = row_blocks(adata, rank_layer, block_cells)
        parts = ((a, read_ranks(a, b)) for a, b in blocks.bounds)
    else:
        counts = iter_counts(
            adata, layer=layer, allow_noninteger=allow_noninteger, block_cells=block_cells
        )
        parts = ((a, rank(rows, codes[a : a + rows.shape[0]])) for a, rows in counts)
    return _to_blocks(parts, codes)


def _to_blocks(parts: Iterator[tuple[int, Sequences]], codes: np.ndarray) -> Iterator[Block]:
    n_tokens = 0
    for start, sequences in parts:
        n_tokens += sequences.tokens.size
        yield Block(start, sequences, codes[start : start + len(sequences)])
    if not n_tokens:
        raise InputError(NO_KNOWN_GENE)


def _has_ranks(adata: ad.AnnData, key: str, expected: dict[str, Any]) -> bool:
    if key not in adata.layers or not is_ours(adata.uns.get(key)):
        return False
    made = adata.uns[key]["params"]
    fits = (
        made.get("vocabulary_sha256") == expected["vocabulary_sha256"]
        and made.get("gene_ids") == expected["gene_ids"]
        and expected["species"] <= set(made.get("species", ()))
        and expected["layer"] in (None, made.get("layer"))
        and int(made.get("n_genes", 0)) >= expected["n_genes"]
    )
    if not fits:
        logger.info('layers["%s"] was made with other settings: ranking the counts again.', key)
    return fits
