"""Tensors as the bytes of a safetensors file, and back."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from .._errors import InputError, ModelFileError
from ._safetensors import Entry

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}


def weights_bytes(state: Mapping[str, Tensor], dtype: torch.dtype | None = torch.float32) -> bytes:
    """Tensors as a safetensors file, refusing what is not finite; None: of the types they have."""
    tensors = {}
    for name, tensor in state.items():
        tensors[name] = tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
        if not torch.isfinite(tensors[name]).all():
            raise InputError(
                f"Found NaN or infinite numbers in {name}"
                + (' as float16; pass dtype="float32".' if torch.isfinite(tensor).all() else ".")
            )
    return to_safetensors(tensors, metadata={"format": "pt"})


def read_tensors(entries: dict[str, Entry], content: memoryview, path: Path) -> dict[str, Tensor]:
    """The tensors of a file: float32, and int64 for whole numbers."""
    return {name: _tensor(name, entry, content, path) for name, entry in entries.items()}


def _tensor(name: str, entry: Entry, content: memoryview, path: Path) -> Tensor:
    raw = bytearray(content[entry.start : entry.stop])  # a copy, so aligned and writable
    tensor = torch.frombuffer(raw, dtype=_DTYPES[entry.dtype]).reshape(entry.shape)
    tensor = tensor.float() if tensor.is_floating_point() else tensor
    if not torch.isfinite(tensor).all():
        raise ModelFileError(
            f"{path} has NaN or infinite numbers in {name}; expected finite weights. "
            "Load an earlier checkpoint of this training."
        )
    return tensor
