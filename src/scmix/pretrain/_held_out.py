"""Batches of held-out cells: the same ones at every look."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from .stream import Stream


def batches_of(stream: Stream, rows: np.ndarray) -> Iterator[dict[str, Any]]:
    """All rows in their order, about as many to a batch as in training."""
    lengths = np.minimum(stream.corpus.lengths[rows], stream.recipe.max_length)
    number = np.cumsum(lengths, dtype=np.int64) // stream.recipe.tokens_per_step
    for part in np.split(rows, np.flatnonzero(np.diff(number)) + 1):
        yield stream.assemble(part, np.random.default_rng([0, int(part[0])]))


def to_device(value: Any, device: torch.device) -> Any:
    """A batch with its tensors on a device; everything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: to_device(content, device) for name, content in value.items()}
    return value


def some_of(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, drawn alike at every call."""
    rng = np.random.default_rng(0)
    return rng.choice(rows, min(most, rows.size), replace=False) if rows.size else rows
