"""What the plots of perturbations draw, as tables read from `uns`; nothing is computed anew."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from .._errors import InputError, MissingKeyError

STATE_P, MATCHED_P = ("padj_state", "p_family"), "padj_matched"


def read(adata: AnnData, key: str) -> Mapping[str, Any]:
    """`uns[key]`, with its scores."""
    found = adata.uns.get(key)
    if not isinstance(found, Mapping) or "scores" not in found:
        raise MissingKeyError(
            f"Found no scores in uns[{key!r}]; expected what scmix.tl.perturb writes. Call "
            f"scmix.tl.perturb(adata, ..., key_added={key!r}) first."
        )
    return found


def effect_table(
    adata: AnnData, key: str, *, goal: str | None, alpha: float, flagged: bool
) -> pd.DataFrame:
    """Scores towards one goal from the highest effect to the lowest.

    Adds `label` (symbol, or the gene's own name) and `hit`: adjusted p below `alpha` against both
    shuffled states and matched genes. Rows without an effect are left out, and so are rows with a
    flag unless `flagged`.
    """
    scores = of_goal(read(adata, key)["scores"], goal)
    kept = scores["effect"].notna()
    if not flagged and "flag" in scores:
        kept &= scores["flag"].fillna("").astype(str) == ""
    if not kept.any():
        raise InputError(
            f"Found no effect to draw among {len(scores)} rows of uns[{key!r}]['scores']. "
            + ("All are flagged: pass flagged=True." if not flagged else "Perturb other genes.")
        )
    table = scores[kept].sort_values("effect", ascending=False, kind="stable")
    table = table.assign(label=labels(table), hit=is_hit(table, alpha))
    return table.reset_index(drop=True)


def of_goal(scores: pd.DataFrame, goal: str | None) -> pd.DataFrame:
    """Rows of one goal; it must be named when there are several."""
    if "goal" not in scores:
        return scores
    goals = list(pd.unique(scores["goal"].astype(str)))
    if goal is None and len(goals) > 1:
        raise InputError(f"Found several goals: {', '.join(goals)}. Name one with `goal`.")
    if goal is not None and goal not in goals:
        raise MissingKeyError(f"Found no goal {goal!r}; expected one of {', '.join(goals)}.")
    return scores[scores["goal"].astype(str) == (goal if goal is not None else goals[0])]


def labels(scores: pd.DataFrame) -> pd.Series:
    """Symbol of each gene, or its own name where it has none."""
    names = scores["gene"].astype(str)
    if "symbol" not in scores:
        return names
    symbols = scores["symbol"].fillna("").astype(str)
    return symbols.where(symbols != "", names)


def is_hit(scores: pd.DataFrame, alpha: float) -> pd.Series:
    """Below alpha against both nulls; never where one was not tested.

    The family-wise p counts only where every gene was computed exactly: it is the largest of the
    genes that were tested, and a screen has chosen these by what it saw.
    """
    state = pd.Series(False, index=scores.index)
    screened = "estimated" in scores and bool(scores["estimated"].fillna(False).any())
    for column in STATE_P[:1] if screened else STATE_P:
        if column in scores:
            state |= scores[column] < alpha
    if MATCHED_P not in scores:
        return state & False
    return state & (scores[MATCHED_P] < alpha)


def strongest(table: pd.DataFrame, n_genes: int) -> pd.DataFrame:
    """The rows with the largest effects either way, in the order of the table."""
    if n_genes < 1:
        raise InputError(f"Found n_genes={n_genes}; expected at least 1.")
    rows = np.sort(np.argsort(-table["effect"].abs().to_numpy(), kind="stable")[:n_genes])
    return table.iloc[rows]


def chosen(names: pd.Series, genes: Sequence[str], others: pd.Series) -> list[str]:
    """Names of the asked genes, given by name or by symbol (`others`); all must be there."""
    by_symbol = dict(zip(others, names, strict=True))
    known = set(names)
    lacking = [gene for gene in genes if gene not in known and gene not in by_symbol]
    if lacking:
        raise MissingKeyError(
            f"Found no scores of {', '.join(map(repr, lacking))}; expected genes that were "
            "perturbed."
        )
    return [gene if gene in known else by_symbol[gene] for gene in genes]
