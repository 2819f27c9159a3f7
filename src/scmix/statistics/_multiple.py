"""Many tests at once: false discovery rate, and what a floor under the p-values lets through."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

from .._errors import InputError


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """Adjust p-values for the false discovery rate (Benjamini & Hochberg, 1995).

    Parameters
    ----------
    p
        P-values (n_tests,). NaN was not tested: it stays NaN and is not counted.

    Returns
    -------
    Adjusted p-values (n_tests,).

    Raises
    ------
    InputError
        If a p-value lies outside 0 to 1.

    Examples
    --------
    >>> from scmix.statistics import benjamini_hochberg
    >>> benjamini_hochberg([0.01, float("nan"), 0.03, 0.5]).round(3).tolist()
    [0.03, nan, 0.045, 0.5]
    """
    values = np.asarray(p, dtype=np.float64)
    tested = ~np.isnan(values)
    if ((values[tested] < 0) | (values[tested] > 1)).any():
        raise InputError(
            f"Found p-values between {np.nanmin(values)} and {np.nanmax(values)}; expected 0 to 1."
        )
    adjusted = np.full(values.shape, np.nan)
    if tested.any():
        adjusted[tested] = false_discovery_control(values[tested])
    return adjusted


def fewest_at_floor(p_min: float, n_tests: int, alpha: float = 0.05) -> int | None:
    """How many tests must reach the smallest possible p-value for any to be called.

    A permutation test over few donors cannot give p-values below a floor. Benjamini-Hochberg
    rejects k tests at the floor only if ``p_min <= alpha * k / n_tests``.

    Parameters
    ----------
    p_min
        Smallest p-value that the design can reach.
    n_tests
        Number of tests adjusted together.
    alpha
        False discovery rate.

    Returns
    -------
    The smallest such k, or None if not even all tests at the floor would be called.

    Examples
    --------
    Three donors against three: 20 ways to hand out the states, so nothing is ever called.

    >>> from scmix.statistics import fewest_at_floor
    >>> fewest_at_floor(1 / 20, 600), fewest_at_floor(1 / 70, 600), fewest_at_floor(1 / 19, 600)
    (600, 172, None)
    """
    k = max(1, math.ceil(p_min * n_tests / alpha * (1 - 1e-12)))
    return k if k <= n_tests else None
