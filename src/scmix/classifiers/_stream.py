"""Batches of labelled cells: which cells a step sees depends on the seed and the step only."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ..batches import Sequences
from ..genes import Vocabulary
from ._network import as_batch


class Stream(IterableDataset):
    """Endless batches of cells, epoch after epoch; the last batch of an epoch may be smaller.

    Parameters
    ----------
    sequences
        Tokens of the cells, special ones included; every cell has genes.
    codes
        int32 (n_cells, n_keys): classes, -1 for none.
    vocabulary
        Of the tokens.
    n_positions
        Tokens of a cell that the encoder reads.
    batch_size
        Cells of a batch.
    balanced
        Draw cells with replacement so that the classes of the first key are equally frequent.
    seed
        Of the order.
    rank, world
        Of several processes, this one takes batches `rank`, `rank + world`, and so on.
    """

    def __init__(
        self,
        sequences: Sequences,
        codes: np.ndarray,
        vocabulary: Vocabulary,
        n_positions: int,
        *,
        batch_size: int,
        balanced: bool = False,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.sequences, self.codes = sequences, codes
        self.vocabulary, self.n_positions = vocabulary, n_positions
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.chance = _equal_classes(codes[:, 0]) if balanced else None
        self.start = 0
        self._epoch: tuple[int, np.ndarray] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every cell is seen (balanced: as many cells are drawn)."""
        return -(-len(self.sequences) // (self.batch_size * self.world))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        step = self.start + first
        while True:
            yield self.batch(step)
            step += stride

    def rows(self, step: int) -> np.ndarray:
        """Cells that this process sees at a step, the longest first."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = self._order(epoch)
        start = (place * self.world + self.rank) * self.batch_size
        rows = order[start : start + self.batch_size]
        if not rows.size:  # the last step of an epoch may have none left for this process
            rows = order[: self.batch_size]
        return rows[np.argsort(-self.sequences.lengths[rows], kind="stable")]

    def batch(self, step: int) -> dict[str, Any]:
        """Tensors of the cells of a step."""
        rows = self.rows(step)
        return {
            **as_batch(self.sequences[rows], self.vocabulary, self.n_positions),
            "codes": torch.from_numpy(self.codes[rows].astype(np.int64)),
            "number": step * self.world + self.rank,
            "rows": rows.tolist(),
        }

    def _order(self, epoch: int) -> np.ndarray:
        if self._epoch is None or self._epoch[0] != epoch:
            rng = np.random.default_rng([self.seed, 1, epoch])
            n = len(self.sequences)
            drawn = rng.permutation(n) if self.chance is None else rng.choice(n, n, p=self.chance)
            self._epoch = (epoch, drawn)
        return self._epoch[1]


def _equal_classes(codes: np.ndarray) -> np.ndarray:
    """Chance of each cell to be drawn when all classes are to be equally frequent."""
    sizes = np.bincount(codes + 1)
    chance = 1 / sizes[codes + 1]
    return chance / chance.sum()
