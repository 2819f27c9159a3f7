"""How much an effect would vary with other donors."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, t

from .._errors import InputError
from ._permutation import FEWEST_DONORS

_CHUNK = 1_000  # genes worked on at once


def bootstrap_interval(
    per_donor_effects: ArrayLike, level: float = 0.95, *, n_resamples: int = 2000, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interval of the mean effect by resampling donors.

    The bootstrap distribution of a mean over n donors is too narrow by the square root of
    (n - 1) / n and has normal tails; its quantiles are therefore taken further out, at those of
    a t distribution (the expanded percentile interval of Hesterberg 2015, Am. Stat. 69:371). With
    three or four donors that is about the range of the donors, which still covers less than it
    should.

    Parameters
    ----------
    per_donor_effects
        Effect in each donor (n_donors, n_genes); NaN where a donor has no cell with the gene.
    level
        Nominal coverage.
    n_resamples
        Number of resamples.
    seed
        Draws them.

    Returns
    -------
    Lower and upper ends (n_genes,), NaN for genes seen in fewer than three donors.

    Raises
    ------
    InputError
        If the effects are not a matrix or `level` is not between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from scmix.statistics import bootstrap_interval
    >>> low, high = bootstrap_interval(np.array([[1.0], [2.0], [3.0], [2.0], [2.0]]))
    >>> bool(low[0] < 2 < high[0])
    True
    """
    effects = np.asarray(per_donor_effects, dtype=np.float64)
    if effects.ndim != 2 or not 0 < level < 1:
        raise InputError(
            f"Found effects with {effects.ndim} dimensions and level={level}; expected a matrix "
            "(n_donors, n_genes) and a level between 0 and 1."
        )
    rng = np.random.default_rng(seed)
    ends = np.full((2, effects.shape[1]), np.nan)
    known_first = np.sort(effects, axis=0)  # NaN goes last
    counts = (~np.isnan(effects)).sum(axis=0)
    for n_donors in np.unique(counts[counts >= FEWEST_DONORS]):
        weights = rng.multinomial(n_donors, np.full(n_donors, 1 / n_donors), n_resamples)
        genes = np.flatnonzero(counts == n_donors)
        for some in np.array_split(genes, -(-len(genes) // _CHUNK)):
            means = weights @ known_first[:n_donors, some] / n_donors
            ends[:, some] = np.quantile(means, _tails(level, n_donors), axis=0)
    return ends[0], ends[1]


def _tails(level: float, n_donors: int) -> tuple[float, float]:
    reach = np.sqrt(n_donors / (n_donors - 1)) * t.ppf((1 + level) / 2, n_donors - 1)
    return float(norm.cdf(-reach)), float(norm.cdf(reach))
