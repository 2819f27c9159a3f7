"""The folder of a run: its settings, its complete checkpoints, and a lock against a second run."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._errors import InputError

SETTINGS = "settings.json"
COMPLETE = "complete.json"
_PREFIX = "checkpoint-"


def mark_complete(checkpoint: Path) -> None:
    """Note the sizes of a checkpoint's files, once all are written."""
    sizes = {
        path.name: path.stat().st_size for path in checkpoint.iterdir() if path.name != COMPLETE
    }
    partial = checkpoint / f"{COMPLETE}.partial"
    partial.write_text(json.dumps(sizes, indent=1), "utf-8")
    os.replace(partial, checkpoint / COMPLETE)


def last_checkpoint(folder: Path) -> tuple[int, Path] | None:
    """Step and folder of the newest checkpoint that was written to the end.

    Checkpoints that were cut off by a kill are removed.
    """
    complete = []
    for path in folder.glob(f"{_PREFIX}*"):
        if _is_complete(path):
            complete.append((int(path.name.removeprefix(_PREFIX)), path))
        else:
            shutil.rmtree(path)
    return max(complete, default=None)


def _is_complete(checkpoint: Path) -> bool:
    if not (checkpoint / COMPLETE).is_file():
        return False
    sizes = json.loads((checkpoint / COMPLETE).read_text("utf-8"))
    found = {path.name: path.stat().st_size for path in checkpoint.iterdir()}
    return all(found.get(name) == size for name, size in sizes.items())


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


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
