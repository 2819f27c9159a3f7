"""Token sequences of many cells as one flat array, and how they are put into batches.

Nothing is ever padded: cell ``i`` is ``tokens[indptr[i]:indptr[i + 1]]``, as in a CSR matrix.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np

from scmix._errors import InputError

if TYPE_CHECKING:
    from scmix.genes import Vocabulary

SPECIES_TOKENS = ("<human>", "<mouse>")


@dataclass(frozen=True, eq=False)
class Sequences:
    """Token sequences of different lengths, packed one after another.

    Parameters
    ----------
    tokens
        All tokens, int32, shape ``(indptr[-1],)``.
    indptr
        Where each sequence starts, and where the last one ends: int64, shape ``(n + 1,)``.

    Examples
    --------
    >>> cells = Sequences(np.array([5, 6, 7, 8, 9]), np.array([0, 3, 3, 5]))
    >>> cells.lengths
    array([3, 0, 2])
    >>> cells[[2, 0]].tokens
    array([8, 9, 5, 6, 7], dtype=int32)
    >>> cells[0]
    array([5, 6, 7], dtype=int32)
    """

    tokens: np.ndarray
    indptr: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", np.asarray(self.tokens, dtype=np.int32))
        object.__setattr__(self, "indptr", np.asarray(self.indptr, dtype=np.int64))
        if self.indptr.ndim != 1 or self.indptr.size == 0 or self.indptr[0] != 0:
            raise InputError("indptr must be a 1-d array that starts with 0.")
        if self.indptr[-1] != self.tokens.size or (np.diff(self.indptr) < 0).any():
            raise InputError(
                f"indptr must rise to the number of tokens, {self.tokens.size:,}; "
                f"found {self.indptr[-1]:,} at its end."
            )

    @classmethod
    def from_list(cls, rows: Sequence[Sequence[int] | np.ndarray]) -> "Sequences":
        """Pack a list of token lists."""
        flat = [np.asarray(row, dtype=np.int32) for row in rows]
        tokens = np.concatenate(flat) if flat else np.empty(0, np.int32)
        return cls(tokens, _indptr(np.array([len(row) for row in flat], dtype=np.int64)))

    def __len__(self) -> int:
        return self.indptr.size - 1

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each sequence, int64."""
        return np.diff(self.indptr)

    @overload
    def __getitem__(self, rows: int | np.integer) -> np.ndarray: ...
    @overload
    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray) -> "Sequences": ...
    def __getitem__(
        self, rows: int | np.integer | slice | Sequence[int] | np.ndarray
    ) -> "Sequences | np.ndarray":
        """The tokens of one sequence, or the packed sequences at a slice, mask or index array."""
        chosen = np.arange(len(self))[rows if isinstance(rows, slice) else np.asarray(rows)]
        if np.ndim(chosen) == 0:
            return self.tokens[self.indptr[chosen] : self.indptr[chosen + 1]]
        lengths = self.lengths[chosen]
        return Sequences(self.tokens[ranges(self.indptr[chosen], lengths)], _indptr(lengths))


def concat(parts: Sequence[Sequences]) -> Sequences:
    """Sequences of several blocks, one after another."""
    if not parts:
        return Sequences(np.empty(0, np.int32), np.zeros(1, np.int64))
    lengths = np.concatenate([part.lengths for part in parts])
    return Sequences(np.concatenate([part.tokens for part in parts]), _indptr(lengths))


def positions(indptr: np.ndarray) -> np.ndarray:
    """Position of every token in its own sequence, counted from 0.

    Examples
    --------
    >>> positions(np.array([0, 3, 3, 5]))
    array([0, 1, 2, 0, 1])
    """
    lengths = np.diff(indptr)
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indices ``starts[i], starts[i] + 1, ..., starts[i] + lengths[i] - 1`` for all i in turn.

    Examples
    --------
    >>> ranges(np.array([10, 3]), np.array([2, 3]))
    array([10, 11,  3,  4,  5])
    """
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if ends.size else 0) + np.repeat(starts - ends + lengths, lengths)


def pack(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Divide sequences into batches of at most ``budget`` tokens.

    Parameters
    ----------
    lengths
        Tokens of each sequence, shape ``(n,)``.
    budget
        Most tokens in a batch. A single longer sequence makes a batch of its own.

    Returns
    -------
    Row indices of each batch. The longest come first: a batch that does not fit into memory
    is met at the start, and sequences of equal length stand together.

    Examples
    --------
    >>> [batch.tolist() for batch in pack(np.array([3, 5, 2, 9]), budget=8)]
    [[3], [1, 0], [2]]
    """
    if budget < 1:
        raise InputError(f"The token budget must be at least 1, found {budget}.")
    lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    batches, start = [], 0
    while start < order.size:
        used = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, used + budget, side="right")), start + 1)
        batches.append(order[start:stop])
        start = stop
    return batches


def add_special(
    sequences: Sequences,
    vocabulary: "Vocabulary",
    species: int | np.ndarray,
    *,
    use_species: bool | np.ndarray = True,
    max_length: int,
) -> Sequences:
    """Put the vocabulary's special tokens around the genes of each cell.

    Parameters
    ----------
    sequences
        Gene tokens by rank. A cell without genes stays empty.
    vocabulary
        Says which tokens stand in front (``<human>``, ``<mouse>``, ``<cls>``) and behind
        (``<eos>``).
    species
        Species code of each cell (0 human, 1 mouse), or one for all.
    use_species
        Whether the species token is put in front, for all or for each cell.
    max_length
        Most tokens of a cell, special ones included. The last genes give way.
    """
    n = len(sequences)
    kind = 2 * np.broadcast_to(species, n).astype(np.int64) + np.broadcast_to(use_species, n)
    prefixes = [_prefix(vocabulary, code, bool(use)) for code in (0, 1) for use in (0, 1)]
    suffix = np.asarray(vocabulary.suffix(), dtype=np.int32)
    n_front = np.array([len(prefix) for prefix in prefixes])[kind]
    room = max_length - n_front - suffix.size
    if n and room.min() < 1:
        raise InputError(
            f"max_length={max_length} leaves no room for genes beside the special tokens."
        )
    occupied = sequences.lengths > 0
    n_genes = np.minimum(sequences.lengths, room)
    indptr = _indptr(np.where(occupied, n_front + n_genes + suffix.size, 0))
    tokens = np.empty(indptr[-1], dtype=np.int32)
    for code, prefix in enumerate(prefixes):
        starts = indptr[:-1][occupied & (kind == code)]
        tokens[starts[:, None] + np.arange(len(prefix))] = prefix
    front = np.where(occupied, n_front, 0)
    tokens[ranges(indptr[:-1] + front, n_genes)] = sequences.tokens[
        ranges(sequences.indptr[:-1], n_genes)
    ]
    behind = indptr[1:][occupied] - suffix.size
    tokens[behind[:, None] + np.arange(suffix.size)] = suffix
    return Sequences(tokens, indptr)


def _prefix(vocabulary: "Vocabulary", code: int, use_species: bool) -> np.ndarray:
    dropped = set() if use_species else {vocabulary.special.get(name) for name in SPECIES_TOKENS}
    return np.array([t for t in vocabulary.prefix(code) if t not in dropped], dtype=np.int32)


def _indptr(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])
