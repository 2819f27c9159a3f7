"""How well the vectors of a model in training tell cells apart that have labels: nothing is fitted.

A cell gets the label that most of its nearest neighbours have (Cover & Hart, 1967).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.metrics import f1_score

from .._errors import InputError
from ..genes import SPECIES
from ..metrics import knn_transfer
from ._held_out import batches_of, some_of, to_device
from ._recipe import Recipe
from .corpus import ORGAN, Corpus
from .model import Pretraining
from .objectives._pooling import pooled
from .stream import Stream

Labels = Mapping[str, ArrayLike] | Sequence[str] | None

_MOST_CELLS = 600  # with labels, of a data set and species
_FEWEST_CELLS = 4  # of a label, so that each half has two
_NEIGHBOURS = 5


@dataclass(frozen=True, eq=False)
class _Probe:
    """Reference and query cells, as indices into the embedded ones, with the names of labels."""

    name: str
    reference: np.ndarray
    query: np.ndarray
    labels: np.ndarray


class Probes:
    """Nearest-neighbour scores of held-out cells: within data sets, and across species.

    Within: in each data set half of the cells label the other half, and the other way round; the
    score is the macro-F1, a mean over both halves and all data sets. Across: all cells of one
    species label those of the other; labels that both have count.

    Parameters
    ----------
    corpus
        Held-out cells.
    recipe
        Says how cells are cut and pooled.
    labels
        For each kind of label one text per cell, "" for none; or names of columns that the corpus
        keeps; None: all of these but the organ.
    """

    def __init__(self, corpus: Corpus, recipe: Recipe, labels: Labels = None) -> None:
        kinds = _labels_of(corpus, labels)
        given = {name: _checked(name, values, corpus) for name, values in kinds.items()}
        self.rows = _chosen(corpus, list(given.values()))
        self.probes = [
            probe for name, values in given.items() for probe in self._make(name, values, corpus)
        ]
        self.pool = pool_of(recipe)
        self.stream = Stream(corpus, replace(recipe, species_token_dropout=0.0), ("full",))

    def _make(self, name: str, values: np.ndarray, corpus: Corpus) -> Iterator[_Probe]:
        values, species = values[self.rows], corpus.species[self.rows]
        dataset = corpus.dataset[self.rows]
        for code in np.unique(np.stack([dataset, species]), axis=1).T:
            here = np.flatnonzero((dataset == code[0]) & (species == code[1]) & (values != ""))
            for reference, query in _halves(here, values):
                yield _Probe(f"probe_{name}", reference, query, values)
        sides = [np.flatnonzero((species == code) & (values != "")) for code in (0, 1)]
        shared = np.intersect1d(values[sides[0]], values[sides[1]])
        sides = [side[np.isin(values[side], shared)] for side in sides]
        if len(shared) > 1:
            for one, two in ((0, 1), (1, 0)):
                title = f"probe_{name}_{SPECIES[one]}_to_{SPECIES[two]}"
                yield _Probe(title, sides[one], sides[two], values)

    @torch.no_grad()
    def __call__(self, model: Pretraining, device: torch.device) -> dict[str, float]:
        """Mean score of each kind of probe."""
        if not self.probes:
            return {}
        vectors = self._embed(model, device)
        scores: dict[str, list[float]] = {}
        for probe in self.probes:
            scores.setdefault(probe.name, []).append(_score(probe, vectors))
        return {name: float(np.mean(values)) for name, values in scores.items()}

    def _embed(self, model: Pretraining, device: torch.device) -> np.ndarray:
        parts = []
        for batch in batches_of(self.stream, self.rows):
            view = to_device(batch["views"]["full"], device)
            vectors = pooled(model.encoder, model.encode("full", view), view, self.pool)
            parts.append(vectors.float().cpu().numpy())
        return np.concatenate(parts)


def pool_of(recipe: Recipe) -> str:
    """How the recipe's first objective that pools does it; "mean" where none does."""
    for name in recipe.objectives:
        pool = getattr(recipe, f"{name}_pool", None)
        if pool is not None:
            return pool
    return "mean"


def _score(probe: _Probe, vectors: np.ndarray) -> float:
    truth = probe.labels[probe.query]
    found = knn_transfer(
        vectors[probe.reference],
        probe.labels[probe.reference],
        vectors[probe.query],
        k=_NEIGHBOURS,
    )
    return f1_score(truth, found, labels=np.unique(truth), average="macro", zero_division=0)


def _halves(cells: np.ndarray, values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every second cell of each label that is common enough, and the others; both ways round."""
    _, code, count = np.unique(values[cells], return_inverse=True, return_counts=True)
    if (count >= _FEWEST_CELLS).sum() < 2:
        return
    cells, code = cells[count[code] >= _FEWEST_CELLS], code[count[code] >= _FEWEST_CELLS]
    order = np.argsort(code, kind="stable")
    odd = np.zeros(len(cells), bool)
    odd[order[1::2]] = True
    yield cells[~odd], cells[odd]
    yield cells[odd], cells[~odd]


def _chosen(corpus: Corpus, labels: list[np.ndarray]) -> np.ndarray:
    """Cells with any label, of each data set and species at most so many; in rising order."""
    if not labels:
        return np.empty(0, np.int64)
    some = np.flatnonzero(np.any([values != "" for values in labels], axis=0))
    group = corpus.dataset[some].astype(np.int64) * len(SPECIES) + corpus.species[some]
    parts = [some_of(some[group == code], _MOST_CELLS) for code in np.unique(group)]
    return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))


def _checked(name: str, values: ArrayLike, corpus: Corpus) -> np.ndarray:
    found = np.asarray(values).astype(str)
    if found.shape != (len(corpus),):
        raise InputError(
            f"Found labels {name!r} of shape {found.shape}, expected one per cell of the "
            f"validation corpus, ({len(corpus):,},)."
        )
    return found


def _labels_of(corpus: Corpus, labels: Labels) -> Mapping[str, ArrayLike]:
    """Labels by kind, as text; "" where a cell has none."""
    if isinstance(labels, Mapping):
        return labels
    names = [name for name in corpus.columns if name != ORGAN] if labels is None else labels
    missing = [name for name in names if name not in corpus.columns]
    if missing:
        raise InputError(
            f"The validation corpus has no column {missing[0]!r}, only "
            f"{', '.join(corpus.columns) or 'none'}. Build it with "
            f"Source(..., keep=[{missing[0]!r}])."
        )
    table = corpus.obs()
    return {name: table[name].astype(object).fillna("").astype(str) for name in names}
