"""Losses behind one wide linear layer, without holding all of its outputs."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64  # rows at a time: 16 MB in float32 for 2 x 32,000 outputs


def through_linear(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor,
    loss_of: Callable[[Tensor, int, int], Tensor],
    chunk: int = CHUNK,
) -> Tensor:
    """Sum of ``loss_of(rows @ weight.T + bias)`` over rows, some rows at a time.

    Outputs are made, used for loss and gradient, and dropped. Gradients reach ``rows``, ``weight``
    and ``bias``, and nothing that ``loss_of`` holds. The product runs in autocast's type where that
    is on, the loss in float32.

    Parameters
    ----------
    rows
        Shape ``(n, H)``.
    weight, bias
        Shapes ``(V, H)`` and ``(V,)``.
    loss_of
        Takes outputs ``(stop - start, V)`` in float32, ``start`` and ``stop``; returns the loss of
        each of these rows.
    chunk
        Rows at a time.

    Returns
    -------
    The sum, a scalar.

    Examples
    --------
    >>> rows, weight, bias = torch.eye(2), torch.ones(3, 2), torch.zeros(3)
    >>> float(through_linear(rows, weight, bias, lambda out, start, stop: out.sum(1)))
    6.0
    """
    kind = rows.device.type
    # autocast's type, read here: inside the function autocast is off
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else rows.dtype
    return _ThroughLinear.apply(rows, weight, bias, loss_of, chunk, dtype)


class _ThroughLinear(torch.autograd.Function):
    """The gradient is computed with the loss, while the outputs are there."""

    @staticmethod
    def forward(ctx, rows, weight, bias, loss_of, chunk, dtype):
        with torch.autocast(rows.device.type, enabled=False):
            loss, gradients = _chunked(
                rows, weight, bias, loss_of, chunk, dtype, any(ctx.needs_input_grad)
            )
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return *(grads[0] * gradient for gradient in ctx.saved_tensors), None, None, None


def _chunked(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor,
    loss_of: Callable[[Tensor, int, int], Tensor],
    chunk: int,
    dtype: torch.dtype,
    with_gradient: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    loss = torch.zeros((), device=rows.device)
    low_weight = weight.to(dtype)
    shapes = (rows, weight, bias) if with_gradient else ()
    gradients = tuple(torch.zeros_like(tensor) for tensor in shapes)
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk].to(dtype)
        outputs = F.linear(part, low_weight).float() + bias
        with torch.set_grad_enabled(with_gradient):
            outputs.requires_grad_(with_gradient)
            own = loss_of(outputs, start, start + len(part)).sum()
        loss += own.detach()
        if with_gradient:
            (slope,) = torch.autograd.grad(own, outputs)
            low_slope = slope.to(dtype)
            d_rows, d_weight, d_bias = gradients
            d_rows[start : start + len(part)] = low_slope @ low_weight
            d_weight += low_slope.T @ part
            d_bias += slope.sum(0)
    return loss, gradients
