"""Masked language model: predict hidden genes (Devlin et al., 2019)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...encoder import Encoder

CHUNK = 256  # rows of logits that exist at a time: 30 MB in float32 for 30,000 tokens


class MaskedLanguageModel(nn.Module):
    """Cross-entropy at the masked positions, with the encoder's own head."""

    name = "mlm"
    views: tuple[str, ...] = ("masked",)
    needs: frozenset[str] = frozenset()

    def loss(
        self, encoder: Encoder, hidden: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy in nats, and the share of genes predicted exactly."""
        head = encoder.cls.predictions
        positions, labels = batch["targets"]["positions"], batch["targets"]["labels"]
        rows = head.transform(hidden["masked"][positions])
        weight = encoder.bert.embeddings.word_embeddings.weight
        loss, accuracy, losses = linear_cross_entropy(rows, weight, head.bias, labels)
        cells = mean_of_cells(losses, positions, batch["views"]["masked"])
        return loss, {"mlm": loss.detach(), "mlm_accuracy": accuracy, "cells": cells}


def mean_of_cells(losses: Tensor, positions: Tensor, view: dict[str, Any]) -> Tensor:
    """Mean loss of each cell in batch order, 0 for a cell without any.

    Parameters
    ----------
    losses
        Losses of tokens, shape ``(M,)``.
    positions
        Where in the view these tokens stand, shape ``(M,)``.
    view
        The view.
    """
    ends = torch.tensor(view["indptr"][1:], device=positions.device)
    cell = torch.searchsorted(ends, positions, right=True)
    sums = losses.new_zeros(len(ends)).index_add(0, cell, losses)
    n = torch.bincount(cell, minlength=len(ends))
    return (sums / n.clamp(min=1))[view["place"]]


def linear_cross_entropy(
    rows: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of ``rows @ weight.T + bias`` without ever holding all logits.

    Logits are made, used for loss and gradient, and dropped, some rows at a time; memory does
    not grow with rows x vocabulary. Products run in autocast's type where that is on.

    Parameters
    ----------
    rows
        Shape ``(M, H)``.
    weight, bias
        Shapes ``(V, H)`` and ``(V,)``.
    labels
        Shape ``(M,)``, int64.
    chunk
        Rows at a time.

    Returns
    -------
    Mean cross-entropy; without gradient the share of rows whose label scores highest, and the
    cross-entropy of each row.

    Examples
    --------
    >>> loss, accuracy, _ = linear_cross_entropy(
    ...     torch.eye(2), 9 * torch.eye(2), torch.zeros(2), torch.tensor([0, 1])
    ... )
    >>> round(float(loss), 4), float(accuracy)
    (0.0001, 1.0)
    """
    kind = rows.device.type
    # autocast's type, read here: inside the function autocast is off
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else rows.dtype
    return _LinearCrossEntropy.apply(rows, weight, bias, labels, chunk, dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradient is computed with the loss, while the logits are there."""

    @staticmethod
    def forward(ctx, rows, weight, bias, labels, chunk, dtype):
        with torch.autocast(rows.device.type, enabled=False):
            losses, accuracy, gradients = _chunked(rows, weight, bias, labels, chunk, dtype)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(accuracy, losses)
        return losses.mean(), accuracy, losses

    @staticmethod
    def backward(ctx, grad_loss, *_):
        return *(grad_loss * gradient for gradient in ctx.saved_tensors), None, None, None


def _chunked(
    rows: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, chunk: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    n = len(rows)
    low_weight = weight.to(dtype)
    d_rows, d_weight, d_bias = (
        torch.empty_like(rows),
        torch.zeros_like(weight),
        torch.zeros_like(bias),
    )
    losses = torch.empty(n, device=rows.device)
    correct = torch.zeros((), device=rows.device)
    for start in range(0, n, chunk):
        part, label = rows[start : start + chunk].to(dtype), labels[start : start + chunk, None]
        logits = F.linear(part, low_weight).float() + bias
        highest = logits.amax(1, keepdim=True)
        wanted = logits.gather(1, label)
        share = logits.sub_(highest).exp_()
        total = share.sum(1, keepdim=True)
        losses[start : start + chunk] = (total.log() + highest - wanted).squeeze(1)
        correct += (wanted >= highest).sum()
        # from here on the gradient of the sum of losses with respect to the logits
        share.div_(total).scatter_add_(1, label, torch.full_like(wanted, -1.0))
        d_bias += share.sum(0)
        low_share = share.to(dtype)
        d_rows[start : start + chunk] = low_share @ low_weight
        d_weight += low_share.T @ part
    gradients = (d_rows.div_(n), d_weight.div_(n), d_bias.div_(n))
    return losses, correct / n, gradients
