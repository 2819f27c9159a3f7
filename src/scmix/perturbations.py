"""Edits of cells before the encoder reads them: genes deleted, overexpressed, inhibited, activated.

Cells are sequences of gene tokens, most distinctive first, without special tokens (those are put
around the edited genes by :func:`scmix.batches.add_special`). Every function takes many sequences
at once and edits each with a set of genes of its own.
"""

from dataclasses import dataclass

import numpy as np

from ._errors import InputError
from ._gene_sets import Gene as Gene
from ._gene_sets import check_distinct as check_distinct
from ._gene_sets import pairs as pairs
from ._gene_sets import with_anchor as with_anchor
from .batches import Sequences, positions, ranges

KINDS = ("delete", "overexpress", "inhibit", "activate")
UNITS = ("positions", "fraction", "quartiles")
NONE = -1  # fills up the rows of sets that have fewer genes than others


@dataclass(frozen=True, eq=False)
class Edited:
    """Sequences after an edit, and where their tokens come from.

    Parameters
    ----------
    sequences
        As many as there were before.
    source
        Where each token stood in the flat tokens before the edit, -1 for a gene that was put in:
        int64, shape `(sequences.tokens.size,)`.
    """

    sequences: Sequences
    source: np.ndarray


@dataclass(frozen=True)
class Edit:
    """What is done to the genes of a set, in cells of which the encoder reads a number of genes.

    Parameters
    ----------
    kind
        "delete"; "overexpress": to the front, put in where it is absent; "inhibit": down;
        "activate": up.
    n_genes
        Most genes of a cell that are read.
    by, unit
        How far "inhibit" and "activate" go, as in :func:`inhibit`.
    readmit
        Whether deletion from a truncated cell lets the next gene back in. False as in the
        published code: the cell is truncated first, and gets shorter.
    """

    kind: str
    n_genes: int
    by: float = 1
    unit: str = "quartiles"
    readmit: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"Found kind={self.kind!r}; expected one of {', '.join(KINDS)}.")
        if self.n_genes < 1:
            raise InputError(f"Found n_genes={self.n_genes}; expected at least 1.")
        if self.kind in ("inhibit", "activate"):
            _check_shift(self.by, self.unit)

    def before(self, sequences: Sequences) -> Sequences:
        """What is read of the cells without the edit."""
        return truncate(sequences, self.n_genes)

    def after(self, sequences: Sequences, genes: np.ndarray) -> Edited:
        """What is read of the cells with the edit.

        Parameters
        ----------
        sequences
            Genes of the cells; to let genes back in, more of them than are read.
        genes
            As in :func:`delete`.

        Returns
        -------
        The sources refer to `sequences`.
        """
        if not (self.kind == "delete" and self.readmit):
            read = ranges(sequences.indptr[:-1], np.minimum(sequences.lengths, self.n_genes))
            edited = self._apply(truncate(sequences, self.n_genes), genes)
            source = edited.source.copy()
            source[source >= 0] = read[source[source >= 0]]
        else:
            edited = delete(sequences, genes)
            source = edited.source
        kept = np.minimum(edited.sequences.lengths, self.n_genes)
        return Edited(
            truncate(edited.sequences, self.n_genes),
            source[ranges(edited.sequences.indptr[:-1], kept)],
        )

    def _apply(self, sequences: Sequences, genes: np.ndarray) -> Edited:
        if self.kind == "delete":
            return delete(sequences, genes)
        if self.kind == "overexpress":
            return overexpress(sequences, genes)
        shift = inhibit if self.kind == "inhibit" else activate
        return shift(sequences, genes, self.by, self.unit)


def delete(sequences: Sequences, genes: np.ndarray) -> Edited:
    """Take genes out; those behind them move up.

    Parameters
    ----------
    sequences
        Genes of each cell, most distinctive first.
    genes
        Tokens of the set, shape `(k,)`, or of the set of each sequence, shape `(n, k)`, where -1
        stands for no gene. A gene that a cell lacks changes nothing.

    Examples
    --------
    >>> cells = Sequences.from_list([[7, 8, 9], [8, 5]])
    >>> list(delete(cells, np.array([8])).sequences)
    [array([7, 9], dtype=int32), array([5], dtype=int32)]
    """
    kept = find(sequences, genes) < 0
    source = np.flatnonzero(kept)
    ends = np.concatenate([[0], np.cumsum(kept)])[sequences.indptr]
    return Edited(Sequences(sequences.tokens[source], ends), source)


def overexpress(sequences: Sequences, genes: np.ndarray) -> Edited:
    """Put genes to the front, in the order of the set, those that a cell lacks included.

    Parameters
    ----------
    sequences, genes
        As in :func:`delete`.

    Examples
    --------
    >>> cells = Sequences.from_list([[7, 8, 9], [8, 5]])
    >>> list(overexpress(cells, np.array([9, 8])).sequences)
    [array([9, 8, 7], dtype=int32), array([9, 8, 5], dtype=int32)]
    """
    sets = as_sets(genes, len(sequences))
    column = find(sequences, sets)
    rest = delete(sequences, sets)
    given = sets >= 0
    lengths = rest.sequences.lengths + given.sum(axis=1)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.empty(indptr[-1], np.int32)
    source = np.empty(indptr[-1], np.int64)
    stood = np.full(sets.shape, NONE, np.int64)
    found = np.flatnonzero(column >= 0)
    stood[_rows(sequences)[found], column[found]] = found
    front = (indptr[:-1, None] + np.cumsum(given, axis=1) - 1)[given]
    behind = ranges(indptr[:-1] + given.sum(axis=1), rest.sequences.lengths)
    tokens[front], source[front] = sets[given], stood[given]
    tokens[behind], source[behind] = rest.sequences.tokens, rest.source
    return Edited(Sequences(tokens, indptr), source)


def inhibit(
    sequences: Sequences, genes: np.ndarray, by: float = 1, unit: str = "quartiles"
) -> Edited:
    """Move genes down; those that they pass move up.

    Parameters
    ----------
    sequences, genes
        As in :func:`delete`.
    by
        How far.
    unit
        "positions"; "fraction" of the cell's genes, at least one position; or "quartiles" of the
        cell's genes, 1 to 3: to the middle of the quartile so many further down, and to the bottom
        where there is none.

    Examples
    --------
    >>> cells = Sequences.from_list([[1, 2, 3, 4, 5, 6, 7, 8]])
    >>> inhibit(cells, np.array([2]), 2, "positions").sequences[0]
    array([1, 3, 4, 2, 5, 6, 7, 8], dtype=int32)
    >>> inhibit(cells, np.array([2]), 1, "quartiles").sequences[0]
    array([1, 3, 4, 2, 5, 6, 7, 8], dtype=int32)
    """
    return _shift(sequences, genes, by, unit, down=True)


def activate(
    sequences: Sequences, genes: np.ndarray, by: float = 1, unit: str = "quartiles"
) -> Edited:
    """Move genes up; those that they pass move down.

    Parameters
    ----------
    sequences, genes, by, unit
        As in :func:`inhibit`; with "quartiles", to the front where there is none further up.

    Examples
    --------
    >>> cells = Sequences.from_list([[1, 2, 3, 4, 5, 6, 7, 8]])
    >>> activate(cells, np.array([7]), 0.5, "fraction").sequences[0]
    array([1, 2, 7, 3, 4, 5, 6, 8], dtype=int32)
    """
    return _shift(sequences, genes, by, unit, down=False)


def truncate(sequences: Sequences, n_genes: int) -> Sequences:
    """The first `n_genes` genes of each cell."""
    lengths = np.minimum(sequences.lengths, n_genes)
    if lengths.sum() == sequences.tokens.size:
        return sequences
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return Sequences(sequences.tokens[ranges(sequences.indptr[:-1], lengths)], indptr)


def is_changed(before: Sequences, after: Sequences) -> np.ndarray:
    """Which sequences an edit has changed: bool, one per sequence.

    Examples
    --------
    >>> cells = Sequences.from_list([[7, 8], [8, 7]])
    >>> is_changed(cells, overexpress(cells, np.array([7])).sequences)
    array([False,  True])
    """
    changed = before.lengths != after.lengths
    same = np.flatnonzero(~changed)
    lengths = before.lengths[same]
    differs = (
        before.tokens[ranges(before.indptr[same], lengths)]
        != after.tokens[ranges(after.indptr[same], lengths)]
    )
    changed[np.repeat(same, lengths)[differs]] = True
    return changed


def find(sequences: Sequences, genes: np.ndarray) -> np.ndarray:
    """Column of the set in which each token stands, -1 for tokens outside it: one per token."""
    sets = as_sets(genes, len(sequences))
    column = np.full(sequences.tokens.size, NONE, np.int64)
    for i in range(sets.shape[1]):
        column[sequences.tokens == np.repeat(sets[:, i], sequences.lengths)] = i
    return column


def has_all(sequences: Sequences, genes: np.ndarray) -> np.ndarray:
    """Which sequences have every gene of their set: bool, one per sequence."""
    return n_found(sequences, genes) == (as_sets(genes, len(sequences)) >= 0).sum(axis=1)


def n_found(sequences: Sequences, genes: np.ndarray) -> np.ndarray:
    """How many genes of its set each sequence has."""
    return np.bincount(_rows(sequences)[find(sequences, genes) >= 0], minlength=len(sequences))


def every_gene(sequences: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Every gene of every sequence in turn, as sets of one.

    Returns
    -------
    Row of the sequence, int64 `(m,)`, and the gene, int32 `(m, 1)`.
    """
    return _rows(sequences), sequences.tokens[:, None]


def as_sets(genes: np.ndarray, n: int) -> np.ndarray:
    """Sets of genes for n sequences, int32 `(n, k)`; a gene that is there twice is refused."""
    sets = np.asarray(genes, dtype=np.int32)
    if sets.ndim == 1:
        sets = np.broadcast_to(sets, (n, sets.size))
    if sets.ndim != 2 or len(sets) != n:
        raise InputError(f"Found genes of shape {np.shape(genes)}; expected (k,) or ({n}, k).")
    if sets.shape[1] > 1:
        ordered = np.sort(sets, axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        if twice.any():
            token = ordered[:, 1:][twice][0]
            raise InputError(f"Found token {token} twice; expected every gene once in a set.")
    return sets


def _shift(sequences: Sequences, genes: np.ndarray, by: float, unit: str, *, down: bool) -> Edited:
    """Sort tokens by twice their position; a gene that moves stands just beside its target."""
    _check_shift(by, unit)
    moves = np.flatnonzero(find(sequences, genes) >= 0)
    place = positions(sequences.indptr)[moves]
    rows = _rows(sequences)[moves]
    target = _target(place, sequences.lengths[rows], by, unit, down=down)
    key = 2 * np.arange(sequences.tokens.size)
    moved = target != place
    key[moves[moved]] = (2 * (sequences.indptr[rows] + target) + (1 if down else -1))[moved]
    source = np.argsort(key, kind="stable")
    return Edited(Sequences(sequences.tokens[source], sequences.indptr), source)


def _target(
    place: np.ndarray, lengths: np.ndarray, by: float, unit: str, *, down: bool
) -> np.ndarray:
    """Where a gene at some place of a cell with so many genes goes, see :func:`inhibit`."""
    sign = 1 if down else -1
    if unit == "quartiles":
        quartile = 4 * place // np.maximum(lengths, 1) + sign * int(by)
        middle = (2 * quartile + 1) * lengths // 8
        target = np.where(quartile > 3, lengths - 1, np.where(quartile < 0, 0, middle))
    else:
        steps = by if unit == "positions" else np.maximum(np.rint(by * lengths), 1)
        target = np.clip(place + sign * steps, 0, lengths - 1)
    target = np.maximum(target, place) if down else np.minimum(target, place)
    return target.astype(np.int64)


def _check_shift(by: float, unit: str) -> None:
    if unit not in UNITS:
        raise InputError(f"Found unit={unit!r}; expected one of {', '.join(UNITS)}.")
    whole = float(by).is_integer()
    if unit == "positions" and not (whole and by >= 1):
        raise InputError(f"Found by={by} positions; expected a whole number from 1.")
    if unit == "fraction" and not 0 < by <= 1:
        raise InputError(f"Found by={by} as a fraction; expected more than 0, at most 1.")
    if unit == "quartiles" and by not in (1, 2, 3):
        raise InputError(f"Found by={by} quartiles; expected 1, 2 or 3.")


def _rows(sequences: Sequences) -> np.ndarray:
    return np.repeat(np.arange(len(sequences)), sequences.lengths)
