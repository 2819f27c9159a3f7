"""The tests of the published Geneformer code, by name, with its column names.

They are here to compare with, not to believe. Cells count as independent, which cells of one donor
are not; a gene is set against all genes, itself included and whatever their rank; and nothing asks
whether the states differ at all. `state_null` and `matched_null` answer those questions. The rules
are those of `InSilicoPerturberStats` of Geneformer V2; where that is known to be wrong, the right
thing is done and said.

All functions take one value per perturbed gene and cell, as parallel arrays.
"""

import random
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, ranksums

from .._errors import InputError
from . import _by_gene
from ._mixture import mixture_model, mixture_model_pairs
from ._multiple import benjamini_hochberg

__all__ = [
    "aggregate",
    "aggregate_gene_shifts",
    "goal_state_rank_sum",
    "mixture_model",
    "mixture_model_pairs",
    "vs_null",
]

_ALPHA = 0.05
_LARGEST_POOL = 100_000
CELL = "cell_emb"  # the published name of the shift of the whole cell


def goal_state_rank_sum(
    genes: Sequence[Hashable],
    goal: ArrayLike,
    *,
    alternatives: Mapping[str, ArrayLike] | None = None,
    names: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Published mode `goal_state_shift`: each gene's cells against the cells of all genes.

    A two-sided Wilcoxon rank-sum test without correction for ties, against the pooled values of
    all genes, the gene's own included (100,000 of them, drawn as published, where there are more).

    Parameters
    ----------
    genes
        Perturbed gene of each value (n_values,).
    goal
        Shift towards the goal state (n_values,).
    alternatives
        Shifts towards other states by name; the name becomes the suffix of their columns, `""`
        gives the columns of V1.
    names
        Columns to put behind `Gene`, such as `Gene_name` and `Ensembl_ID`, indexed by gene.

    Returns
    -------
    One row per gene: `Gene`, `Shift_to_goal_end`, `Goal_end_vs_random_pval`, `Goal_end_FDR`,
    `N_Detections`, `Sig` (FDR below 0.05), and `Shift_to_alt_end_<name>`,
    `Alt_end_vs_random_pval_<name>`, `Alt_end_FDR_<name>`. Significant genes first, then by shift.

    Raises
    ------
    InputError
        If lengths differ or there are no values.

    Examples
    --------
    >>> from scmix.statistics.published import goal_state_rank_sum
    >>> table = goal_state_rank_sum(["A", "A", "B", "B"], [0.2, 0.4, -0.1, 0.1])
    >>> table[["Gene", "Shift_to_goal_end", "Goal_end_vs_random_pval"]].round(2).values.tolist()
    [['A', 0.3, 0.35], ['B', 0.0, 0.35]]
    """
    labels, codes = _by_gene.coded(genes)
    others = {f"_{name}" if name else "": values for name, values in (alternatives or {}).items()}
    shifts, p = {"Shift_to_goal_end": _by_gene.means(codes, goal)}, {}
    p["Goal_end_vs_random_pval"] = _rank_sum_against_all(codes, goal)
    for suffix, values in others.items():
        shifts[f"Shift_to_alt_end{suffix}"] = _by_gene.means(codes, values)
        p[f"Alt_end_vs_random_pval{suffix}"] = _rank_sum_against_all(codes, values)
    adjusted = {k.replace("vs_random_pval", "FDR"): benjamini_hochberg(v) for k, v in p.items()}
    table = _by_gene.table(labels, names, {**shifts, **p, **adjusted})
    table["N_Detections"] = np.bincount(codes)
    table["Sig"] = (table["Goal_end_FDR"] < _ALPHA).astype(int)
    order = ["Sig", "Shift_to_goal_end", "Goal_end_FDR"]
    return table.sort_values(order, ascending=[False, False, True], ignore_index=True)


def vs_null(
    genes: Sequence[Hashable],
    shifts: ArrayLike,
    null_genes: Sequence[Hashable],
    null_shifts: ArrayLike,
    *,
    names: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Published mode `vs_null`: each gene's cells against the same gene's in a null distribution.

    Parameters
    ----------
    genes, shifts
        Perturbed gene and value (n_values,).
    null_genes, null_shifts
        The same for the null distribution (n_null,).
    names
        Columns to put behind `Gene`, indexed by gene.

    Returns
    -------
    One row per gene of the test: `Gene`, `Test_avg_shift`, `Null_avg_shift`,
    `Test_vs_null_avg_shift`, `Test_vs_null_pval` (1 where it cannot be computed),
    `Test_vs_null_FDR`, `N_Detections_test`, `N_Detections_null`, `Sig`. Significant genes first,
    then by difference.

    Raises
    ------
    InputError
        If lengths differ or there are no values.

    Examples
    --------
    >>> from scmix.statistics.published import vs_null
    >>> table = vs_null(["A", "A"], [0.9, 0.7], ["A", "A"], [0.4, 0.2])
    >>> table[["Test_vs_null_avg_shift", "Test_vs_null_pval"]].round(2).values.tolist()
    [[0.5, 0.12]]
    """
    labels, codes = _by_gene.coded(genes)
    null_labels, null_codes = _by_gene.coded(null_genes)
    test = dict(zip(labels, _by_gene.groups(codes, shifts), strict=True))
    null = dict(zip(null_labels, _by_gene.groups(null_codes, null_shifts), strict=True))
    pairs = [(test[gene], null.get(gene, np.zeros(0))) for gene in labels]
    columns = {
        "Test_avg_shift": np.array([_mean(one) for one, _ in pairs]),
        "Null_avg_shift": np.array([_mean(other) for _, other in pairs]),
    }
    columns["Test_vs_null_avg_shift"] = columns["Test_avg_shift"] - columns["Null_avg_shift"]
    p = np.array([_rank_sum(one, other) for one, other in pairs])
    columns |= {"Test_vs_null_pval": p, "Test_vs_null_FDR": benjamini_hochberg(p)}
    table = _by_gene.table(labels, names, columns)
    table["N_Detections_test"] = [len(one) for one, _ in pairs]
    table["N_Detections_null"] = [len(other) for _, other in pairs]
    table["Sig"] = (table["Test_vs_null_FDR"] < _ALPHA).astype(int)
    order = ["Sig", "Test_vs_null_avg_shift", "Test_vs_null_FDR"]
    return table.sort_values(order, ascending=[False, False, True], ignore_index=True)


def aggregate(genes: Sequence[Hashable], shifts: ArrayLike, gene: Hashable) -> pd.DataFrame:
    """Published mode `aggregate_data`: the values of one gene, cell by cell.

    Parameters
    ----------
    genes, shifts
        Perturbed gene and value (n_values,).
    gene
        The gene.

    Returns
    -------
    One row per cell: `Cosine_sim`, `Gene`.

    Raises
    ------
    InputError
        If lengths differ or the gene has no values.

    Examples
    --------
    >>> from scmix.statistics.published import aggregate
    >>> aggregate(["A", "B", "A"], [0.9, 0.8, 0.7], "A")["Cosine_sim"].tolist()
    [0.9, 0.7]
    """
    labels, codes = _by_gene.coded(genes)
    if gene not in labels:
        raise InputError(f"Found no values of {gene!r} among {len(labels)} genes.")
    values = _by_gene.checked(codes, shifts)[codes == list(labels).index(gene)]
    return pd.DataFrame({"Cosine_sim": values, "Gene": [gene] * len(values)})


def aggregate_gene_shifts(
    perturbed: Sequence[Hashable],
    affected: Sequence[Hashable],
    shifts: ArrayLike,
    *,
    names: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Published mode `aggregate_gene_shifts`: the effect of each gene on each other gene.

    Parameters
    ----------
    perturbed
        Perturbed gene of each value (n_values,).
    affected
        Affected gene, or `"cell_emb"` for the whole cell (n_values,).
    shifts
        Cosine similarity, 1 for no change (n_values,).
    names
        Columns to put behind `Perturbed` and, prefixed `Affected_`, behind `Affected`, indexed by
        gene.

    Returns
    -------
    One row per pair: `Perturbed`, `Affected`, `Cosine_sim_mean`, `Cosine_sim_stdev` (of the
    cells, not of an estimate), `N_Detections`. Whole cells first, then from low to high.

    Raises
    ------
    InputError
        If lengths differ or there are no values.

    Examples
    --------
    >>> from scmix.statistics.published import aggregate_gene_shifts
    >>> aggregate_gene_shifts(["A", "A"], ["B", "cell_emb"], [0.8, 0.9])["Affected"].tolist()
    ['cell_emb', 'B']
    """
    pairs = pd.DataFrame({"Perturbed": list(perturbed), "Affected": list(affected)}, dtype=object)
    values = np.asarray(shifts, dtype=np.float64)
    if len(values) != len(pairs) or not len(values):
        raise InputError(f"Found {len(values)} values for {len(pairs)} pairs of genes.")
    grouped = pairs.assign(value=values).groupby(["Perturbed", "Affected"], sort=False)["value"]
    table = grouped.agg(
        Cosine_sim_mean="mean", Cosine_sim_stdev=lambda x: float(np.std(x)), N_Detections="size"
    ).reset_index()
    if names is not None:
        behind = names.add_prefix("Affected_").rename(columns=lambda n: n.replace("_Gene", "_gene"))
        for key, columns in (("Affected", behind), ("Perturbed", names)):
            for name in columns.columns[::-1]:
                table.insert(list(table).index(key) + 1, name, table[key].map(columns[name]))
    cells_last = table["Affected"] != CELL
    table = table.assign(_order=cells_last).sort_values(["_order", "Cosine_sim_mean"])
    return table.drop(columns="_order").reset_index(drop=True)


def _mean(values: NDArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan


def _rank_sum(one: NDArray, other: NDArray) -> float:
    one, other = one[~np.isnan(one)], other[~np.isnan(other)]
    return float(ranksums(one, other).pvalue) if len(one) and len(other) else 1.0


def _rank_sum_against_all(codes: NDArray, values: ArrayLike) -> NDArray[np.float64]:
    """`scipy.stats.ranksums` of each gene's values against all values, in one sort.

    The rank of a value among its gene's and the pooled ones is the sum of its ranks in both, so
    the rank sum is that of the gene alone, n (n + 1) / 2, plus the pooled values below each.
    """
    array = _by_gene.checked(codes, values)
    pool = np.sort(array[_drawn(len(array))])
    below = np.searchsorted(pool, array, "left") + np.searchsorted(pool, array, "right")
    n, n_pool = np.bincount(codes), len(pool)
    rank_sum = np.bincount(codes, weights=below / 2) + n * (n + 1) / 2
    expected = n * (n + n_pool + 1) / 2
    z = (rank_sum - expected) / np.sqrt(n * n_pool * (n + n_pool + 1) / 12)
    return 2 * norm.sf(np.abs(z))


def _drawn(n_values: int) -> NDArray[np.intp] | slice:
    if n_values <= _LARGEST_POOL:
        return slice(None)
    drawn = random.Random(42).sample(range(n_values), _LARGEST_POOL)  # noqa: S311 as published
    return np.array(drawn)
