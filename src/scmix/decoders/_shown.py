"""What the encoder is shown of a cell whose genes are to be predicted."""

from dataclasses import dataclass

import numpy as np

from ..batches import Sequences, add_special, ranges
from ..genes import Vocabulary
from ._log_values import log_values
from ._profiles import Profiles


@dataclass(frozen=True, eq=False)
class Shown:
    """Cells as the encoder reads them.

    Parameters
    ----------
    sequences
        Tokens, special ones included.
    values
        Expression of each token, float32.
    known
        Which tokens have a value: not the special ones.
    """

    sequences: Sequences
    values: np.ndarray
    known: np.ndarray


def show(
    profiles: Profiles,
    vocabulary: Vocabulary,
    *,
    total: float,
    max_length: int,
    zeros: Sequences | None = None,
) -> Shown:
    """Put special tokens and values to the genes of cells.

    Parameters
    ----------
    profiles
        The cells.
    vocabulary
        Of the model.
    total
        Counts that a cell is scaled to.
    max_length
        Most tokens of a cell; the genes of lowest rank give way.
    zeros
        Genes of value zero that stand behind each cell's own.
    """
    room = max_length - max(len(vocabulary.prefix(s)) for s in (0, 1)) - len(vocabulary.suffix())
    cells, lengths = profiles.cells, np.minimum(profiles.cells.lengths, room)
    n_zeros = np.zeros_like(lengths) if zeros is None else np.minimum(zeros.lengths, room - lengths)
    indptr = np.concatenate([[0], np.cumsum(lengths + n_zeros)])
    tokens, values = np.zeros(indptr[-1], np.int32), np.zeros(indptr[-1], np.float32)
    taken, to = ranges(cells.indptr[:-1], lengths), ranges(indptr[:-1], lengths)
    tokens[to] = cells.tokens[taken]
    values[to] = log_values(profiles.counts[taken], np.repeat(profiles.totals, lengths), total)
    if zeros is not None:
        behind = ranges(indptr[:-1] + lengths, n_zeros)
        tokens[behind] = zeros.tokens[ranges(zeros.indptr[:-1], n_zeros)]
    genes = Sequences(tokens, indptr)
    whole = add_special(genes, vocabulary, profiles.species, max_length=max_length)
    known = ~np.isin(whole.tokens, vocabulary.special_ids)
    placed = np.zeros(known.size, np.float32)
    placed[known] = values
    return Shown(whole, placed, known)


def likeliest_zeros(
    profiles: Profiles, mean: np.ndarray, measured: np.ndarray, most: int
) -> Sequences:
    """For each cell as many zeros as it has genes: those that are expected to be expressed most.

    Parameters
    ----------
    profiles
        The cells.
    mean
        Mean expression of each token in each species, shape ``(2, vocab)``.
    measured
        Tokens that were measured in each species, bool, shape ``(2, vocab)``.
    most
        Most genes of a cell, those with counts included.
    """
    order = [np.argsort(-row, kind="stable") for row in mean]
    order = [row[seen[row]] for row, seen in zip(order, measured, strict=True)]
    expressed = np.zeros(mean.shape[1], bool)
    chosen = []
    for cell, species in zip(profiles.cells, profiles.species, strict=True):
        expressed[cell] = True
        n = min(cell.size, max(most - cell.size, 0))
        candidates = order[species][: cell.size + n]
        chosen.append(candidates[~expressed[candidates]][:n])
        expressed[cell] = False
    return Sequences.from_list(chosen)
