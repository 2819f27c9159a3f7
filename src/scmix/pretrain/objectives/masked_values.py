"""Masked values: how much of a gene there is, where the gene is told and its value hidden."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...encoder import Encoder
from ..value_inputs import ValueNetwork
from .mlm import mean_of_cells


class MaskedValues(nn.Module):
    """Squared error of the values of hidden genes, from their own hidden states.

    The encoder reads every expressed gene with its value, ``log1p`` of the scaled count; hidden
    ones carry a learned vector instead. Ranks must not enter, as they would tell the value.

    Parameters
    ----------
    width
        Width of the encoder.
    """

    name = "masked_values"
    views: tuple[str, ...] = ("valued",)
    needs: frozenset[str] = frozenset({"values"})

    def __init__(self, width: int) -> None:
        super().__init__()
        self.network = ValueNetwork(width)
        self.hidden = nn.Parameter(torch.zeros(width))
        self.head = nn.Linear(width, 1)

    def added(self, view: dict[str, Any]) -> Tensor:
        """What is added to each token, shape ``(T, width)``: its value, or that it is hidden."""
        hidden = view.get("hidden", torch.zeros_like(view["keep"]))[:, None]
        seen = self.network(view["values"]) * (view["keep"][:, None] & ~hidden)
        return seen + self.hidden * hidden

    def loss(
        self, encoder: Encoder, hidden: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error over hidden genes."""
        view = batch["views"]["valued"]
        where = view["hidden"].nonzero().squeeze(1)
        found = self.head(hidden["valued"][where]).squeeze(1).float()
        errors = F.mse_loss(found, view["values"][where], reduction="none")
        loss = errors.mean()
        cells = mean_of_cells(errors.detach(), where, view)
        return loss, {"masked_values": loss.detach(), "cells": cells}
