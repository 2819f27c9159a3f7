"""Orthologue swap: a cell and itself written in the other species' genes should lie close."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...encoder import Encoder
from .._distributed import gather_with_grad
from ._pooling import pooled


class CrossSpecies(nn.Module):
    """InfoNCE in both directions between a cell and its swapped self, with gradient.

    Every gene is replaced by its one-to-one orthologue, genes without one are left out, and the
    species token is the other's. In the released Mix-Geneformer code the term runs without
    gradient and in one direction.

    Parameters
    ----------
    width
        Width of the encoder.
    temperature
        Divides the cosines.
    """

    name = "xspecies"
    views: tuple[str, ...] = ("full", "swapped")
    needs: frozenset[str] = frozenset()

    def __init__(self, width: int, *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.project = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def loss(
        self, encoder: Encoder, hidden: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE, and the share of cells whose nearest swapped cell is their own."""
        views = batch["views"]
        swapped = views["swapped"]
        bounds = torch.as_tensor(swapped["indptr"], device=hidden["full"].device)
        swappable = (bounds.diff() > 0)[swapped["place"]]
        own, other = (
            gather_with_grad(
                self.project(pooled(encoder, hidden[name], views[name], "mean")[swappable])
            )
            for name in self.views
        )
        loss, accuracy = info_nce(own, other, self.temperature)
        return loss, {"xspecies": loss.detach(), "xspecies_accuracy": accuracy}


def info_nce(one: Tensor, two: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Symmetric InfoNCE: each vector finds its partner among those of the other view.

    Parameters
    ----------
    one, two
        Shape ``(n, H)``.
    temperature
        Divides the cosines.

    Returns
    -------
    Mean over both directions, and (without gradient) the share found.
    """
    with torch.autocast(one.device.type, enabled=False):
        a = F.normalize(one.float(), dim=1)
        b = F.normalize(two.float(), dim=1)
        similarity = a @ b.T / temperature
    own = torch.arange(len(one), device=one.device)
    forward = F.cross_entropy(similarity, own)
    backward = F.cross_entropy(similarity.T, own)
    accuracy = (similarity.detach().argmax(1) == own).float().mean()
    return (forward + backward) / 2, accuracy
