"""From sums to tidy tables."""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ...effects import PairTotals, Totals
from ...statistics import (
    StateNull,
    benjamini_hochberg,
    bootstrap_interval,
    matched_null,
    state_null_along,
)
from ._baseline import Baseline
from ._families import families
from ._genes import Names
from ._geometry import Geometry

FEWEST_DONORS = 3


def per_donor(
    totals: Totals, numbers: np.ndarray, geometry: Geometry, state: int | None
) -> np.ndarray:
    """Effect in every donor of the start state `(n_donors, n_sets)`: NaN where it has no cell.

    Towards a state; without one, one minus the similarity.
    """
    start = geometry.state == 0
    _, similarity, shift = totals.means()
    if state is None:
        return 1 - similarity[start][:, numbers]
    return shift[start][:, numbers] @ geometry.towards(state)


def mean_effect(per_row: np.ndarray, n: np.ndarray, *, by_cell: bool) -> np.ndarray:
    """Mean over donors or, as published, over cells; NaN where there is none."""
    found = np.isfinite(per_row)
    weight = np.where(found, n if by_cell else 1, 0)
    total = np.where(found, per_row, 0)
    with np.errstate(invalid="ignore"):
        return (weight * total).sum(axis=0) / weight.sum(axis=0)


def state_test(
    totals: Totals,
    numbers: np.ndarray,
    geometry: Geometry,
    donors: np.ndarray,
    n_permutations: int,
    seed: int,
) -> StateNull:
    """The null in which states are handed out anew over donors."""
    rows = np.flatnonzero(geometry.state < 2)
    shift = totals.means()[2][rows][:, numbers][:, :, rows]
    vectors = geometry.rows[rows]
    return state_null_along(
        np.nan_to_num(shift),
        totals.n[rows][:, numbers],
        vectors @ vectors.T,
        geometry.state[rows] == 1,
        donors=donors[geometry.donor[rows]].tolist(),
        n_permutations=n_permutations,
        seed=seed,
    )


def gene_columns(names: Names, sets: np.ndarray, species: str, baseline: Baseline) -> pd.DataFrame:
    """What is known of each set without perturbing it; the baseline only of single genes."""
    table = names.table(sets)
    table.insert(2, "species", species)
    change = baseline.log_fold_change()
    ranks = np.full(change.size, np.nan)
    expressed = np.flatnonzero(np.isfinite(change) & (baseline.detected.max(axis=0) > 0))
    ranks[expressed] = rankdata(-np.abs(change[expressed]), method="min")
    single = (sets >= 0).sum(axis=1) == 1
    one = sets[:, 0]
    for name, values in {
        "de_logfc": change,
        "de_rank": ranks,
        "detection_rate": baseline.detected[0],
        "mean_expression": baseline.mean[0],
    }.items():
        table[name] = np.where(single, values[one], np.nan)
    return table


def finish(
    table: pd.DataFrame,
    effects: np.ndarray,
    null: StateNull | None,
    for_matching: np.ndarray,
    n_donors_all: int,
    min_cells: int,
    seed: int,
) -> None:
    """Add interval, nulls and flag in place; `effects` is per donor, `for_matching` on one scale.

    Rows of too few cells have no effect, and take no part in any test.
    """
    few = (table.n_cells < min_cells).to_numpy()
    flag = np.where(few, "few_cells", "")
    if n_donors_all >= FEWEST_DONORS:
        flag = np.where(~few & (table.n_donors < FEWEST_DONORS).to_numpy(), "few_donors", flag)
    flag = np.where((table.n_cells == 0) & (table.n_unchanged > 0), "no_op", flag)
    table["effect"] = np.where(few, np.nan, table.effect)
    low, high = bootstrap_interval(effects, seed=seed)
    table["ci_low"], table["ci_high"] = np.where(few, np.nan, [low, high])
    usable = ~few & (flag != "no_op")
    missing = np.full(len(table), np.nan)
    p_state, p_family = (missing, missing) if null is None else (null.p, null.p_family)
    if table.estimated.any():  # then the largest of all statistics is not known
        p_family = missing
    table["p_state"] = np.where(usable & ~table.estimated, p_state, np.nan)
    table["p_family"] = np.where(usable, p_family, np.nan)
    # a gene that was only estimated counts as looked at, and as not significant
    looked_at = (usable & table.estimated.to_numpy()) & (null is not None)
    adjusted = benjamini_hochberg(np.where(looked_at, 1.0, table.p_state))
    table["padj_state"] = np.where(looked_at, np.nan, adjusted)
    matched = matched_null(
        np.where(usable, for_matching, np.nan),
        table.mean_rank.to_numpy(),
        table.n_cells.to_numpy(),
        table.species.tolist(),
        exclude=families(table.symbol),
    )
    table["z_matched"], table["p_matched"] = matched.z, matched.p
    table["padj_matched"] = benjamini_hochberg(matched.p)
    table["flag"] = flag.astype(str)


def pair_table(
    pairs: PairTotals, perturbed: pd.DataFrame, affected: pd.DataFrame, species: str
) -> pd.DataFrame:
    """Every perturbed set and every other gene that was read with it."""
    at, of = np.nonzero(pairs.n)
    n = pairs.n[at, of]
    mean = pairs.similarity[at, of] / n
    spread = np.sqrt(np.maximum(pairs.squared[at, of] / n - mean**2, 0))
    return pd.DataFrame(
        {
            "perturbed": perturbed.gene.to_numpy()[at],
            "perturbed_symbol": perturbed.symbol.to_numpy()[at],
            "affected": affected.gene.to_numpy()[of],
            "affected_symbol": affected.symbol.to_numpy()[of],
            "species": species,
            "n_cells": n,
            "effect": 1 - mean,
            "similarity": mean,
            "sd": spread,
        }
    )
