"""Output that appears when it is complete, and never in place of something unasked."""

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .._errors import InputError, ResourceError

CELLS = (".h5ad", ".zarr")
TABLES = (".csv", ".csv.gz")


def check_ending(path: Path, endings: Sequence[str], what: str) -> None:
    """Refuse a name that does not say what the file is."""
    if not path.name.endswith(tuple(endings)):
        raise InputError(
            f"Found the {what} {str(path)!r}; expected a name that ends in {' or '.join(endings)}."
        )


def check_output(output: str, endings: Sequence[str], *, force: bool) -> Path:
    """The path to write to, found fit before any work is done."""
    path = Path(output).expanduser()
    check_ending(path, endings, "output")
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {path.parent} for {path.name}. Make it first.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path.parent} cannot be written to. Choose another folder.")
    if path.suffix != ".zarr" and path.is_dir():
        raise InputError(f"{path} is a folder; expected the name of a file. Choose another name.")
    if path.exists() and not force:
        raise _taken(path)
    return path


def check_folder(output: str, *, force: bool) -> Path:
    """The folder to save to, found free before any work is done."""
    path = Path(output).expanduser()
    if path.is_file():
        raise InputError(f"{path} is a file; expected the name of a folder. Choose another name.")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise _taken(path)
    return path


@contextmanager
def when_complete(path: Path, *, force: bool) -> Iterator[Path]:
    """A hidden name beside `path` to write to; it takes the place of `path` at the end.

    At every moment there is the old file, or the new one, or none; what was half written is
    removed, unless the process is killed, which leaves a hidden `.<name>.partial-...`.
    """
    partial = path.with_name(f".{path.stem}.partial-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield partial
        _flush(partial)
        if path.exists() and not force:
            raise _taken(path)
        if path.is_dir():
            _exchange(partial, path)
        else:
            os.replace(partial, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise ResourceError(
            f"Could not write {path}: {error.strerror or error}. Nothing was changed; choose "
            "another folder or free some space."
        ) from error
    finally:
        _remove(partial)


def _taken(path: Path) -> InputError:
    return InputError(f"{path} exists already. Pass --force to replace it, or another name.")


def _exchange(partial: Path, path: Path) -> None:
    """Move a folder out of the way, for no file or folder can replace one that is not empty."""
    old = partial.with_name(f"{partial.name}.old")
    os.replace(path, old)
    try:
        os.replace(partial, path)
    except BaseException:
        os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        with open(file, "r+b") as opened:
            os.fsync(opened.fileno())


def _flush_folder(folder: Path) -> None:
    with suppress(OSError):  # Windows cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
