"""What a classifier gives for the cells of an AnnData, read in blocks."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .._slots import Block
from ..classifiers import CellClassifier
from ..settings import settings
from ..statistics import nearest_centroid, strangeness

_CELLS_AT_ONCE = 512  # enough for packing by length, few enough for a progress bar that moves


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits of all cells; vectors are not kept.

    Parameters
    ----------
    logits
        Label key to float32 (n_cells, n_classes); NaN for a cell without a known gene.
    distances
        Label key to how unlike all known types a cell is, float32 (n_cells,).
    seen
        Whether the classifier was trained or calibrated on a cell (n_cells,).
    """

    logits: dict[str, np.ndarray]
    distances: dict[str, np.ndarray]
    seen: np.ndarray

    @property
    def n_empty(self) -> int:
        """Cells without a known gene."""
        return int(np.isnan(next(iter(self.logits.values()))[:, 0]).sum())


def predict(
    classifier: CellClassifier,
    blocks: Iterable[Block],
    n_cells: int,
    keys: Collection[str],
    *,
    measured: Collection[str] = (),
    device: str | None,
    dtype: str,
    batch_tokens: int | None,
) -> Predictions:
    """Run a classifier over blocks of cells.

    Parameters
    ----------
    classifier
        Gives logits and vectors.
    blocks
        Of `iter_sequences`, with as many genes as the classifier reads.
    n_cells
        Of all blocks together.
    keys
        Labels to keep the logits of.
    measured
        Labels to measure `distances` for.
    device, dtype, batch_tokens
        As in `scmix.inference.run`.
    """
    sizes = {key: len(classifier.classes[key]) for key in keys}
    out = Predictions(
        {key: np.full((n_cells, size), np.nan, np.float32) for key, size in sizes.items()},
        {key: np.full(n_cells, np.nan, np.float32) for key in measured},
        np.zeros(n_cells, dtype=bool),
    )
    options: dict[str, Any] = {
        "device": settings.device if device is None else device,
        "dtype": dtype,
        "batch_tokens": batch_tokens,
    }
    with tqdm(total=n_cells, unit="cell", disable=not settings.progress, leave=False) as bar:
        for block in blocks:
            sequences = classifier.prepare(block.sequences, block.species)
            for first in range(0, len(sequences), _CELLS_AT_ONCE):
                part = sequences[first : first + _CELLS_AT_ONCE]
                rows = slice(block.start + first, block.start + first + len(part))
                logits, vectors = classifier.predict(part, **options)
                for key in keys:
                    out.logits[key][rows] = logits[key]
                for key in measured:
                    out.distances[key][rows] = _strangeness(classifier, key, logits[key], vectors)
                out.seen[rows] = classifier.seen(part)
                bar.update(len(part))
    return out


def _strangeness(
    classifier: CellClassifier, key: str, logits: np.ndarray, vectors: np.ndarray
) -> np.ndarray:
    calibration = classifier.calibration[key]
    _, distances = nearest_centroid(vectors, np.asarray(calibration.centroids))
    return strangeness(calibration, logits, distances)
