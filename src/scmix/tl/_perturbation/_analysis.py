"""What one encoder makes of the cells of one species."""

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
import torch

from ... import inference
from ...batches import positions
from ...checkpoints import Model
from ...effects import Engine, Formula, PairTotals, Plan, Screen, Totals
from ...encoder import Encoder
from ...genes import SPECIES
from ...perturbations import Edit, truncate
from .._spool import Vectors
from . import _tables
from ._genes import GeneSets, Names, tokens_of
from ._geometry import Geometry
from ._measured import Measured
from ._models import Fold
from ._run import Cells, estimates, open_store, sweep
from ._source import Source
from ._states import States

_MOST_DRAWN = 200  # cells whose vectors are kept for pictures


@dataclass(frozen=True, eq=False)
class Options:
    """What is asked for, the same for both species and all encoders."""

    genes: GeneSets
    edit: Edit
    formula: Formula
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
class Seen:
    """In how many cells of each start donor a token is read, the sum of its ranks; all cells."""

    n: np.ndarray
    rank: np.ndarray
    n_cells: int


@dataclass(frozen=True, eq=False)
class Analysis:
    """The cells of one species that one encoder reads, and what is asked of them.

    Parameters
    ----------
    options
        What is asked for.
    fold
        The encoder.
    code
        Species code.
    states
        Cells that it reads.
    vectors
        Pooled vector of each.
    perturbed
        Which of them are perturbed, bool.
    largest
        Most genes in a set.
    source
        Gives ranked genes.
    """

    options: Options
    fold: Fold
    code: int
    states: States
    vectors: Vectors
    perturbed: np.ndarray
    largest: int
    source: Source

    @property
    def model(self) -> Model:
        """The encoder and its vocabulary."""
        return self.fold.reader.model

    @cached_property
    def geometry(self) -> Geometry:
        """Where donors and states lie."""
        return Geometry.of(self.options.formula, self.vectors, self.states)

    @cached_property
    def cells(self) -> Cells:
        """Cells that are perturbed."""
        edit, index = self.options.edit, np.flatnonzero(self.perturbed)
        index = index[np.argsort(self.states.state[index], kind="stable")]
        lets_in = edit.kind == "delete" and edit.readmit
        sequences = self.source.sequences(
            self.states.cells[index], edit.n_genes + self.largest * lets_in
        )
        row = self.states.rows()[2][index]
        species = np.full(len(index), self.code, np.int8)
        return Cells(self.states.cells[index], sequences, species, row)

    @cached_property
    def seen(self) -> Seen:
        """What is read of the start state."""
        start = self._start()
        of_start = self.geometry.state == 0
        read = truncate(self.cells.sequences[start], self.options.edit.n_genes)
        at = np.repeat(self.cells.row[start], read.lengths), read.tokens
        n, rank = self._table(np.int64), self._table(np.float64)
        np.add.at(n, at, 1)
        np.add.at(rank, at, 1 + positions(read.indptr))
        return Seen(n[of_start], rank[of_start].sum(axis=0), len(start))

    def estimates(self) -> tuple[np.ndarray, np.ndarray]:
        """First-order estimates of deleting every gene: mean and cells by start donor and token."""
        asked, reader, geometry = self.options, self.fold.reader, self.geometry
        device = self._encoder.bert.embeddings.word_embeddings.weight.device
        screen = Screen(
            # bfloat16 is half the work but ranks worse: 0.95 against 0.99, four cells of scmix-mini
            inference.prepare(self.model.encoder, device, torch.float32),
            self.model.vocabulary,
            asked.edit.n_genes,
            geometry.measure.centre,
            geometry.towards(1) @ geometry.measure.probes,
            reader.hidden_layer,
            reader.pool,
            asked.formula.leave_out,
            reader.batch_tokens,
        )
        part = self.cells[self._start()]
        n_tokens = self.model.vocabulary.n_tokens
        mean, n = estimates(screen, part, asked.edit.n_genes, len(geometry.state), n_tokens)
        return mean[geometry.state == 0], n[geometry.state == 0]

    def measure(self, plan: Plan, numbers: np.ndarray, pairs: PairTotals | None) -> Measured:
        """Run every edit of every cell, and test."""
        geometry, asked = self.geometry, self.options
        totals = Totals(len(geometry.state), plan.n_sets, len(geometry.measure.probes))
        by_token = asked.formula.by_token and not self.states.names
        sweep(
            self._engine(plan, by_token or asked.by_gene),
            self.cells,
            geometry.measure,
            totals,
            by_token=by_token,
            pairs=pairs,
            store=self.store,
        )
        return Measured.of(totals, numbers, geometry, self.states, asked.n_permutations, asked.seed)

    @cached_property
    def store(self) -> Any:
        """Where effects are kept, or None."""
        name = SPECIES[self.code]
        if self.fold.number:
            name = f"{name}-{self.fold.number}"
        return open_store(
            self.options.store,
            name,
            len(self.geometry.measure.probes),
            **self.options.described,
            cells=self.cells.digest(),
        )

    def describe(self, numbers: np.ndarray, table: pd.DataFrame) -> None:
        """Say in the store what its numbers mean."""
        if self.store is None:
            return
        row, geometry, names = self.cells.row, self.geometry, self.states.names
        of_state = np.array(names or ("all",), dtype=str)[geometry.state[row]]
        towards = {name: geometry.towards(i).tolist() for i, name in enumerate(names) if i}
        about = {
            "species": SPECIES[self.code],
            "number": numbers.tolist(),
            "gene": table.gene.tolist(),
            "symbol": table.symbol.tolist(),
            "cell": self.source.adata.obs_names[self.cells.index].astype(str).tolist(),
            "donor": self.states.donors[geometry.donor[row]].astype(str).tolist(),
            "state": of_state.tolist(),
            "towards": towards,
            "n_probes": len(geometry.measure.probes),
        }
        self.store.describe(about)

    def kept_vectors(self, names: Names) -> dict[str, Any]:
        """Cells before and after the edit of some genes, for pictures."""
        asked, geometry, vocabulary = self.options, self.geometry, self.model.vocabulary
        tokens = tokens_of(asked.vectors_of, vocabulary, self.code)
        part = self.cells[self._start()[:_MOST_DRAWN]]
        plan = Plan(asked.edit, vocabulary.n_tokens, tokens[:, None])
        before = self.vectors.few(np.searchsorted(self.states.cells, part.index))
        after = np.full((len(tokens), *before.shape), np.nan, np.float32)
        for found in self._engine(plan, False).run(part.sequences, part.species):
            at = found.changed
            after[found.number[at], found.cell[at]] = found.perturbed[at]
        return {
            "cells": part.index,
            "genes": names.ensembl_id[tokens].astype(str),
            "symbols": names.symbol[tokens].astype(str),
            "original": before,
            "perturbed": after,
            "states": geometry.states.astype(np.float32),
            "state_names": np.array(self.states.names or ("all",), dtype=str),
        }

    def has_donors(self) -> bool:
        """Whether both states have enough donors to hand the states out anew over them."""
        n_rows = np.bincount(self.geometry.state, minlength=2)
        return bool(n_rows[:2].min() >= _tables.FEWEST_DONORS)

    def _start(self) -> np.ndarray:
        return np.flatnonzero(self.geometry.state[self.cells.row] == 0)

    def _table(self, dtype: Any) -> np.ndarray:
        return np.zeros((len(self.geometry.state), self.model.vocabulary.n_tokens), dtype)

    @cached_property
    def _encoder(self) -> Encoder:
        reader = self.fold.reader
        chosen = inference.choose(reader.device_name, reader.dtype)
        return inference.prepare(self.model.encoder, *chosen)

    def _engine(self, plan: Plan, by_token: bool) -> Engine:
        formula, reader = self.options.formula, self.fold.reader
        return Engine(
            self._encoder,
            self.model.vocabulary,
            plan,
            reader.hidden_layer,
            reader.pool,
            formula.leave_out,
            formula.same_genes,
            by_token,
            self.geometry.measure.centre if formula.centred else None,
            reader.batch_tokens,
        )
