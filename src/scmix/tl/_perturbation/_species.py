"""Scores of the genes of one species, from all its cells and their encoders."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..._errors import InputError
from ...effects import PairTotals, Plan
from ...genes import SPECIES, Vocabulary
from .._spool import Vectors
from . import _tables
from ._analysis import Analysis, Options
from ._baseline import Baseline
from ._genes import Names
from ._measured import Measured, merged
from ._models import Fold
from ._run import chosen_genes, rank_correlation
from ._source import Source
from ._states import States, drawn

_MOST_PAIRS = 30_000_000  # 720 MB of sums


def score_species(
    options: Options,
    folds: Sequence[Fold],
    code: int,
    states: States,
    vectors: Sequence[Vectors],
    source: Source,
) -> dict[str, Any]:
    """Scores, table of genes, vectors and what was found about the run.

    Parameters
    ----------
    options
        What is asked for.
    folds
        Encoders and which of the cells each reads.
    code
        Species code.
    states
        Cells of the species.
    vectors
        Of the cells of each encoder.
    source
        Gives ranked genes and counts.
    """
    vocabulary = source.vocabulary
    sets = options.genes.tokens(vocabulary, code)
    anchor = options.genes.anchor_token(vocabulary, code)
    largest = 1 + (anchor >= 0) if sets is None else sets.shape[1]
    parts = _analyses(options, folds, code, states, vectors, source, largest)
    seen = np.concatenate([part.seen.n for part in parts])
    detected = seen.sum(axis=0)
    if sets is not None:
        _check_read(options, vocabulary, code, sets, detected)
    screened = _screened(options, parts, detected)
    chosen = detected >= options.min_cells if screened is None else screened["chosen"]
    _keep_choice(parts, chosen, sets)
    plan = Plan(options.edit, vocabulary.n_tokens, sets, chosen, anchor)
    numbers, shown = _shown(sets, detected, anchor)
    pairs = _pair_totals(options, plan, detected)
    names = Names.of(vocabulary, code)
    for part in parts:
        part.describe(numbers, names.table(shown))
    measured = merged([part.measure(plan, numbers, pairs) for part in parts])
    baseline = _baseline(source, states)
    table = _tables.gene_columns(names, shown, SPECIES[code], baseline)
    rank = np.sum([part.seen.rank for part in parts], axis=0)
    n_cells = sum(part.seen.n_cells for part in parts)
    found = _fill(table, options, measured, screened, numbers, (seen, rank, n_cells), states.names)
    made = {"scores": table, "found": found}
    if pairs is not None:
        perturbed = names.table(shown[np.searchsorted(numbers, plan.followed)])
        affected = names.table(np.flatnonzero(detected)[:, None])
        made["genes"] = _tables.pair_table(pairs, perturbed, affected, SPECIES[code])
    if options.vectors_of:
        made["vectors"] = parts[0].kept_vectors(names)
    return made


def _analyses(
    options: Options,
    folds: Sequence[Fold],
    code: int,
    states: States,
    vectors: Sequence[Vectors],
    source: Source,
    largest: int,
) -> list[Analysis]:
    """One for each encoder; cells of the goal state are perturbed where all of them can test."""

    def make(perturbed: np.ndarray) -> list[Analysis]:
        return [
            Analysis(options, fold, code, states[at], own, perturbed[at], largest, source)
            for fold, own in zip(folds, vectors, strict=True)
            if (at := fold.cells).any()
        ]

    perturbed = np.zeros(len(states.cells), bool)
    perturbed[drawn(states, 0, options.max_cells, options.seed)] = True
    parts = make(perturbed)
    for part in parts:
        if not part.perturbed.any() or (states.names and not (part.states.state == 1).any()):
            raise InputError(
                f"Found an encoder whose {SPECIES[code]} donors lack a state; expected donors of "
                "both in every fold. Make fewer folds (scmix.tl.cross_fit(..., n_folds=2))."
            )
    tests = options.test_states and options.formula.centred and len(states.names) > 1
    if not tests or options.by_gene or not all(part.has_donors() for part in parts):
        return parts
    perturbed[drawn(states, 1, options.max_cells, options.seed)] = True
    return make(perturbed)


def _shown(
    sets: np.ndarray | None, detected: np.ndarray, anchor: int
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the sets of the table, and their tokens."""
    if sets is not None:
        return np.arange(len(sets)), sets
    numbers = np.flatnonzero(detected)
    if anchor < 0:
        return numbers, numbers[:, None]
    numbers = numbers[numbers != anchor]
    return numbers, np.column_stack([np.full(len(numbers), anchor), numbers])


def _check_read(
    options: Options, vocabulary: Vocabulary, code: int, sets: np.ndarray, detected: np.ndarray
) -> None:
    if options.edit.kind == "overexpress":
        return
    absent = np.unique(sets[(sets >= 0) & (detected[sets] == 0)])
    if absent.size:
        names = Names.of(vocabulary, code).symbol[absent]
        raise InputError(
            f"Found {', '.join(names[:5])} in no {SPECIES[code]} cell that is perturbed, "
            f"among the {options.edit.n_genes:,} genes that are read of each; expected "
            "genes that are expressed there. kind='overexpress' puts in absent genes."
        )


def _screened(
    options: Options, parts: Sequence[Analysis], detected: np.ndarray
) -> dict[str, Any] | None:
    """Estimates per donor and the genes to be scored exactly; None when all of them are."""
    candidates = np.flatnonzero(detected >= options.min_cells)
    if options.screen is None or candidates.size <= options.screen + options.n_sample:
        return None
    made = [part.estimates() for part in parts]
    estimate, n = (np.concatenate(x) for x in zip(*made, strict=True))
    mean = _tables.mean_effect(estimate, n, by_cell=not options.formula.centred)
    best, sample = chosen_genes(mean, candidates, options.screen, options.n_sample, options.seed)
    chosen = np.zeros(len(detected), bool)
    chosen[best] = chosen[sample] = True
    return {"per_donor": estimate, "n": n, "mean": mean, "chosen": chosen, "sample": sample}


def _keep_choice(parts: Sequence[Analysis], chosen: np.ndarray, sets: np.ndarray | None) -> None:
    """The genes of a run that goes on are those of its start.

    Estimates may differ in the last digit the next time.
    """
    for part in parts:
        if part.store is not None and sets is None:
            if "chosen" not in part.store.notes:
                part.store.note(chosen=np.flatnonzero(chosen).tolist())
            chosen[:] = np.isin(np.arange(chosen.size), part.store.notes["chosen"])


def _pair_totals(options: Options, plan: Plan, detected: np.ndarray) -> PairTotals | None:
    if not options.by_gene:
        return None
    perturbed, affected = plan.followed, np.flatnonzero(detected)
    if len(perturbed) * len(affected) > _MOST_PAIRS:
        raise InputError(
            f"Found {len(perturbed):,} perturbed and {len(affected):,} affected genes, "
            f"more than {_MOST_PAIRS:,} pairs. Name the genes to perturb."
        )
    return PairTotals(perturbed, affected, plan.n_sets, plan.n_tokens)


def _baseline(source: Source, states: States) -> Baseline:
    return Baseline.of(
        source.counts(states.cells),
        source.column_tokens,
        states.state,
        max(len(states.names), 1),
        source.vocabulary.n_tokens,
    )


def _fill(
    table: pd.DataFrame,
    options: Options,
    measured: Measured,
    screened: dict[str, Any] | None,
    numbers: np.ndarray,
    seen: tuple[np.ndarray, np.ndarray, int],
    state_names: tuple[str, ...],
) -> dict[str, Any]:
    """Add effects, numbers of cells, tests and flags in place; what was found about the run."""
    by_cell, n, rank = not options.formula.centred, measured.n, measured.rank
    table["goal"] = state_names[1] if state_names else ""
    table["effect"] = _tables.mean_effect(measured.effects, n, by_cell=by_cell)
    for name, other in zip(state_names[2:], measured.others, strict=True):
        column = f"effect_{name.replace('/', '_')}"
        table[column] = _tables.mean_effect(other, n, by_cell=by_cell)
    swept = (n.sum(axis=0) > 0) | (measured.unchanged > 0)
    if options.genes.names is None and options.genes.anchor is None:
        n = np.where(swept, n, seen[0][:, numbers])  # genes that were not run are known
        rank = np.where(swept, rank, seen[1][numbers])
    table["n_cells"], table["n_donors"] = n.sum(axis=0), (n > 0).sum(axis=0)
    table["n_unchanged"], table["detection"] = measured.unchanged, table.n_cells / seen[2]
    with np.errstate(invalid="ignore"):
        table["mean_rank"] = rank / n.sum(axis=0)
    effects, for_matching, found = _with_estimates(table, measured, screened, numbers, swept)
    null = measured.null
    if null is not None:
        found |= {"inference": null.inference, "p_min": null.p_min, "exact": null.exact}
        found["n_possible"] = null.n_possible
    _tables.finish(
        table, effects, null, for_matching, len(effects), options.min_cells, options.seed
    )
    return found


def _with_estimates(
    table: pd.DataFrame,
    measured: Measured,
    screened: dict[str, Any] | None,
    numbers: np.ndarray,
    swept: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Fill in estimates; effects per donor, effects on one scale, how well the estimates rank."""
    table["estimated"] = False
    if screened is None:
        return measured.effects, table.effect.to_numpy(), {}
    sample = screened["sample"]
    exact = table.effect.to_numpy()[np.searchsorted(numbers, sample)]
    correlation = rank_correlation(screened["mean"][sample], exact)
    estimate = screened["mean"][numbers]
    estimated = ~swept & np.isfinite(estimate)
    table["effect"] = np.where(estimated, estimate, table.effect)
    table["estimated"] = estimated
    effects = np.where(estimated, screened["per_donor"][:, numbers], measured.effects)
    return effects, estimate, {"screen_correlation": correlation, "n_sample": len(sample)}
