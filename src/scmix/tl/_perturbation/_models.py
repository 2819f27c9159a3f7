"""Which encoder reads which cells: one for all, or for each donor one that has not seen it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from ... import checkpoints
from ..._errors import InputError
from ...classifiers import CellClassifier
from ...classifiers._seen import COMPARED
from ...effects._engine import POOLS
from ...genes import Vocabulary
from .._reading import Reader
from ._source import Source
from ._states import States

Given = Any  # a name, a folder, a Model, a CellClassifier, or a sequence of classifiers


@dataclass(frozen=True, eq=False)
class Fold:
    """An encoder and the cells that it reads.

    Parameters
    ----------
    number
        Place among the encoders.
    reader
        The encoder, and how it reads.
    cells
        Which of the cells that take part it reads, bool.
    """

    number: int
    reader: Reader
    cells: np.ndarray


@dataclass(frozen=True, eq=False)
class Models:
    """What was given as `model=`.

    Parameters
    ----------
    models
        Encoders.
    classifiers
        The classifiers that they are of; empty for an encoder without.
    """

    models: tuple[checkpoints.Model, ...]
    classifiers: tuple[CellClassifier, ...]

    @classmethod
    def of(cls, given: Given) -> "Models":
        """Load it; several must be classifiers that read genes alike."""
        if isinstance(given, CellClassifier):
            return cls((given.model,), (given,))
        if isinstance(given, str | PathLike | checkpoints.Model):
            return cls((checkpoints.load(given),), ())
        many = tuple(given) if isinstance(given, Sequence) else ()
        if not many or not all(isinstance(one, CellClassifier) for one in many):
            raise InputError(
                "Found in model= neither a model nor a list of classifiers; expected a name, a "
                "folder, a loaded model, a classifier, or the list that scmix.tl.cross_fit returns."
            )
        alike = {(one.model.vocabulary.sha256, one.model.config) for one in many}
        if len(alike) > 1:
            raise InputError(
                "Found classifiers whose vocabularies or sizes differ; expected those of one call "
                "of scmix.tl.cross_fit."
            )
        return cls(tuple(one.model for one in many), many)

    @property
    def vocabulary(self) -> Vocabulary:
        """What genes are matched to."""
        return self.models[0].vocabulary

    def params(
        self, readers: Sequence[Reader], folds: Sequence[Fold], states: States, **options: Any
    ) -> dict[str, Any]:
        """What `params` says about the encoders and the run."""
        made = readers[0].params(**options)
        if len(self.models) == 1:
            return made
        shas = [model.sha256 for model in self.models]
        number = np.zeros(len(states.cells), np.int64)
        for fold in folds:
            number[fold.cells] = fold.number
        donors, first = np.unique(states.donor, return_index=True)
        return made | {
            "model_sha256": shas,
            "cross_fit": {
                "donor": states.donors[donors].astype(str),
                "model_sha256": np.array(shas)[number[first]],
            },
        }

    def readers(
        self,
        pool: str,
        hidden_layer: int | None,
        n_genes: int | None,
        device: str | None,
        dtype: str,
        batch_tokens: int | None,
    ) -> list[Reader]:
        """How each of them reads cells."""
        if pool not in POOLS:
            raise InputError(f"Found pool={pool!r}; expected one of {', '.join(POOLS)}.")
        layer = -2 if hidden_layer is None else hidden_layer
        return [
            Reader(model, pool, layer, n_genes, device, dtype, batch_tokens)
            for model in self.models
        ]

    def folds(self, readers: Sequence[Reader], states: States, source: Source) -> list[Fold]:
        """Give each donor to the first encoder that has seen none of its cells."""
        everything = np.ones(len(states.cells), bool)
        if len(self.models) == 1:
            return [Fold(0, readers[0], everything)]
        seen = self._seen(states, source)
        by_donor = np.zeros((len(seen), len(states.donors)), bool)
        for number, cells in enumerate(seen):
            np.logical_or.at(by_donor[number], states.donor, cells)
        unfit = np.intersect1d(np.flatnonzero(by_donor.all(axis=0)), states.donor)
        if unfit.size:
            raise InputError(
                f"Found no classifier that has not seen donor {str(states.donors[unfit[0]])!r}"
                f"{f' ({unfit.size} such donors)' if unfit.size > 1 else ''}; expected one for "
                "every donor. Train them with scmix.tl.cross_fit on the same donor_key."
            )
        fold = by_donor.argmin(axis=0)[states.donor]
        used = [Fold(i, reader, fold == i) for i, reader in enumerate(readers)]
        return [one for one in used if one.cells.any()]

    def circular(self, states: States, source: Source, state_key: str | None) -> int:
        """How many of the cells a single classifier was trained on to tell these states apart."""
        if len(self.classifiers) != 1 or not states.names:
            return 0
        about = set(states.names[:2])
        classes = self.classifiers[0].classes
        if state_key not in classes and not any(about <= set(names) for names in classes.values()):
            return 0
        return int(self._seen(states, source)[0].sum())

    def _seen(self, states: States, source: Source) -> np.ndarray:
        """Whether each classifier has seen each cell, bool (n_classifiers, n_cells)."""
        seen = np.zeros((len(self.classifiers), len(states.cells)), bool)
        for one, row in zip(self.classifiers, seen, strict=True):
            for block in source.blocks(states.cells, min(one.n_genes, COMPARED)):
                cells = one.prepare(block.sequences, block.species)
                row[block.start : block.start + len(cells)] = one.seen(cells)
        return seen


def warn_circular(n_seen: int, n_cells: int) -> None:
    """Say that effects of an encoder on cells that taught it the states prove nothing."""
    if n_seen:
        warnings.warn(
            f"The encoder was fine-tuned to tell these states apart on {n_seen:,} of these "
            f"{n_cells:,} cells: it finds a difference whether there is one or not. Effects are "
            "given without p-values over donors. Pass model=scmix.tl.cross_fit(...), of which each "
            "donor is read by an encoder that has not seen it.",
            stacklevel=3,
        )
