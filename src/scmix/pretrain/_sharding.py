"""Models whose parameters are spread over processes (FSDP), made whole where that is needed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Let parts of the model be called on their own; every process must do so alike."""
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


def gathered(accelerator: Any, model: nn.Module, blank: Callable[[], nn.Module]) -> Any:
    """The trained model; where it is spread over processes, a copy that is whole in the first."""
    bare = accelerator.unwrap_model(model)
    if not isinstance(model, FSDPModule):
        return bare
    state = accelerator.get_state_dict(model)
    copy = blank()
    if state:
        copy.load_state_dict(state)
    return copy
