"""Views of objectives that predict values: what the encoder sees, and what it is asked for."""

from dataclasses import dataclass

import numpy as np

from ..batches import Sequences, positions
from ..decoders._log_values import log_values
from ..genes import Vocabulary
from ._cells import Cells
from ._recipe import Recipe
from .maskers import NonzeroZero
from .maskers.uniform import choose, n_hidden
from .profiles import Profile


@dataclass(frozen=True, eq=False)
class Asked:
    """Cells of which a part is shown and another part is asked for, in batch order.

    Parameters
    ----------
    shown
        Genes that the encoder sees, with their values.
    hidden
        Genes to predict, with their values.
    depth
        Decimal logarithm of all counts of each cell, as shown and in truth, float32,
        shape ``(n, 2)``.
    """

    shown: Cells
    hidden: Cells
    depth: np.ndarray


def expressed(
    profile: Profile,
    species: np.ndarray,
    vocabulary: Vocabulary,
    recipe: Recipe,
    rng: np.random.Generator,
) -> Asked:
    """Show expressed genes and ask for others and for some zeros (xTrimoGene, scFoundation).

    A share of the cells is shown as if it had been sequenced less deeply: counts are thinned, a
    gene whose count becomes zero is not shown, and ranks are those of the thinned counts. What is
    asked for are always values of the whole cell.
    """
    masker = NonzeroZero(recipe.hide_nonzero, recipe.hide_zero)
    away = masker(profile.genes, rng)
    zeros = masker.zeros(profile.genes, profile.measured[profile.group], rng)
    whole = Cells(profile.genes, profile.values(recipe.value_total))
    hidden = at_most(whole.kept(away).with_zeros(zeros), recipe.value_autoencoder_targets, rng)
    which = rng.random(len(species)) < recipe.value_autoencoder_thinning
    share = np.where(which, rng.beta(2, 2, len(species)), 1.0)  # as in scFoundation
    counts, totals = thinned(profile, share, away, rng)
    values = log_values(counts, np.repeat(totals, whole.lengths), recipe.value_total)
    order = by_rank(profile.genes, counts, species, vocabulary.medians)
    genes = Sequences(profile.genes.tokens[order], profile.genes.indptr)
    shown = Cells(genes, values[order]).kept((counts > 0)[order] & ~away[order])
    return Asked(shown, hidden, _depth(totals, profile.totals))


def panel(profile: Profile, recipe: Recipe, rng: np.random.Generator) -> Asked:
    """Draw some genes that were measured, zero or not; show a part, ask for the rest (GexBERT).

    Genes that a data set does not have are never drawn: they are unknown, not zero. With
    ``restore_draw="detected"`` they are drawn from the genes that at least one cell of the batch
    and of its data set expresses.
    """
    values, rank = _dense(profile, recipe.value_total)
    pool = _detected(values, profile) if recipe.restore_draw == "detected" else profile.measured
    sizes = rng.integers(recipe.restore_genes[0], recipe.restore_genes[1] + 1, len(profile.group))
    drawn = Sequences.from_list(
        [
            _draw(np.flatnonzero(pool[group]), size, rank[row], rng)
            for row, (group, size) in enumerate(zip(profile.group, sizes, strict=True))
        ]
    )
    row = np.repeat(np.arange(len(drawn)), drawn.lengths)
    cells = Cells(drawn, values[row, drawn.tokens])
    share = rng.uniform(*recipe.restore_share, len(drawn))
    n_away = np.maximum(n_hidden(drawn.lengths, share), np.minimum(drawn.lengths - 1, 1))
    away = choose(drawn, n_away, rng)
    return Asked(cells.kept(~away), cells.kept(away), _depth(profile.totals, profile.totals))


def thinned(
    profile: Profile, share: np.ndarray, away: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Counts and totals as if a share of each cell's molecules had been sequenced.

    Each molecule is kept with the same chance (binomial thinning), those of genes without a token
    too. A cell of which nothing but what is hidden would be left stays as it is, as does a cell
    whose share is one.

    Parameters
    ----------
    profile
        The cells.
    share
        Chance of a molecule of each cell, shape ``(n,)``.
    away
        Genes that are hidden anyhow, bool, shape ``(T,)``.
    rng
        Source of the draws.

    Returns
    -------
    Counts, shape ``(T,)``, and totals, shape ``(n,)``.
    """
    cell = np.repeat(np.arange(len(share)), profile.genes.lengths)
    whole = np.rint(profile.counts).astype(np.int64)
    kept = rng.binomial(whole, share[cell])
    known = np.bincount(cell, profile.counts, len(share))
    others = np.maximum(np.rint(profile.totals - known), 0).astype(np.int64)
    totals = np.bincount(cell, kept, len(share)) + rng.binomial(others, share)
    left = np.bincount(cell, (kept > 0) & ~away, len(share)) > 0
    thin = left & (share < 1)
    counts = np.where(thin[cell], kept, profile.counts).astype(np.float32)
    return counts, np.where(thin, totals, profile.totals)


def by_rank(
    genes: Sequences, counts: np.ndarray, species: np.ndarray, medians: np.ndarray
) -> np.ndarray:
    """Order of the tokens by rank within each cell, as `scmix.ranks.rank_encode` ranks them."""
    cell = np.repeat(np.arange(len(genes)), genes.lengths)
    score = counts / medians[species[cell], genes.tokens].astype(np.float64)
    return np.lexsort((genes.tokens, -score, cell))


def at_most(cells: Cells, n: int, rng: np.random.Generator) -> Cells:
    """A random choice of n genes of each cell that has more."""
    if cells.lengths.max(initial=0) <= n:
        return cells
    return cells.kept(choose(cells.genes, np.minimum(cells.lengths, n), rng))


def _draw(pool: np.ndarray, size: int, rank: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Genes of the pool: those with a count by rank, then the zeros by token."""
    chosen = rng.choice(pool, min(size, pool.size), replace=False, shuffle=False)
    return chosen[np.lexsort((chosen, rank[chosen]))]


def _dense(profile: Profile, total: float) -> tuple[np.ndarray, np.ndarray]:
    """Value and rank of every token, ``(n, n_tokens)``; genes without a count rank last."""
    genes = profile.genes
    shape = (len(genes), profile.measured.shape[1])
    values, rank = np.zeros(shape, np.float32), np.full(shape, shape[1], np.int32)
    where = np.repeat(np.arange(len(genes)), genes.lengths), genes.tokens
    values[where] = profile.values(total)
    rank[where] = positions(genes.indptr)
    return values, rank


def _detected(values: np.ndarray, profile: Profile) -> np.ndarray:
    """Genes that at least one cell of each group expresses, bool, ``(n_groups, n_tokens)``."""
    groups = range(len(profile.measured))
    return np.stack([(values[profile.group == group] > 0).any(0) for group in groups])


def _depth(shown: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.log10(np.maximum(np.stack([shown, truth], axis=1), 1)).astype(np.float32)
