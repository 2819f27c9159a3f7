"""What the processes of one training run tell each other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


def n_processes() -> int:
    """Processes that train together; 1 unless started by torchrun or accelerate."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_with_grad(tensor: Tensor) -> Tensor:
    """Rows of all processes, one process's after another's, in the order of their ranks.

    Processes may hold different numbers of rows. The gradient of a row is the sum of what every
    process sends back for it; as data-parallel training averages gradients over processes, a loss
    that each process computes alike from all rows has the gradient it would have in one process.
    Every process must call this at the same point.

    Parameters
    ----------
    tensor
        Of any dtype, shape ``(n, ...)``; all but the first axis alike in every process.

    Returns
    -------
    Shape ``(sum of n, ...)``; with one process the tensor itself.

    Examples
    --------
    >>> gather_with_grad(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    return tensor if _ALONE.get() or n_processes() == 1 else _Gather.apply(tensor)


@contextmanager
def not_gathering() -> Iterator[None]:
    """Let `gather_with_grad` return what it gets: all processes look at the same cells."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def mean_over_processes(values: Tensor) -> Tensor:
    """Mean of each value over all processes."""
    n = n_processes()
    if n == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / n


def from_first(compute: Callable[[], int]) -> int:
    """A whole number that the first process computes for all."""
    if n_processes() == 1:
        return compute()
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    value = torch.tensor([compute() if dist.get_rank() == 0 else 0], device=device)
    dist.broadcast(value, 0)
    return int(value)


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if n_processes() > 1:
        dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        sizes = _sizes(tensor)
        rank = dist.get_rank()
        ctx.start, ctx.n = sum(sizes[:rank]), sizes[rank]
        # collectives want equal shapes
        padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.start : ctx.start + ctx.n]


def _sizes(tensor: Tensor) -> list[int]:
    own = torch.tensor([len(tensor)], device=tensor.device)
    sizes = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, own)
    return [int(size) for size in sizes]
