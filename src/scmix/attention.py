"""Attention over packed sequences: one function, four backends.

Queries, keys and values of all sequences lie one after another, ``(tokens, heads, dim)``;
a token attends to the tokens of its own sequence only, in both directions. The dropout of the
attention weights, and of the encoder, is here too.
"""

from collections.abc import Callable
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BACKENDS = ("flash_varlen", "sdpa", "matmul", "naive")
# Up to this length, training in bf16 on CPU is faster with the weights written out: forward and
# backward of one sequence of 200 tokens (4 heads of 64, one core with AMX) 1.5 ms against 3.0 ms,
# 512 tokens 5.3 against 7.8, 2,048 tokens 100 against 87. Without a backward "sdpa" is faster.
MATMUL_MAX_LENGTH = 512


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    lengths: list[int],
    backend: str | None = None,
    *,
    dropout_p: float = 0.0,
    key_bias: Tensor | None = None,
) -> Tensor:
    """Softmax attention within each packed sequence.

    Parameters
    ----------
    q, k, v
        Shape ``(tokens, heads, dim)``. Need not be contiguous.
    cu_seqlens
        Where sequences start, and where the last ends: int32 on the device of ``q``,
        shape ``(n + 1,)``. Read by "flash_varlen" only.
    lengths
        The length of each sequence, known to the host.
    backend
        "flash_varlen" (torch's variable-length flash attention: CUDA, half precision),
        "sdpa" (any device), "matmul" (weights written out: short sequences in training on CPU)
        or "naive" (the reference). None: the fastest that can run.
    dropout_p
        Share of attention weights dropped. Above zero, "flash_varlen" is not available.
    key_bias
        Added to the scores of each key, shape ``(tokens,)``: its logarithmic weight. With it,
        "flash_varlen" is not available.

    Returns
    -------
    Shape ``(tokens, heads, dim)``.
    """
    if backend is None:
        backend = "matmul" if key_bias is not None else _fastest(q, lengths, dropout_p)
    if backend == "flash_varlen":
        if key_bias is not None:
            raise ValueError('A bias of keys needs backend="matmul"; found "flash_varlen".')
        if dropout_p:
            raise ValueError('Attention dropout needs backend="sdpa"; found "flash_varlen".')
        return _flash_varlen(q, k, v, cu_seqlens, max(lengths, default=0))
    if backend == "sdpa":
        return _by_runs(_sdpa, q, k, v, lengths, dropout_p, key_bias)
    if backend == "matmul":
        return _by_runs(_matmul, q, k, v, lengths, dropout_p, key_bias)
    if backend == "naive":
        return _naive(q, k, v, lengths, dropout_p, key_bias)
    raise ValueError(f"Found backend={backend!r}, expected one of {BACKENDS}.")


def _fastest(q: Tensor, lengths: list[int], dropout_p: float) -> str:
    if can_flash(q) and not dropout_p:
        return "flash_varlen"
    if q.device.type != "cpu":
        return "sdpa"
    if dropout_p:  # torch's kernel on CPU writes the weights out then too, and drops them slowly
        return "matmul"
    half = q.dtype in (torch.float16, torch.bfloat16)
    trains = torch.is_grad_enabled() and q.requires_grad
    short = max(lengths, default=0) <= MATMUL_MAX_LENGTH
    return "matmul" if half and trains and short else "sdpa"


def can_flash(q: Tensor) -> bool:
    """Whether torch's variable-length flash attention takes these queries."""
    if not q.is_cuda or q.dtype not in (torch.float16, torch.bfloat16) or q.shape[0] == 0:
        return False
    fits = q.shape[-1] % 8 == 0 and q.shape[-1] <= 256
    recent = torch.cuda.get_device_capability(q.device) >= (8, 0)
    return fits and recent and torch.version.hip is None and _has_flash()


def _has_flash() -> bool:
    available = getattr(torch.backends.cuda, "is_flash_attention_available", lambda: False)
    return bool(available())


def _flash_varlen(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, longest: int) -> Tensor:
    return _flash_function()(q, k, v, cu_seqlens, cu_seqlens, longest, longest)


def _flash_function() -> Callable[..., Any]:
    try:  # torch 2.10 and newer
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # before, only the operator under it; it has a backward too
        return _aten_flash
    return varlen_attn


def _aten_flash(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int
) -> Tensor:
    forward = torch.ops.aten._flash_attention_forward
    return forward(q, k, v, cu_q, cu_k, max_q, max_k, 0.0, False, False)[0]


def _by_runs(
    mix: Callable[..., Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: list[int],
    dropout_p: float,
    key_bias: Tensor | None,
) -> Tensor:
    """One call of ``mix`` for each run of sequences of equal length.

    The tensors are split once, not sliced run by run: the backward of a slice fills a
    zero tensor of full size, that of a split concatenates.
    """
    runs = [(length, len(list(run))) for length, run in groupby(lengths) if length]
    if not runs:
        return torch.empty_like(q)
    sizes = [length * n for length, n in runs]
    out = []
    split = (q.split(sizes), k.split(sizes), v.split(sizes))
    biases = [None] * len(sizes) if key_bias is None else key_bias.split(sizes)
    for (length, n), bias, *parts in zip(runs, biases, *split, strict=True):
        batch = [part.unflatten(0, (n, length)).transpose(1, 2) for part in parts]
        mask = None if bias is None else bias.view(n, 1, 1, length)
        out.append(mix(*batch, mask, dropout_p).transpose(1, 2).flatten(0, 1))
    return out[0] if len(out) == 1 else torch.cat(out)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout_p: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout_p)


def _matmul(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout_p: float) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    return dropout(scores.softmax(dim=-1), dropout_p, training=True) @ v


def _naive(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: list[int],
    dropout_p: float,
    key_bias: Tensor | None,
) -> Tensor:
    out = []
    bias = q.new_zeros(len(q)) if key_bias is None else key_bias
    split = (q.split(lengths), k.split(lengths), v.split(lengths), bias.split(lengths))
    for queries, keys, values, b in zip(*split, strict=True):
        scores = torch.einsum("ihd,jhd->hij", queries, keys) / q.shape[-1] ** 0.5 + b
        weights = F.dropout(scores.softmax(dim=-1), dropout_p)
        out.append(torch.einsum("hij,jhd->ihd", weights, values))
    return torch.cat(out) if out else torch.empty_like(q)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Set a random share of elements to zero and scale up the others, fast on CPU.

    torch's own dropout draws one number per element from a serial generator: 6.3 ms for a million
    elements on one core. One byte per element (eight to a 64-bit draw) takes 1.5 ms. The share is
    therefore rounded to 1/256, and the scale is that of the rounded share, so the mean is kept.
    Draws come from torch's default generator.
    """
    if not training or p == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    n_dropped = min(round(256 * p), 255)
    draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
    keep = draws.view(torch.int8)[: x.numel()].view(x.shape).to(x.dtype).ge_(n_dropped - 128)
    return (x * keep).mul_(256 / (256 - n_dropped))
