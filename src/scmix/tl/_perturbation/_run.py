"""The sweep over cells: screening, exact effects, sums."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from tqdm.auto import tqdm

from ...batches import Sequences
from ...effects import Engine, Measure, PairTotals, Screen, Totals
from ...effects._store import Store, record
from ...perturbations import truncate
from ...settings import settings

_CELLS_AT_ONCE = 8  # a step of the store


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells that are perturbed.

    Parameters
    ----------
    index
        Rows of the AnnData.
    sequences
        Genes by rank; some more than are read, where deletion lets genes back in.
    species
        Species code of each cell.
    row
        Donor and state of each, a row of the geometry.
    """

    index: np.ndarray
    sequences: Sequences
    species: np.ndarray
    row: np.ndarray

    def __getitem__(self, which: np.ndarray) -> "Cells":
        return Cells(self.index[which], self.sequences[which], self.species[which], self.row[which])

    def __len__(self) -> int:
        return len(self.sequences)

    def digest(self) -> str:
        """Hash of the cells."""
        parts = (self.index, self.sequences.tokens, self.sequences.indptr, self.species, self.row)
        joined = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
        return hashlib.sha256(joined).hexdigest()


def open_store(
    folder: "str | PathLike | None", name: str, n_probes: int, **depends: Any
) -> Store | None:
    """The store of a run, or None."""
    if folder is None:
        return None
    key = hashlib.sha256(json.dumps(depends, sort_keys=True, default=str).encode()).hexdigest()
    return Store(folder, name, key, record(n_probes))


def estimates(
    screen: Screen, cells: Cells, n_genes: int, n_rows: int, n_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """First-order estimates of every gene: mean and number of cells by row and token."""
    read = truncate(cells.sequences, n_genes)
    sums, n = np.zeros((n_rows, n_tokens)), np.zeros((n_rows, n_tokens), np.int64)
    with tqdm(total=len(cells), unit="cell", desc="screen", **_bar()) as bar:
        for which, values in screen.run(cells.sequences, cells.species):
            part = read[which]
            at = np.repeat(cells.row[which], part.lengths), part.tokens
            np.add.at(sums, at, values)
            np.add.at(n, at, 1)
            bar.update(len(which))
    with np.errstate(invalid="ignore"):
        return sums / n, n


def chosen_genes(
    estimate: np.ndarray, candidates: np.ndarray, n_best: int, n_sample: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The genes with the largest estimates either way, and a random sample of the others."""
    order = candidates[np.argsort(-np.abs(estimate[candidates]), kind="stable")]
    best, rest = order[:n_best], np.sort(order[n_best:])
    rng = np.random.default_rng(seed)
    return best, np.sort(rng.choice(rest, min(n_sample, rest.size), replace=False))


def rank_correlation(estimate: np.ndarray, exact: np.ndarray) -> float:
    """Spearman's, over the genes that have both; NaN for fewer than three."""
    both = np.isfinite(estimate) & np.isfinite(exact)
    return float(spearmanr(estimate[both], exact[both])[0]) if both.sum() > 2 else float("nan")


def sweep(
    engine: Engine,
    cells: Cells,
    measure: Measure,
    totals: Totals,
    *,
    by_token: bool,
    pairs: PairTotals | None = None,
    store: Store | None = None,
) -> None:
    """Run all edits of all cells and add them up."""
    sums = None if store is None or pairs is None else store.sums()
    if store is not None and sums is not None and pairs is not None:
        store.forget(sums.restore(pairs))
    with tqdm(total=len(cells), unit="cell", desc="perturb", **_bar()) as bar:
        for step, which in enumerate(_steps(len(cells))):
            if store is not None and step < store.n_steps:
                rows = store.read(step)
            else:
                rows = _measured(engine, cells, which, measure, by_token, pairs)
                if store is not None:
                    store.append(rows)
                if sums is not None and pairs is not None:
                    sums.save(pairs, step + 1, at_once=which[-1] == len(cells) - 1)
            totals.add(
                cells.row[rows["cell"]],
                rows["number"],
                rows["changed"],
                rows["rank"],
                rows["similarity"],
                rows["shift"],
            )
            bar.update(len(which))


def _measured(
    engine: Engine,
    cells: Cells,
    which: np.ndarray,
    measure: Measure,
    by_token: bool,
    pairs: PairTotals | None,
) -> np.ndarray:
    parts = []
    for found in engine.run(cells.sequences[which], cells.species[which]):
        rows = np.zeros(len(found.cell), record(len(measure.probes)))
        rows["cell"], rows["number"] = which[found.cell], found.number
        rows["changed"], rows["rank"] = found.changed, found.rank
        rows["similarity"] = 1.0
        at = found.changed
        alike, rows["shift"][at] = measure(found.original[at], found.perturbed[at])
        rows["similarity"][at] = found.similarity[at] if by_token else alike
        if pairs is not None:
            pairs.add(found.number[found.pair], found.affected, found.cosine)
        parts.append(rows)
    return np.concatenate(parts) if parts else np.zeros(0, record(len(measure.probes)))


def _steps(n_cells: int) -> Iterator[np.ndarray]:
    for first in range(0, n_cells, _CELLS_AT_ONCE):
        yield np.arange(first, min(first + _CELLS_AT_ONCE, n_cells))


def _bar() -> dict[str, Any]:
    return {"disable": not settings.progress, "leave": False}
