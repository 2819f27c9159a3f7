"""What every gene of a cell measures, as dense targets of some cells at a time."""

from typing import Any

import torch
from torch import Tensor


class WholeCells:
    """Dense rows of ``batch["profile"]``: cells x genes exist for a chunk of cells only.

    Parameters
    ----------
    profile
        ``batch["profile"]``.
    total
        Counts are scaled to this total in each cell.
    """

    def __init__(self, profile: dict[str, Any], total: float) -> None:
        self.profile = profile
        self.scale = total / profile["totals"].clamp(min=1)
        self.n_measured = profile["measured"].sum(1)[profile["group"]]

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        return self.profile["measured"].shape[1]

    def counts(self, start: int, stop: int) -> Tensor:
        """Scaled counts of all genes, float32, shape ``(stop - start, n_tokens)``."""
        indptr = self.profile["indptr"]
        genes = slice(indptr[start], indptr[stop])
        values = self.profile["counts"][genes]
        lengths = torch.tensor(indptr[start : stop + 1], device=values.device).diff()
        cell = torch.arange(stop - start, device=values.device).repeat_interleave(lengths)
        dense = values.new_zeros(stop - start, self.n_tokens)
        dense[cell, self.profile["tokens"][genes]] = values * self.scale[start:stop][cell]
        return dense

    def measured(self, start: int, stop: int) -> Tensor:
        """Genes that the cell's data set has, bool, shape ``(stop - start, n_tokens)``."""
        return self.profile["measured"][self.profile["group"][start:stop]]


class Shown:
    """Which genes of each cell a view shows, as dense rows of some cells at a time.

    Parameters
    ----------
    view
        The view; masks and special tokens do not count.
    n_tokens
        Size of the vocabulary.
    """

    def __init__(self, view: dict[str, Any], n_tokens: int) -> None:
        keep, place = view["keep"], view["place"]
        lengths = torch.tensor(view["indptr"], device=keep.device).diff()
        self.cell = place.argsort().repeat_interleave(lengths)[keep]
        self.tokens, self.n_tokens = view["tokens"][keep], n_tokens

    def __call__(self, start: int, stop: int) -> Tensor:
        """Bool, shape ``(stop - start, n_tokens)``."""
        mine = (self.cell >= start) & (self.cell < stop)
        dense = torch.zeros(stop - start, self.n_tokens, dtype=torch.bool, device=mine.device)
        dense[self.cell[mine] - start, self.tokens[mine]] = True
        return dense
