"""Writing a folder so that it is there whole or not at all, whatever happens meanwhile."""

import ctypes
import errno
import os
import secrets
import shutil
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from .._errors import InputError, ResourceError

_PARTIAL, _PREVIOUS = "partial", "previous"
_ATTEMPTS = 20
_LOOKS, _LOOKS_WITHOUT_A_TRACE, _PAUSE = 200, 3, 0.005  # seconds


def write_folder(
    folder: Path, files: dict[str, bytes], *, overwrite: bool, replaceable: Collection[str]
) -> None:
    """Write `files` into a hidden sibling, flush it to disk, and let it take the folder's place.

    At every moment `folder` holds the old files or the new ones, never a mixture. Where the
    system cannot exchange two folders in one step, the old one is first renamed; if the process
    dies exactly then, `find_folder` still finds it. Names outside `replaceable` in an existing
    folder are somebody else's files: it is not replaced.
    """
    folder = Path(os.path.realpath(folder))
    partial = _hidden(folder, _PARTIAL)
    try:
        check_target(folder, overwrite=overwrite, replaceable=replaceable)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        for name, content in files.items():
            _write_file(partial / name, content)
        _sync_folder(partial)
        _take_place(partial, folder, overwrite=overwrite)
        _sync_folder(folder.parent)
    except OSError as error:
        raise ResourceError(
            f"Could not write {folder}: {error.strerror or error}. Expected a folder that can be "
            f"written to and {sum(map(len, files.values())):,} bytes of free space. Nothing was "
            "changed; choose another folder or free some space."
        ) from error
    finally:  # after an error or Ctrl-C what was half written, after success the old folder
        shutil.rmtree(partial, ignore_errors=True)
        _discard_previous(folder)


def find_folder(folder: Path) -> Path | None:
    """The folder, or what stood there when its replacement was cut short, or None.

    One of the two is there at every moment, but not under one name: between looking for the one
    and for the other, a replacement can end or begin. So as long as there are traces of any, this
    looks again, for about a second; without a trace the answer comes at once.
    """
    target = Path(os.path.realpath(folder))
    for look in range(_LOOKS):
        if folder.exists():
            return folder
        previous = _siblings(target, _PREVIOUS)
        if previous:
            return max(previous, key=_modified)
        if _siblings(target, _PARTIAL):
            time.sleep(_PAUSE)
        elif look + 1 >= _LOOKS_WITHOUT_A_TRACE:
            break
    return None


def check_target(folder: Path, *, overwrite: bool, replaceable: Collection[str]) -> None:
    """Refuse to replace what is not ours, or what the caller did not say may go."""
    if not folder.name:
        raise InputError(f"Found the folder {folder}, expected one with a name.")
    try:
        names = set(os.listdir(folder))
    except FileNotFoundError:  # a free name, or another process sets it aside right now
        return
    except NotADirectoryError as error:
        raise InputError(f"{folder} is a file, expected a folder or a free name.") from error
    foreign = sorted(names - set(replaceable))
    if foreign:
        raise InputError(
            f"{folder} holds {foreign[0]!r}, which is not part of a checkpoint and would be lost. "
            "Choose another folder."
        )
    if names and not overwrite:
        raise InputError(f"{folder} exists. Pass overwrite=True to replace it.")


def _discard_previous(folder: Path) -> None:
    """Delete what was set aside, once the folder is there again.

    Looked up in this order, because another process may be setting it aside right now; renamed
    first, so that nothing half deleted is ever taken for a checkpoint.
    """
    previous = _siblings(folder, _PREVIOUS)
    if not folder.exists():
        return
    for path in previous:
        with suppress(OSError):  # another process was faster
            shutil.rmtree(path.rename(_hidden(folder, _PARTIAL)), ignore_errors=True)


def _write_file(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # Windows and some network file systems cannot flush a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _take_place(partial: Path, folder: Path, *, overwrite: bool) -> None:
    """Rename `partial` to `folder`; another process may do the same at the same time."""
    for _ in range(_ATTEMPTS):
        if _renamed(partial, folder):
            return
        if not overwrite:
            raise InputError(f"{folder} was written by another process meanwhile; left as it is.")
        if _exchange(partial, folder) or _replace_in_two_steps(partial, folder):
            return
    raise OSError(errno.EBUSY, "other processes keep replacing it")


def _renamed(partial: Path, folder: Path) -> bool:
    try:
        if os.name == "nt" and folder.is_dir():
            folder.rmdir()  # fails unless empty; elsewhere rename does this itself
        partial.rename(folder)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        raise
    return True


def _replace_in_two_steps(partial: Path, folder: Path) -> bool:
    old = _hidden(folder, _PREVIOUS)
    try:
        folder.rename(old)
    except FileNotFoundError:
        return False
    try:
        if _renamed(partial, folder):
            return True
    except BaseException:
        _renamed(old, folder)
        raise
    return False


def _hidden(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{kind}-{secrets.token_hex(6)}")


def _siblings(folder: Path, kind: str) -> list[Path]:
    start = f".{folder.name}.{kind}-"
    try:
        return [path for path in folder.parent.iterdir() if path.name.startswith(start)]
    except OSError:
        return []


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # discarded meanwhile
        return 0


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders swap names in one step, as Linux and macOS can; False where that fails.

    Some network file systems refuse it, and Windows has nothing like it.
    """
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform not in {"linux", "darwin"}:
        return False
    library = ctypes.CDLL(None)
    if hasattr(library, "renameat2"):
        here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        return library.renameat2(here, names[0], here, names[1], exchange) == 0
    if hasattr(library, "renamex_np"):
        return library.renamex_np(*names, 2) == 0  # RENAME_SWAP
    return False
