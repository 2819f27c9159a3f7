"""Reading files of a folder that nobody vouches for: fixed names, size caps, strict JSON."""

import errno
import hashlib
import json
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf, isfinite
from pathlib import Path
from typing import BinaryIO

from .._errors import ModelFileError, ResourceError

_MAX_DEPTH = 32
# Without O_NONBLOCK, opening a named pipe would wait for its writer for ever.
_FLAGS = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_BINARY", "O_CLOEXEC")
)
# Strings are matched to be stepped over. The closing quote is optional: looking for one that never
# comes would be quadratic.
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


@contextmanager
def open_inside(folder: Path, name: str, max_bytes: int) -> Iterator[BinaryIO]:
    """Open a plain file that lies in the folder itself and is at most `max_bytes` long."""
    path = folder / name
    try:
        descriptor = os.open(_resolve_inside(folder, path), _FLAGS)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        _check_plain(os.fstat(descriptor), max_bytes, path)
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_inside(folder: Path, name: str, max_bytes: int) -> bytes:
    """All bytes of a plain file of the folder."""
    with open_inside(folder, name, max_bytes) as file:
        return read_exactly(file, os.fstat(file.fileno()).st_size, folder / name)


def read_exactly(file: BinaryIO, n_bytes: int, path: Path) -> bytes:
    """The next `n_bytes`; fewer is an error, and so is a failing disk."""
    try:
        content = file.read(n_bytes)
    except OSError as error:
        raise _unreadable(path, error) from error
    except MemoryError as error:
        raise ResourceError(
            f"{path} needs {n_bytes:,} bytes of memory, more than there is. Free some memory."
        ) from error
    if len(content) != n_bytes:
        raise ModelFileError(
            f"{path} ends after {len(content):,} of {n_bytes:,} bytes. Copy the model again."
        )
    return content


def parse_json(raw: bytes, path: Path) -> dict:
    """A JSON object without duplicate keys, NaN, huge numbers or deep nesting."""
    try:
        _check_depth(raw)
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_int=_small_int,
            parse_float=_finite_float,
        )
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path} cannot be read as plain JSON: {error}. Copy the model again."
        ) from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path} holds a {type(value).__name__}, expected a JSON object.")
    return value


def gunzip(raw: bytes, max_bytes: int, path: Path) -> bytes:
    """Decompress, but never past `max_bytes`: a small file can unpack to terabytes."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        content = unpacker.decompress(raw, max_bytes)
    except zlib.error as error:
        raise ModelFileError(f"{path} is not valid gzip: {error}. Copy the model again.") from error
    if not unpacker.eof or unpacker.unused_data:
        raise ModelFileError(
            f"{path} is truncated, has trailing bytes, or unpacks to more than {max_bytes:,} "
            "bytes. Copy the model again."
        )
    return content


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_plain(status: os.stat_result, max_bytes: int, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(f"{path} is not a plain file; expected one. Copy the model again.")
    if not 0 < status.st_size <= max_bytes:
        raise ModelFileError(
            f"{path} has {status.st_size:,} bytes, expected 1 to {max_bytes:,}. "
            "Copy the model again from where it came from."
        )


def _resolve_inside(folder: Path, path: Path) -> Path:
    resolved = Path(os.path.realpath(path))
    if not resolved.is_relative_to(os.path.realpath(folder)):
        raise ModelFileError(
            f"{path} is a link to a file outside the model's folder; expected a file. "
            f"Copy the folder with its links resolved (cp -rL {folder} <new folder>) and load that."
        )
    return resolved


def _unreadable(path: Path, error: OSError) -> ModelFileError | ResourceError:
    if isinstance(error, FileNotFoundError):
        return ModelFileError(f"{path} does not exist; a checkpoint needs it.")
    if error.errno in {errno.ENOMEM, errno.EMFILE, errno.ENFILE}:
        return ResourceError(f"{path} cannot be opened: {error.strerror}.")
    return ModelFileError(f"{path} cannot be read: {error.strerror or error}.")


def _check_depth(raw: bytes) -> None:
    """Before parsing: the parser recurses, and the interpreter's limit is the user's to set."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(raw):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(match.group(), 0)
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested more than {_MAX_DEPTH} deep")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        repeated, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"key {repeated[:80]!r} appears more than once")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _small_int(text: str) -> int:
    if len(text) > 18:
        raise ValueError(f"integer with {len(text):,} digits")
    return int(text)


def _finite_float(text: str) -> float:
    number = float(text) if len(text) <= 64 else inf
    if not isfinite(number):
        raise ValueError(f"number {text[:40]} is too long or too large")
    return number
