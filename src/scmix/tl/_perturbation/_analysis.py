"""Everything that is done with the cells of one species."""

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
import torch

from ... import inference
from ..._errors import InputError
from ...batches import positions
from ...effects import Engine, Formula, PairTotals, Plan, Screen, Totals
from ...genes import SPECIES
from ...perturbations import Edit, truncate
from . import _tables
from ._baseline import Baseline
from ._genes import GeneSets, Names, tokens_of
from ._geometry import Geometry
from ._run import Cells, chosen_genes, estimates, open_store, rank_correlation, sweep
from ._source import Source
from ._states import States, drawn

_MOST_PAIRS = 30_000_000  # 720 MB of sums
_MOST_DRAWN = 200  # cells whose vectors are kept for pictures


@dataclass(frozen=True, eq=False)
class Options:
    """What is asked for, the same for both species."""

    model: Any
    encoder: Any
    genes: GeneSets
    edit: Edit
    formula: Formula
    layer: int
    pool: str
    batch_tokens: int | None
    by_gene: bool
    screen: int | None
    n_sample: int
    test_states: bool
    max_cells: int | None
    min_cells: int
    vectors_of: tuple[str, ...]
    n_permutations: int
    seed: int
    store: "str | PathLike | None"
    described: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Analysis:
    """The cells of one species, and what is asked of them.

    Parameters
    ----------
    options
        What is asked for.
    code
        Species code.
    states
        Cells that take part.
    vectors
        Pooled vector of each, `(n_cells, H)`.
    source
        Gives ranked genes and counts.
    """

    options: Options
    code: int
    states: States
    vectors: np.ndarray
    source: Source

    def run(self) -> dict[str, Any]:
        """Scores, table of genes, vectors and what was found about the run."""
        asked, model = self.options, self.options.model
        geometry = Geometry.of(asked.formula, self.vectors, self.states)
        sets = asked.genes.tokens(model.vocabulary, self.code)
        anchor = asked.genes.anchor_token(model.vocabulary, self.code)
        largest = 1 + (anchor >= 0) if sets is None else sets.shape[1]
        cells = self._perturbed_cells(geometry, largest)
        seen = self._seen(cells, geometry)
        detected = seen.n.sum(axis=0)
        if sets is not None:
            self._check_read(sets, detected)
        screened = self._screened(cells, geometry, detected, anchor)
        chosen = detected >= asked.min_cells if screened is None else screened["chosen"]
        plan = Plan(asked.edit, model.vocabulary.n_tokens, sets, chosen, anchor)
        totals, pairs = self._sweep(plan, cells, geometry, detected)
        numbers = np.arange(plan.n_sets) if sets is not None else np.flatnonzero(detected)
        shown = numbers[:, None] if sets is None else sets
        if anchor >= 0:
            shown = np.column_stack([np.full(len(numbers), anchor), numbers])
            shown, numbers = shown[numbers != anchor], numbers[numbers != anchor]
        names = Names.of(model.vocabulary, self.code)
        scores, found = self._scores(totals, numbers, shown, geometry, names, screened, seen)
        made = {"scores": scores, "found": found}
        if pairs is not None:
            perturbed = names.table(shown[np.searchsorted(numbers, plan.followed)])
            affected = names.table(np.flatnonzero(detected)[:, None])
            made["genes"] = _tables.pair_table(pairs, perturbed, affected, SPECIES[self.code])
        if asked.vectors_of:
            made["vectors"] = self._kept_vectors(geometry, cells, names)
        return made

    def _perturbed_cells(self, geometry: Geometry, largest: int) -> Cells:
        """Cells of the start state and, for the test, of the goal state."""
        asked = self.options
        start = drawn(self.states, 0, asked.max_cells, asked.seed)
        n_rows = np.bincount(geometry.state, minlength=2)
        tests = asked.test_states and asked.formula.centred and len(self.states.names) > 1
        index = start
        if tests and n_rows[:2].min() >= _tables.FEWEST_DONORS and not asked.by_gene:
            goal = drawn(self.states, 1, asked.max_cells, asked.seed)
            index = np.concatenate([start, goal])
        readmits = asked.edit.kind == "delete" and asked.edit.readmit
        sequences = self.source.sequences(
            self.states.cells[index], asked.edit.n_genes + largest * readmits
        )
        row = self.states.rows()[2][index]
        species = np.full(len(index), self.code, np.int8)
        return Cells(self.states.cells[index], sequences, species, row)

    def _seen(self, cells: Cells, geometry: Geometry) -> "_Seen":
        start = np.flatnonzero(geometry.state[cells.row] == 0)
        read = truncate(cells.sequences[start], self.options.edit.n_genes)
        shape = len(geometry.state), self.options.model.vocabulary.n_tokens
        at = np.repeat(cells.row[start], read.lengths), read.tokens
        n, rank = np.zeros(shape, np.int64), np.zeros(shape)
        np.add.at(n, at, 1)
        np.add.at(rank, at, 1 + positions(read.indptr))
        return _Seen(n[geometry.state == 0], rank[geometry.state == 0].sum(axis=0), len(start))

    def _check_read(self, sets: np.ndarray, detected: np.ndarray) -> None:
        if self.options.edit.kind == "overexpress":
            return
        absent = np.unique(sets[(sets >= 0) & (detected[sets] == 0)])
        if absent.size:
            names = Names.of(self.options.model.vocabulary, self.code).symbol[absent]
            raise InputError(
                f"Found {', '.join(names[:5])} in no {SPECIES[self.code]} cell that is perturbed, "
                f"among the {self.options.edit.n_genes:,} genes that are read of each; expected "
                "genes that are expressed there. kind='overexpress' puts in absent genes."
            )

    def _screened(
        self, cells: Cells, geometry: Geometry, detected: np.ndarray, anchor: int
    ) -> dict[str, Any] | None:
        """Estimates per donor and the genes to be scored exactly; None when all of them are."""
        asked = self.options
        candidates = np.flatnonzero(detected >= asked.min_cells)
        if asked.screen is None or candidates.size <= asked.screen + asked.n_sample:
            return None
        if asked.genes.names is not None or anchor >= 0 or asked.by_gene:
            return None
        if asked.edit.kind != "delete" or not self.states.names:
            return None  # moves have no useful first order, and the size of a shift has none
        device = asked.encoder.bert.embeddings.word_embeddings.weight.device
        screen = Screen(
            # bfloat16 is half the work but ranks worse: 0.95 against 0.99, four cells of scmix-mini
            inference.prepare(asked.model.encoder, device, torch.float32),
            asked.model.vocabulary,
            asked.edit.n_genes,
            geometry.measure.centre,
            geometry.towards(1) @ geometry.measure.probes,
            asked.layer,
            asked.pool,
            asked.formula.leave_out,
            asked.batch_tokens,
        )
        start = np.flatnonzero(geometry.state[cells.row] == 0)
        part = cells[start]
        estimate, n = estimates(
            screen, part, asked.edit.n_genes, len(geometry.state), len(detected)
        )
        estimate, n = estimate[geometry.state == 0], n[geometry.state == 0]
        mean = _tables.mean_effect(estimate, n, by_cell=not asked.formula.centred)
        best, sample = chosen_genes(mean, candidates, asked.screen, asked.n_sample, asked.seed)
        chosen = np.zeros(len(detected), bool)
        chosen[best] = chosen[sample] = True
        return {"per_donor": estimate, "n": n, "mean": mean, "chosen": chosen, "sample": sample}

    def _sweep(
        self, plan: Plan, cells: Cells, geometry: Geometry, detected: np.ndarray
    ) -> tuple[Totals, PairTotals | None]:
        asked = self.options
        totals = Totals(len(geometry.state), plan.n_sets, len(geometry.measure.probes))
        pairs = None
        if asked.by_gene:
            perturbed, affected = plan.followed, np.flatnonzero(detected)
            if len(perturbed) * len(affected) > _MOST_PAIRS:
                raise InputError(
                    f"Found {len(perturbed):,} perturbed and {len(affected):,} affected genes, "
                    f"more than {_MOST_PAIRS:,} pairs. Name the genes to perturb."
                )
            pairs = PairTotals(perturbed, affected, plan.n_sets, plan.n_tokens)
        by_token = asked.formula.by_token and not self.states.names
        store = open_store(
            asked.store,
            SPECIES[self.code],
            len(geometry.measure.probes),
            **asked.described,
            cells=cells.digest(),
        )
        if store is not None and plan.chosen is not None:
            if "chosen" not in store.notes:  # estimates may differ in the last digit next time
                store.note(chosen=plan.followed.tolist())
            plan.chosen[:] = np.isin(np.arange(plan.n_tokens), store.notes["chosen"])
        sweep(
            self._engine(plan, by_token or asked.by_gene, geometry),
            cells,
            geometry.measure,
            totals,
            by_token=by_token,
            pairs=pairs,
            store=store,
        )
        return totals, pairs

    def _engine(self, plan: Plan, by_token: bool, geometry: Geometry) -> Engine:
        asked = self.options
        return Engine(
            asked.encoder,
            asked.model.vocabulary,
            plan,
            asked.layer,
            asked.pool,
            asked.formula.leave_out,
            asked.formula.same_genes,
            by_token,
            geometry.measure.centre if asked.formula.centred else None,
            asked.batch_tokens,
        )

    def _scores(
        self,
        totals: Totals,
        numbers: np.ndarray,
        shown: np.ndarray,
        geometry: Geometry,
        names: Names,
        screened: dict[str, Any] | None,
        seen: "_Seen",
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        asked, start = self.options, geometry.state == 0
        by_cell, goal = not asked.formula.centred, 1 if self.states.names else None
        effects = _tables.per_donor(totals, numbers, geometry, goal)
        n, rank = totals.n[start][:, numbers], totals.rank[start][:, numbers].sum(axis=0)
        unchanged = totals.n_unchanged[start][:, numbers].sum(axis=0)
        table = _tables.gene_columns(names, shown, SPECIES[self.code], self._baseline())
        table["goal"] = self.states.names[1] if self.states.names else ""
        table["effect"] = _tables.mean_effect(effects, n, by_cell=by_cell)
        for state in range(2, len(self.states.names)):
            other = _tables.per_donor(totals, numbers, geometry, state)
            name = f"effect_{self.states.names[state].replace('/', '_')}"
            table[name] = _tables.mean_effect(other, n, by_cell=by_cell)
        swept = (n.sum(axis=0) > 0) | (unchanged > 0)
        if shown.shape[1] == 1 and asked.genes.names is None:  # genes that were not run are known
            n = np.where(swept, n, seen.n[:, numbers])
            rank = np.where(swept, rank, seen.rank[numbers])
        table["n_cells"], table["n_donors"] = n.sum(axis=0), (n > 0).sum(axis=0)
        table["n_unchanged"], table["detection"] = unchanged, table.n_cells / seen.n_cells
        with np.errstate(invalid="ignore"):
            table["mean_rank"] = rank / n.sum(axis=0)
        table["estimated"] = False
        for_matching, found = table.effect.to_numpy(), {}
        if screened is not None:
            found = _judged(table, numbers, screened)
            estimated = ~swept & np.isfinite(screened["mean"][numbers])
            effects = np.where(estimated, screened["per_donor"][:, numbers], effects)
            for_matching = screened["mean"][numbers]
            table["effect"] = np.where(estimated, for_matching, table.effect)
            table["estimated"] = estimated
        null = None
        if goal is not None and asked.formula.centred:
            null = _tables.state_test(
                totals, numbers, geometry, self.states.donors, asked.n_permutations, asked.seed
            )
            found |= {"inference": null.inference, "p_min": null.p_min, "exact": null.exact}
            found["n_possible"] = null.n_possible
        n_donors = int(start.sum())
        _tables.finish(table, effects, null, for_matching, n_donors, asked.min_cells, asked.seed)
        return table, found

    def _baseline(self) -> Baseline:
        return Baseline.of(
            self.source.counts(self.states.cells),
            self.source.column_tokens,
            self.states.state,
            max(len(self.states.names), 1),
            self.options.model.vocabulary.n_tokens,
        )

    def _kept_vectors(self, geometry: Geometry, cells: Cells, names: Names) -> dict[str, Any]:
        """Cells before and after the edit of some genes, for pictures."""
        asked = self.options
        tokens = tokens_of(asked.vectors_of, asked.model.vocabulary, self.code)
        start = np.flatnonzero(geometry.state[cells.row] == 0)[:_MOST_DRAWN]
        plan = Plan(asked.edit, asked.model.vocabulary.n_tokens, tokens[:, None])
        before = self.vectors[np.searchsorted(self.states.cells, cells.index[start])]
        after = np.full((len(tokens), *before.shape), np.nan, np.float32)
        part = cells[start]
        for found in self._engine(plan, False, geometry).run(part.sequences, part.species):
            at = found.changed
            after[found.number[at], found.cell[at]] = found.perturbed[at]
        return {
            "cells": part.index,
            "genes": names.ensembl_id[tokens].astype(str),
            "symbols": names.symbol[tokens].astype(str),
            "original": before.astype(np.float32),
            "perturbed": after,
            "states": geometry.states.astype(np.float32),
            "state_names": np.array(self.states.names or ("all",), dtype=str),
        }


@dataclass(frozen=True, eq=False)
class _Seen:
    """In how many cells of each start donor a token is read, the sum of its ranks; all cells."""

    n: np.ndarray
    rank: np.ndarray
    n_cells: int


def _judged(table: pd.DataFrame, numbers: np.ndarray, screened: dict[str, Any]) -> dict[str, Any]:
    """Rank correlation of estimate and exact effect over the random sample."""
    sample = screened["sample"]
    exact = table.effect.to_numpy()[np.searchsorted(numbers, sample)]
    correlation = rank_correlation(screened["mean"][sample], exact)
    return {"screen_correlation": correlation, "n_sample": len(sample)}
