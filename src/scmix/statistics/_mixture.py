"""The published mixture model: perturbations with impact and without, by two Gaussians."""

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.mixture import GaussianMixture

from .._errors import InputError
from ._by_gene import checked, coded, means, table


def mixture_model(
    genes: Sequence[Hashable], shifts: ArrayLike, *, names: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Published mode `mixture_model`: genes with impact and genes without, by two Gaussians.

    Two Gaussians are fitted to the genes' mean similarity between original and perturbed cells.
    The one with the lower mean is the impact component. (The published code takes the first one,
    whichever that is; scikit-learn gives them in no particular order.) As published, a value
    below the lower mean has impact and one above the higher mean has none, whatever the Gaussians
    say; in between they decide.

    Parameters
    ----------
    genes
        Perturbed gene of each value (n_values,), at least two different ones.
    shifts
        Cosine similarity, 1 for no change (n_values,).
    names
        Columns to put behind `Gene`, indexed by gene.

    Returns
    -------
    One row per gene: `Gene`, `Test_avg_shift`, `Impact_component` (1 or 0),
    `Impact_component_percent` (of its cells, one by one), `N_Detections`. Genes with impact first,
    then from low to high similarity.

    Raises
    ------
    InputError
        If lengths differ or there are fewer than two genes.

    Examples
    --------
    >>> from scmix.statistics.published import mixture_model
    >>> table = mixture_model(["A", "A", "B", "C", "D"], [0.5, 0.52, 0.9, 0.91, 0.92])
    >>> table[["Gene", "Impact_component"]].values.tolist()
    [['A', 1], ['B', 0], ['C', 0], ['D', 0]]
    """
    labels, codes = coded(genes)
    columns = {"Test_avg_shift": means(codes, shifts)}
    columns |= _components(codes, checked(codes, shifts), columns["Test_avg_shift"])
    found = table(labels, names, columns)
    order = ["Impact_component", "Test_avg_shift"]
    return found.sort_values(order, ascending=[False, True], ignore_index=True)


def mixture_model_pairs(
    genes: Sequence[Hashable],
    anchor: ArrayLike,
    single: ArrayLike,
    both: ArrayLike,
    *,
    names: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Published mode `mixture_model` of pairs (`combos=1`): an anchor gene with each other gene.

    As :func:`mixture_model` of the mean similarity that is left when both genes are perturbed;
    beside it stands what the two would do if their effects added up, `1 - ((1 - anchor) +
    (1 - single))`. (The published code for pairs stops with an error in V2 and Mix.)

    Parameters
    ----------
    genes
        The other gene of each value (n_values,), at least two different ones.
    anchor
        Cosine similarity, 1 for no change, of the cell without the anchor gene alone (n_values,).
    single
        Of the same cell without the other gene alone (n_values,).
    both
        Of the same cell without both (n_values,).
    names
        Columns to put behind `Gene`, indexed by gene.

    Returns
    -------
    One row per gene: `Gene`, `Anchor_shift`, `Test_token_shift`, `Sum_of_indiv_shifts`,
    `Combo_shift`, `Combo_minus_sum_shift` (below zero: more than the sum of both),
    `Impact_component` (1 or 0), `Impact_component_percent` (of its cells, one by one),
    `N_Detections`. Pairs with impact first, then from low to high `Combo_minus_sum_shift`.

    Raises
    ------
    InputError
        If lengths differ or there are fewer than two genes.

    Examples
    --------
    >>> from scmix.statistics.published import mixture_model_pairs
    >>> table = mixture_model_pairs(["A", "B", "C"], [0.9] * 3, [0.8, 0.9, 0.9], [0.5, 0.8, 0.81])
    >>> table[["Gene", "Impact_component", "Combo_minus_sum_shift"]].round(2).values.tolist()
    [['A', 1, -0.2], ['B', 0, 0.0], ['C', 0, 0.01]]
    """
    labels, codes = coded(genes)
    alone = [checked(codes, values) for values in (anchor, single)]
    together = checked(codes, both)
    added = 1 - ((1 - alone[0]) + (1 - alone[1]))
    columns = {
        "Anchor_shift": means(codes, alone[0]),
        "Test_token_shift": means(codes, alone[1]),
        "Sum_of_indiv_shifts": means(codes, added),
        "Combo_shift": means(codes, together),
        "Combo_minus_sum_shift": means(codes, together - added),
    }
    columns |= _components(codes, together, columns["Combo_shift"])
    found = table(labels, names, columns)
    order = ["Impact_component", "Combo_minus_sum_shift"]
    return found.sort_values(order, ascending=[False, True], ignore_index=True)


def _components(
    codes: NDArray, values: NDArray[np.float64], of_genes: NDArray[np.float64]
) -> dict[str, NDArray]:
    """Component of each gene, by its mean; share of its cells, one by one; how many they are."""
    if len(of_genes) < 2:
        raise InputError(f"Found {len(of_genes)} gene; a mixture of two needs at least two genes.")
    mixture = GaussianMixture(n_components=2, random_state=0).fit(of_genes[:, None])
    return {
        "Impact_component": _has_impact(mixture, of_genes).astype(int),
        "Impact_component_percent": 100 * means(codes, _has_impact(mixture, values)),
        "N_Detections": np.bincount(codes),
    }


def _has_impact(mixture: GaussianMixture, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    low, high = np.sort(mixture.means_.ravel())
    nearer_low = mixture.predict(values[:, None]) == int(mixture.means_.argmin())
    return (values < low) | ((values <= high) & nearer_low)
