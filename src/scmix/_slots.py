"""The boundary to AnnData: counts and sequences are read here, results are written by `write`."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import scipy.sparse as sp

from scmix._count_blocks import iter_counts, map_counts
from scmix._errors import InputError
from scmix._row_blocks import row_blocks
from scmix._species import SPECIES
from scmix._writer import is_ours, params, write
from scmix.batches import Sequences
from scmix.ranks import layer_to_sequences, n_threads, rank_encode

if TYPE_CHECKING:
    from scmix._gene_matching import GeneMatch, OnDuplicate
    from scmix.genes import Vocabulary

__all__ = ["Block", "iter_counts", "iter_sequences", "map_counts", "params", "write"]

logger = logging.getLogger("scmix")

NO_KNOWN_GENE = (
    "No cell has a count of a gene that the vocabulary knows. Check species= and gene_ids=."
)


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
    is_part: bool = False,
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
    is_part
        The cells are some of many, which may all be empty.

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
    wanted: Any = {"layer": layer, "gene_ids": gene_ids, "n_genes": n_genes}
    if rank_layer is not None and has_ranks(
        adata, vocabulary, codes, rank_layer=rank_layer, **wanted
    ):
        logger.info('Using the ranks in layers["%s"].', rank_layer)
        blocks = row_blocks(adata, rank_layer, block_cells)
        parts: Iterator[Sequences] = (
            layer_to_sequences(sp.csr_matrix(blocks.read(*where)), genes.tokens, n_genes=n_genes)
            for where in blocks.bounds
        )
    else:
        ranking = Ranking(genes.tokens, vocabulary.medians, n_genes)
        parts = map_counts(
            adata,
            lambda start, counts: ranking(counts, codes[start : start + counts.shape[0]]),
            layer=layer,
            allow_noninteger=allow_noninteger,
            block_cells=block_cells,
            n_threads=n_threads(),
            is_part=is_part,
        )
    return _to_blocks(parts, codes, is_part)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Ranks counts; holds arrays only, so that it can be sent to another process.

    Parameters
    ----------
    tokens
        Of the columns, -1 for none.
    medians
        Of the vocabulary.
    n_genes
        How many genes to keep of a cell.
    """

    tokens: np.ndarray
    medians: np.ndarray
    n_genes: int

    def __call__(self, counts: sp.csr_matrix, codes: np.ndarray) -> Sequences:
        """Ranked genes of cells of these species codes."""
        return rank_encode(counts, self.tokens, self.medians, codes, n_genes=self.n_genes)


def _to_blocks(parts: Iterator[Sequences], codes: np.ndarray, is_part: bool) -> Iterator[Block]:
    start = n_tokens = 0
    for sequences in parts:
        stop = start + len(sequences)
        n_tokens += sequences.tokens.size
        yield Block(start, sequences, codes[start:stop])
        start = stop
    if not n_tokens and not is_part:
        raise InputError(NO_KNOWN_GENE)


def has_ranks(
    adata: ad.AnnData,
    vocabulary: "Vocabulary",
    codes: np.ndarray,
    *,
    layer: str | None,
    gene_ids: str | None,
    n_genes: int,
    rank_layer: str = "rank",
) -> bool:
    """Whether ranks are stored that :func:`iter_sequences` can use for cells of these species."""
    if rank_layer not in adata.layers or not is_ours(adata.uns.get(rank_layer)):
        return False
    made = adata.uns[rank_layer]["params"]
    fits = (
        made.get("vocabulary_sha256") == vocabulary.sha256
        and made.get("gene_ids") == gene_ids
        and {SPECIES[code] for code in np.unique(codes)} <= set(made.get("species", ()))
        and layer in (None, made.get("layer"))
        and int(made.get("n_genes", 0)) >= n_genes
    )
    if not fits:
        logger.info('layers["%s"] was made with other settings: ranking again.', rank_layer)
    return fits
