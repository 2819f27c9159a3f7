"""SimCSE: two views of a cell lie closer than views of different cells (Gao et al., 2021)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...encoder import Encoder
from .._distributed import gather_with_grad
from ._pooling import pooled


class SimCSE(nn.Module):
    """NT-Xent between the pooled vectors of the same tokens, read twice with different dropout.

    Parameters
    ----------
    pool
        "mean" over genes; "first": the pooler's output for the top-ranked gene, as published.
    temperature
        Divides the cosines.
    negatives
        "all" other cells of the step, those of other processes included, or those of the same
        "species" or "dataset" only.
    """

    name = "simcse"
    views: tuple[str, ...] = ("masked", "again")
    needs: frozenset[str] = frozenset()

    def __init__(self, *, pool: str, temperature: float, negatives: str) -> None:
        super().__init__()
        self.pool, self.temperature, self.negatives = pool, temperature, negatives

    def loss(
        self, encoder: Encoder, hidden: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """NT-Xent, and the share of cells whose nearest vector is their own other view."""
        one, two = (
            gather_with_grad(pooled(encoder, hidden[name], batch["views"][name], self.pool))
            for name in self.views
        )
        groups = None if self.negatives == "all" else gather_with_grad(batch[self.negatives])
        loss, accuracy = nt_xent(one, two, self.temperature, groups)
        return loss, {self.name: loss.detach(), f"{self.name}_accuracy": accuracy}


def nt_xent(
    one: Tensor, two: Tensor, temperature: float, groups: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Normalised temperature-scaled cross-entropy over both views of all cells.

    Parameters
    ----------
    one, two
        Vectors of the two views, shape ``(n, H)``.
    temperature
        Divides the cosines.
    groups
        Code of each cell, shape ``(n,)``: only cells of one group are compared. None: all.

    Returns
    -------
    Mean over the 2n vectors, and (without gradient) the share that have their partner nearest.

    Examples
    --------
    >>> loss, accuracy = nt_xent(torch.eye(3), torch.eye(3), 0.05)
    >>> bool(loss < 1e-6), float(accuracy)
    (True, 1.0)
    """
    n = len(one)
    with torch.autocast(one.device.type, enabled=False):  # bf16 cosines are off by 0.004
        z = F.normalize(torch.cat([one, two]).float(), dim=1)
        similarity = z @ z.T / temperature
    apart = torch.eye(2 * n, dtype=torch.bool, device=z.device)
    if groups is not None:
        both = groups.repeat(2)
        apart |= both[:, None] != both[None, :]
    similarity = similarity.masked_fill(apart, -torch.inf)
    partner = torch.arange(2 * n, device=z.device).roll(n)
    accuracy = (similarity.detach().argmax(1) == partner).float().mean()
    return F.cross_entropy(similarity, partner), accuracy
