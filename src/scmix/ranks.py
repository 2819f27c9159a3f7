"""Counts to ranks: each cell as its genes, most distinctive first.

``score = count / median(gene)``, descending; exactly equal scores stand in the order of their
tokens, so that a cell has one sequence on every machine. Library size cannot change the order.
The kernels sort short keys made of the scores with two radix passes and then settle runs of equal
keys on the exact scores (measured: about 5 ns per count and thread; comparison sorts take 40-90).
A plain numpy version, :func:`rank_encode_numpy`, says the same in a few lines.
"""

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import scipy.sparse as sp
from numpy.lib.stride_tricks import sliding_window_view

from scmix._errors import InputError
from scmix._rank_kernels import (
    MAX_RANK,
    close_gaps,
    place_ranks,
    rank_rows,
    read_ranks,
)
from scmix.batches import Sequences

_SMALL = 200_000  # counts; below, starting threads costs more than it saves
_MOST_THREADS = 8  # more would wait for memory
_CHUNKS = 4  # for each thread, so that none waits long for another


def rank_encode(
    counts: sp.csr_matrix | sp.csr_array,
    column_tokens: np.ndarray,
    medians: np.ndarray,
    species: np.ndarray | int,
    *,
    n_genes: int = 2048,
) -> Sequences:
    """Order the genes of each cell by `count / median`.

    Counts in columns that share a token are summed. Counts that are not above zero, in columns
    without a token, or of genes that the cell's species does not have, are left out.

    Parameters
    ----------
    counts
        Cells by genes, not negative and finite.
    column_tokens
        Token of each column; -1 for none.
    medians
        Median count of each token where detected, shape `(n_species, n_tokens)`; NaN where the
        species has no such gene.
    species
        Species code of each cell (row of `medians`), or one for all.
    n_genes
        How many genes to keep of a cell, at most 65,535.

    Returns
    -------
    One sequence per cell; empty for a cell without usable counts.

    Raises
    ------
    InputError
        When shapes, tokens or species do not fit together.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> counts = sp.csr_matrix(np.array([[4, 0, 9], [1, 1, 1], [0, 0, 0]], dtype="float32"))
    >>> medians = np.array([[np.nan, 2.0, 1.0, 9.0]])
    >>> cells = rank_encode(counts, np.array([1, 2, 3]), medians, 0)
    >>> [cell.tolist() for cell in cells]
    [[1, 3], [2, 1, 3], []]
    """
    counts, tokens, medians, species = _checked(counts, column_tokens, medians, species, n_genes)
    capacity = np.minimum(np.diff(counts.indptr), n_genes)
    offsets = np.concatenate([[0], np.cumsum(capacity, dtype=np.int64)])
    ranked = np.empty(offsets[-1], np.int32)
    lengths = np.zeros(counts.shape[0], np.int64)
    matrix = (counts.data, _unsigned(counts.indices), counts.indptr)
    genes = (tokens, medians, _shared(tokens))
    result = (ranked, offsets, lengths)
    _each_chunk(
        lambda where: rank_rows(where, matrix, genes, species, n_genes, result), counts.indptr
    )
    return _compact(ranked, offsets, lengths)


def rank_encode_numpy(
    counts: sp.csr_matrix | sp.csr_array,
    column_tokens: np.ndarray,
    medians: np.ndarray,
    species: np.ndarray | int,
    *,
    n_genes: int = 2048,
) -> Sequences:
    """Say what :func:`rank_encode` does in plain numpy, one cell after the other."""
    counts, tokens, medians, species = _checked(counts, column_tokens, medians, species, n_genes)
    rows = []
    for i in range(counts.shape[0]):
        entries = slice(counts.indptr[i], counts.indptr[i + 1])
        token = tokens[counts.indices[entries]]
        count = counts.data[entries].astype(np.float64)
        median = medians[species[i], counts.indices[entries]]
        usable = (count > 0) & (median > 0)
        token, first, gene = np.unique(token[usable], return_index=True, return_inverse=True)
        score = np.bincount(gene, count[usable], token.size) / median[usable][first]
        rows.append(token[np.lexsort((token, -score))][:n_genes])
    lengths = np.array([row.size for row in rows], np.int64)
    flat = np.concatenate([*rows, np.empty(0, np.int32)])
    return Sequences(flat, np.concatenate([[0], np.cumsum(lengths)]))


def ranks_to_layer(
    sequences: Sequences, column_tokens: np.ndarray, counts: sp.csr_matrix | sp.csr_array
) -> sp.csr_matrix:
    """Put ranks where the counts are: 1 is the cell's most distinctive gene.

    Parameters
    ----------
    sequences
        What :func:`rank_encode` made of `counts`.
    column_tokens
        Token of each column; -1 for none.
    counts
        Cells by genes. Where several columns of a cell were summed, the first of them that has
        a count carries the rank.

    Returns
    -------
    Ranks, uint16, in the shape of `counts`.

    Raises
    ------
    InputError
        When a sequence is longer than 65,535 or holds a token that its cell has no count of.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> counts = sp.csr_matrix(np.array([[4, 0, 9]], dtype="float32"))
    >>> cells = Sequences(np.array([3, 1]), np.array([0, 2]))
    >>> ranks_to_layer(cells, np.array([1, 2, 3]), counts).toarray()
    array([[2, 0, 1]], dtype=uint16)
    """
    if sequences.lengths.max(initial=0) > MAX_RANK:
        raise InputError(
            f"Found a sequence of {sequences.lengths.max():,} genes; a layer of ranks holds "
            f"{MAX_RANK:,}. Lower n_genes."
        )
    counts = _canonical(counts)
    tokens = np.asarray(column_tokens, dtype=np.int32)
    ranks = np.empty(sequences.tokens.size, np.uint16)
    columns = np.empty(sequences.tokens.size, np.int32)
    n_tokens = max(tokens.max(initial=0), sequences.tokens.max(initial=0)) + 1
    matrix = (counts.data, counts.indices, counts.indptr)
    bad = place_ranks(
        matrix, (sequences.tokens, sequences.indptr), tokens, n_tokens, ranks, columns
    )
    if bad >= 0:
        raise InputError(
            f"The sequence of cell {bad} holds a token that the cell has no count of. Pass the "
            "counts that were ranked."
        )
    return sp.csr_matrix((ranks, columns, sequences.indptr), shape=counts.shape)


def layer_to_sequences(
    layer: sp.csr_matrix | sp.csr_array, column_tokens: np.ndarray, *, n_genes: int | None = None
) -> Sequences:
    """Read sequences back from a layer of ranks; genes may have been sliced away since.

    Parameters
    ----------
    layer
        Ranks by cell and gene, as :func:`ranks_to_layer` writes them.
    column_tokens
        Token of each column; -1 for none.
    n_genes
        How many genes to keep of a cell; all by default.

    Raises
    ------
    InputError
        When two genes of a cell have the same rank, or a ranked column has no token.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> layer = sp.csr_matrix(np.array([[2, 0, 1]], dtype="uint16"))
    >>> layer_to_sequences(layer, np.array([1, 2, 3])).tokens
    array([3, 1], dtype=int32)
    """
    tokens = np.asarray(column_tokens, dtype=np.int32)
    if layer.shape[1] != tokens.size:
        raise InputError(f"Found {layer.shape[1]:,} columns and {tokens.size:,} column_tokens.")
    ranks = _whole_ranks(layer.data)
    keep = MAX_RANK if n_genes is None else n_genes
    capacity = np.minimum(np.diff(layer.indptr), keep)
    offsets = np.concatenate([[0], np.cumsum(capacity, dtype=np.int64)])
    ranked, lengths = np.empty(offsets[-1], np.int32), np.zeros(layer.shape[0], np.int64)
    bad = read_ranks((ranks, layer.indices, layer.indptr), tokens, keep, ranked, offsets, lengths)
    if bad >= 0:
        raise InputError(
            f"The ranks of cell {bad} are not one per gene, or stand at a gene without a token. "
            "The layer or the genes have changed: run rank_encode again with overwrite=True."
        )
    return _compact(ranked, offsets, lengths)


def _checked(
    counts: Any, column_tokens: Any, medians: Any, species: Any, n_genes: int
) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray, np.ndarray]:
    """Counts, tokens, medians by species and column (NaN: not to be used), species."""
    counts = _canonical(counts)
    tokens = np.asarray(column_tokens, dtype=np.int32)
    medians = np.asarray(medians)
    species = np.broadcast_to(np.asarray(species, dtype=np.int64), counts.shape[:1]).copy()
    if tokens.shape != counts.shape[1:]:
        raise InputError(f"Found {counts.shape[1]:,} columns and {tokens.size:,} column_tokens.")
    if tokens.max(initial=-1) >= medians.shape[1] or tokens.min(initial=0) < -1:
        raise InputError(
            f"Found tokens from {tokens.min()} to {tokens.max()}; medians has "
            f"{medians.shape[1]:,} tokens."
        )
    if species.size and not 0 <= species.min() <= species.max() < medians.shape[0]:
        raise InputError(f"Expected species codes from 0 to {medians.shape[0] - 1}.")
    if not 1 <= n_genes <= MAX_RANK:
        raise InputError(f"Found n_genes = {n_genes}; expected 1 to {MAX_RANK:,}.")
    of_columns = np.take(medians, tokens, axis=1).astype(np.float64)
    of_columns[:, tokens < 0] = np.nan
    of_columns[~(of_columns > 0)] = np.nan
    return counts, tokens, of_columns, species


def _canonical(counts: sp.csr_matrix | sp.csr_array) -> sp.csr_matrix:
    """Float32 or float64 (which the kernels are compiled for), sorted, without duplicates."""
    if counts.dtype not in (np.float32, np.float64):
        counts = counts.astype(np.float64)
    if not counts.has_canonical_format:
        counts = counts.copy()
        counts.sum_duplicates()
    return counts


def _unsigned(indices: np.ndarray) -> np.ndarray:
    """As the kernel takes them: it need not ask whether they count from the end (20 % faster)."""
    return indices.view(f"u{indices.itemsize}")


def _shared(tokens: np.ndarray) -> np.ndarray:
    """Whether a column's token is also another column's; empty when none is."""
    shared = (tokens >= 0) & (np.bincount(tokens + 1)[tokens + 1] > 1)
    return shared if shared.any() else shared[:0]


def _whole_ranks(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint16:
        return values
    ranks = values.astype(np.uint16)
    if (ranks != values).any():
        raise InputError("The layer holds values that are no ranks. Run rank_encode again.")
    return ranks


def n_threads() -> int:
    """Threads to rank with: one where the caller is itself one of several threads or processes."""
    in_thread = threading.current_thread() is not threading.main_thread()
    if in_thread or multiprocessing.parent_process() is not None:
        return 1
    return min(numba.get_num_threads(), _MOST_THREADS)


def _each_chunk(rank: Callable[[np.ndarray], None], indptr: np.ndarray) -> None:
    """Rank ranges of rows in threads: plain ones, because numba's wait for each other awake."""
    n = n_threads() if indptr[-1] >= _SMALL else 1
    if n == 1:
        rank(np.array([0, indptr.size - 1]))
        return
    with ThreadPoolExecutor(n, "scmix-rank") as pool:
        list(pool.map(rank, sliding_window_view(_chunks(indptr, _CHUNKS * n), 2)))


def _chunks(indptr: np.ndarray, n: int) -> np.ndarray:
    """Row ranges with about the same number of counts."""
    inner = np.searchsorted(indptr, np.linspace(0, indptr[-1], n + 1)[1:-1])
    return np.concatenate([[0], inner, [indptr.size - 1]])


def _compact(ranked: np.ndarray, offsets: np.ndarray, lengths: np.ndarray) -> Sequences:
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    if indptr[-1] < offsets[-1]:
        close_gaps(ranked, offsets, indptr)
        ranked = ranked[: indptr[-1]].copy()
    return Sequences(ranked, indptr)
