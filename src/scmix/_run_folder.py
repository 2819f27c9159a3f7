"""The folder of a run: its settings, its complete checkpoints, and a lock against a second run."""

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._errors import InputError, ResourceError
from .settings import logger

SETTINGS = "settings.json"
COMPLETE = "complete.json"
_PREFIX = "checkpoint-"
_DISK = {getattr(errno, name, -1) for name in ("ENOSPC", "EDQUOT", "EROFS")}


def mark_complete(checkpoint: Path) -> None:
    """Note sizes and hashes of a checkpoint's files, once all are written and on the disk."""
    files = {}
    for path in _files_of(checkpoint):
        with open(path, "rb") as file:
            files[path.relative_to(checkpoint).as_posix()] = {
                "bytes": path.stat().st_size,
                "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
            os.fsync(file.fileno())
    partial = checkpoint / f"{COMPLETE}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(files, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, checkpoint / COMPLETE)


def last_checkpoint(folder: Path) -> tuple[int, Path] | None:
    """Step and folder of the newest checkpoint that is whole.

    Newer ones, cut off by a kill or damaged since, are removed with a warning.
    """
    found = [(int(path.name.removeprefix(_PREFIX)), path) for path in folder.glob(f"{_PREFIX}*")]
    for step, path in sorted(found, reverse=True):
        if _is_whole(path):
            return step, path
        logger.warning("Removed %s, which is not whole.", path)
        shutil.rmtree(path)
    return None


def _is_whole(checkpoint: Path) -> bool:
    try:
        files = json.loads((checkpoint / COMPLETE).read_text("utf-8"))
        return all(_is_as_noted(checkpoint / name, noted) for name, noted in files.items())
    except (OSError, ValueError):
        return False


def _is_as_noted(path: Path, noted: dict[str, Any]) -> bool:
    if path.stat().st_size != noted["bytes"]:
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == noted["sha256"]


def _files_of(checkpoint: Path) -> list[Path]:
    # with FSDP a checkpoint has folders in it
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return [path for path in files if not path.name.startswith(COMPLETE)]


def agree_on_settings(folder: Path, wanted: dict[str, Any], resume: bool) -> None:
    """Write the settings of a new run, or compare them with those of the run to resume."""
    path = folder / SETTINGS
    if not path.is_file():
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(wanted, indent=1) + "\n", "utf-8")
        os.replace(partial, path)
        return
    if not resume:
        raise InputError(f"{folder} holds a run. Resume it (resume=True) or choose another folder.")
    found = _flat(json.loads(path.read_text("utf-8")))
    asked = _flat(json.loads(json.dumps(wanted)))
    differing = sorted(k for k in found.keys() | asked.keys() if found.get(k) != asked.get(k))
    if differing:
        what = "; ".join(
            f"{k}: {found.get(k)!r} there, {asked.get(k)!r} now" for k in differing[:5]
        )
        raise InputError(
            f"{folder} holds a run with other settings ({what}). "
            "Use the same settings to resume it, or choose another folder."
        )


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    inner = settings.get("recipe", {})
    return {**{k: v for k, v in settings.items() if k != "recipe"}, **inner}


@contextmanager
def sole_run(folder: Path, rank: int) -> Iterator[None]:
    """Hold the folder's lock (one for each rank); a second run that wants it is refused.

    The system lets go of the lock when the process ends, however it ends.
    """
    with open(folder / f".lock-{rank}", "a+b") as file:
        try:
            _lock(file.fileno())
        except OSError as error:
            raise InputError(
                f"Another process is training in {folder}. Wait for it, or choose another folder."
            ) from error
        yield


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Say that the disk is full or read-only, where that ended a run."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise ResourceError(
            f"Could not write to {folder}: {error.strerror}. Checkpoints from before are whole; "
            "free some space and make the same call again to go on."
        ) from error


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
