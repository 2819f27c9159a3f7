"""What each gene is on average: where decoders of whole cells start."""

from dataclasses import dataclass

import numpy as np

from ..corpus import Corpus
from ..profiles import Profile

_MOST_CELLS = 2000


@dataclass(frozen=True, eq=False)
class GeneMeans:
    """Means of every token over some cells of a corpus, each of shape ``(n_tokens,)``.

    Parameters
    ----------
    value
        Mean of ``log1p`` of the scaled count, over cells that express the gene; 0 if none does.
    count
        Mean scaled count over cells whose data set measured the gene.
    absent
        Share of these cells without a count, with one cell added to both sides.
    """

    value: np.ndarray
    count: np.ndarray
    absent: np.ndarray


def gene_means(corpus: Corpus, total: float, seed: int = 0) -> GeneMeans:
    """Average over at most 2,000 cells, drawn at random."""
    rows = np.random.default_rng(seed).permutation(len(corpus))[:_MOST_CELLS]
    profile = Profile.read(corpus, np.sort(rows))
    tokens, n_tokens = profile.genes.tokens, profile.measured.shape[1]
    values = profile.values(total)
    n_expressed = np.bincount(tokens, minlength=n_tokens)
    n_measured = np.bincount(profile.group, minlength=len(profile.measured)) @ profile.measured
    value = np.bincount(tokens, values, n_tokens) / np.maximum(n_expressed, 1)
    count = np.bincount(tokens, np.expm1(values), n_tokens) / np.maximum(n_measured, 1)
    return GeneMeans(value, count, (n_measured - n_expressed + 1) / (n_measured + 2))
