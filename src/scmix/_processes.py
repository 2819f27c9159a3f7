"""Work on cells that the processes of one run share: `torchrun`, `accelerate launch`."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from scmix._device import choose
from scmix._errors import InputError, ResourceError

_number_of_run = itertools.count()


@dataclass(frozen=True, eq=False)
class Team:
    """The processes of a run. All of them call the same methods in the same order.

    Parameters
    ----------
    rank
        Number of this process.
    size
        How many there are.
    group
        Through which they speak, on CPU.
    """

    rank: int
    size: int
    group: Any

    def share(self, n: int, rank: int | None = None) -> slice:
        """Rows of n that a process, by default this one, works on."""
        rank = self.rank if rank is None else rank
        return slice(n * rank // self.size, n * (rank + 1) // self.size)

    def agree(self, **facts: Any) -> None:
        """Refuse to go on when the processes were called with different things."""
        for other, theirs in enumerate(self._said_by_all(facts)):
            differing = [name for name in facts if theirs.get(name) != facts[name]]
            if differing:
                name = differing[0]
                raise InputError(
                    f"Found {name} {facts[name]!r} in process {self.rank} and {theirs.get(name)!r} "
                    f"in process {other}; expected the same call in every process of the run."
                )

    def together(self, work: Callable[[], None]) -> None:
        """Work, and raise in every process when it fails in one."""
        error: Exception | None = None
        try:
            work()
        except Exception as raised:
            error = raised
        said = self._said_by_all("" if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, text in enumerate(said):
            if text:
                raise ResourceError(f"Process {rank} of the run failed with {text}")

    def fill(self, array: np.ndarray) -> None:
        """Complete an array, of which every process has filled its share of rows."""
        for rank in range(self.size):
            part = torch.from_numpy(array[self.share(len(array), rank)])  # shares memory
            dist.broadcast(part, dist.get_global_rank(self.group, rank), group=self.group)

    def _said_by_all(self, what: Any) -> list[Any]:
        said: list[Any] = [None] * self.size
        dist.all_gather_object(said, what, group=self.group)
        return said


@contextmanager
def team() -> Iterator[Team | None]:
    """All processes of this run; None when there is one only.

    A run is one that `torchrun` or `accelerate launch` started, or whose process group exists. A
    group that is made here is taken down again: another may be wanted for training.
    """
    if not is_launched():
        yield None
        return
    own = not dist.is_initialized()
    if own:
        _make_group()
    try:
        if dist.get_world_size() == 1:
            yield None
            return
        group = dist.new_group(backend="gloo")  # the one that exists may speak on GPUs only
        try:
            yield Team(dist.get_rank(), dist.get_world_size(), group)
        finally:
            dist.destroy_process_group(group)
    finally:
        if own:
            dist.destroy_process_group()


def is_launched() -> bool:
    """Whether this process may be one of several."""
    return dist.is_available() and (dist.is_initialized() or dist.is_torchelastic_launched())


def _make_group() -> None:
    """The default group, under a name of its own: what an earlier one left behind would be met."""
    store, rank, size = next(dist.rendezvous("env://"))
    named = dist.PrefixStore(f"scmix/{next(_number_of_run)}", store)
    dist.init_process_group("gloo", store=named, rank=rank, world_size=size)


def own_device(device: str) -> str:
    """The GPU of this process where a device leaves open which, otherwise that device."""
    chosen, _ = choose(device)
    if chosen.type != "cuda" or ":" in device:
        return device
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
