"""One result of one or two species, and what is said about it."""

import logging
import warnings
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ...statistics import fewest_at_floor

logger = logging.getLogger("scmix")


def joined(
    made: dict[str, dict[str, Any]], described: dict[str, Any], adata: AnnData
) -> dict[str, Any]:
    """One result of one or two species."""
    found = {name: one["found"] for name, one in made.items()}
    kinds = {one["inference"] for one in found.values() if "inference" in one}
    overall = "permutation" if kinds == {"permutation"} else "descriptive"
    floors = [one["p_min"] for one in found.values() if "p_min" in one]
    params = {**described, "inference": overall, "by_species": found}
    if floors and overall == "permutation":
        params["p_min"] = max(floors)
    scores = pd.concat([one["scores"] for one in made.values()], ignore_index=True)
    scores = scores[[*_COLUMNS, *(name for name in scores if name not in _COLUMNS)]]
    order = np.argsort(-scores.effect.to_numpy(), kind="stable")  # NaN last
    result: dict[str, Any] = {"params": params, "scores": scores.iloc[order].reset_index(drop=True)}
    for key in ("genes", "vectors"):
        parts = [one[key] for one in made.values() if key in one]
        if parts:
            whole = key == "genes"
            result[key] = pd.concat(parts, ignore_index=True) if whole else parts[0]
    if "vectors" in result:
        cells = result["vectors"]["cells"]
        result["vectors"]["cells"] = adata.obs_names[cells].to_numpy(dtype=str)
    return result


_COLUMNS = [
    "gene", "symbol", "species", "orthologue", "goal", "n_cells", "n_donors", "mean_rank",
    "detection", "effect", "ci_low", "ci_high", "p_state", "padj_state", "p_family", "z_matched",
    "p_matched", "padj_matched", "de_logfc", "de_rank", "detection_rate", "mean_expression",
    "n_unchanged", "estimated", "flag",
]  # fmt: skip


def say(result: dict[str, Any]) -> None:
    """What a reader of the scores should know before looking at them."""
    scores, params = result["scores"], result["params"]
    few = int((scores.flag == "few_cells").sum())
    if few and params["genes"] != "all":
        names = ", ".join(scores.symbol[scores.flag == "few_cells"][:5])
        warnings.warn(
            f"{few} of {len(scores)} genes or sets ({names}) are in fewer than "
            f"{params['min_cells']} of the cells that are perturbed; their effects are NaN. "
            "min_cells sets the number.",
            stacklevel=4,
        )
    for name, found in params["by_species"].items():
        if found.get("inference") == "permutation":
            _say_reach(name, scores[scores.species == name], found, params["n_permutations"])
        elif "inference" in found:
            logger.info(
                "%s: fewer than three donors in a state, or only one state perturbed: effects are "
                "descriptive, without p-values over donors.",
                name,
            )
        if "screen_correlation" in found:
            logger.info(
                "%s: rank correlation of estimated and exact effects over %d random genes: %.2f.",
                name,
                found["n_sample"],
                found["screen_correlation"],
            )


def _say_reach(
    species: str, scores: pd.DataFrame, found: dict[str, Any], n_permutations: int
) -> None:
    """Whether any gene can pass; estimated genes are adjusted for, and have no p-value."""
    drawn = found["p_min"] > 1 / found["n_possible"]
    logger.info(
        "%s: the smallest p-value that %s can give is %.2g; %s",
        species,
        f"{n_permutations} permutations" if drawn else "these donors",
        found["p_min"],
        _reach(
            found["p_min"],
            int(scores.p_state.notna().sum()),
            int((scores.estimated & scores.effect.notna()).sum()),
            "More permutations (n_permutations)" if drawn else "More donors",
        ),
    )


def _reach(p_min: float, n_tested: int, n_estimated: int, more: str) -> str:
    if not n_tested:
        return "but no gene has one: each is in too few cells or donors. Name other genes."
    n = n_tested + n_estimated
    counted = f"{n} genes"
    if n_estimated:
        counted += f" ({n_tested} with a p-value, the others only estimated)"
    needed = fewest_at_floor(p_min, n)
    if needed is None:
        return f"too large for any gene to pass BH at 0.05. {more} would lower it."
    if needed <= n_tested:
        return f"{needed} of {counted} must reach it for any to pass BH at 0.05."
    return (
        f"no gene can pass BH at 0.05: {needed} of {counted} would have to reach it. {more}, fewer "
        "genes, named beforehand (genes), or more of them computed exactly (screen) would help."
    )
