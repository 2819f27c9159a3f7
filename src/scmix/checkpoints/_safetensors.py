"""The safetensors format, read by us so that nothing in a file is believed unchecked.

A file is eight bytes (length of the header, little-endian), a JSON header naming dtype, shape and
place of every tensor, and the tensors. Readers differ on duplicate keys, overlaps and holes;
here all of them are refused, and so is every name or shape that the configuration does not have.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from .._errors import ModelFileError
from ._files import parse_json, read_exactly

MAX_HEADER_BYTES = 2**20
MAX_BYTES = 2**34
_MAX_TENSORS = 10_000
FLOATS = ("F32", "F16", "BF16")
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}
_WHOLE = ("_ids", "labels", "groups", "cells")  # what ends like this holds whole numbers


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies, in bytes from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(file: BinaryIO, n_bytes: int, path: Path) -> dict[str, Entry]:
    """The tensors of an open file of `n_bytes`; afterwards the file stands at the first of them."""
    start = read_exactly(file, min(8, n_bytes), path)
    n_header = int.from_bytes(start, "little")
    if not 2 <= n_header <= min(MAX_HEADER_BYTES, n_bytes - 8):
        raise _not_safetensors(path, start)
    header = parse_json(read_exactly(file, n_header, path), path)
    _check_metadata(header.pop("__metadata__", {}), path)
    if len(header) > _MAX_TENSORS:
        raise ModelFileError(
            f"{path} names {len(header):,} tensors, expected at most {_MAX_TENSORS:,}."
        )
    entries = {name: _entry(name, value, path) for name, value in header.items()}
    _check_places(entries, n_bytes - 8 - n_header, path)
    return entries


def check_tensors(
    entries: dict[str, Entry], expected: dict[str, tuple[int, ...]], path: Path
) -> None:
    """Exactly the expected names, with the expected shapes and numbers of the right kind."""
    missing = sorted(expected.keys() - entries.keys())
    unexpected = sorted(entries.keys() - expected.keys())
    if missing or unexpected:
        raise ModelFileError(
            f"{path} does not hold the weights that config.json describes: "
            f"{_some(missing)} missing, {_some(unexpected)} unexpected. Expected the tensors of a "
            "BertForMaskedLM; copy the model again, or save it anew from transformers."
        )
    for name, shape in expected.items():
        entry = entries[name]
        dtypes = ("I64",) if name.endswith(_WHOLE) else FLOATS
        if entry.shape != shape or entry.dtype not in dtypes:
            raise ModelFileError(
                f"{path} holds {name} as {entry.dtype} {list(entry.shape)}, expected "
                f"{' or '.join(dtypes)} {list(shape)} as in config.json. Copy the model again."
            )


def _entry(name: str, value: object, path: Path) -> Entry:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise _bad_entry(name, value, "dtype, shape and data_offsets", path)
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise _bad_entry(name, value, f"a dtype among {', '.join(_ITEM_BYTES)}", path)
    if not _are_sizes(shape) or len(shape) > 4 or not _are_sizes(offsets) or len(offsets) != 2:
        raise _bad_entry(name, value, "a shape and two offsets, none negative", path)
    if offsets[1] - offsets[0] != prod(shape) * _ITEM_BYTES[dtype] or 0 in shape:
        raise _bad_entry(name, value, "a size that follows from its shape, above zero", path)
    return Entry(dtype, tuple(shape), offsets[0], offsets[1])


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_places(entries: dict[str, Entry], n_bytes: int, path: Path) -> None:
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].start):
        if entry.start != end:
            what = "overlaps the tensor before it" if entry.start < end else "leaves a hole"
            raise ModelFileError(f"{path}: {name[:80]} {what}, refused. Copy the model again.")
        end = entry.stop
    if end != n_bytes:
        raise ModelFileError(
            f"{path} has {n_bytes:,} bytes of weights, its header describes {end:,}: truncated "
            "or damaged. Copy the model again."
        )


def _check_metadata(metadata: object, path: Path) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ModelFileError(f"{path} has __metadata__ that is not text, refused.")


def _not_safetensors(path: Path, start: bytes) -> ModelFileError:
    found = "truncated, damaged or another format"
    if start.startswith((b"\x80", b"PK")):
        found = "a Python pickle or a zip archive as torch.save writes them, which can run code"
    return ModelFileError(
        f"{path} is not a safetensors file: {found}. Copy the model again, or let its owner "
        "convert it with transformers: save_pretrained writes safetensors."
    )


def _bad_entry(name: str, value: object, expected: str, path: Path) -> ModelFileError:
    return ModelFileError(
        f"{path} describes {name[:80]!r} as {str(value)[:120]}; expected {expected}. "
        "Copy the model again."
    )


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:3])
    return f"{len(names)} ({shown}{', ...' if len(names) > 3 else ''})" if names else "none"
