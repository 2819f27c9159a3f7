"""Names of models: where a name, a path or a folder of checkpoints leads."""

import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from .._errors import InputError, ModelFileError
from ._folder import find_folder
from ._manifest import MANIFEST

_RESOURCES = Path(__file__).parents[1] / "resources"
_ATTEMPTS = 100
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

T = TypeVar("T")


def bundled() -> dict[str, Path]:
    """The models that ship with scmix: name to folder."""
    return checkpoints_in(_RESOURCES)


def checkpoints_in(folder: Path) -> dict[str, Path]:
    """The checkpoints that lie directly in a folder: name to folder."""
    if not folder.is_dir():
        return {}
    found = sorted(path for path in folder.iterdir() if (path / MANIFEST).is_file())
    return {path.name: path for path in found if not path.name.startswith(".")}


def locate(name_or_path: str | os.PathLike) -> tuple[str, Path]:
    """Name and folder of a bundled model, or of a checkpoint on disk."""
    known = bundled()
    if isinstance(name_or_path, str) and name_or_path in known:
        return name_or_path, known[name_or_path]
    if not isinstance(name_or_path, str | os.PathLike) or not os.fspath(name_or_path):
        raise InputError(
            f"Found the model {name_or_path!r}, expected a name ({_names(known)}) or a folder."
        )
    path = Path(name_or_path).expanduser()
    folder = find_folder(path)
    if folder is None and not path.is_symlink():
        raise _unknown(str(name_or_path), known)
    return path.name or str(name_or_path), folder or path


def read_steadily(
    name_or_path: str | os.PathLike,
    read: Callable[[str, Path], T],
    is_whole: Callable[[T], bool] = lambda result: False,
) -> T:
    """What `read(name, folder)` returns, read anew when the folder was replaced meanwhile.

    `is_whole` says of a result that its parts are known to belong together in any case.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        name, folder = locate(name_or_path)
        before = _stamp(folder)
        try:
            result = read(name, folder)
        except ModelFileError:
            if _stamp(folder) == before and (before or attempt == _ATTEMPTS):
                raise
        else:
            if is_whole(result) or _stamp(folder) == before:
                return result
    raise ModelFileError(f"{name_or_path} is being replaced again and again; try once more later.")


def _stamp(folder: Path) -> tuple[int, int] | None:
    """Changes when another folder takes this place; None while there is none."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _unknown(name: str, known: dict[str, Path]) -> InputError:
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    if _HUB_NAME.fullmatch(name):
        hint += f" If it is on the Hugging Face hub: models.download({name!r}, <folder>)."
    return InputError(
        f"{name!r} is neither a model that ships with scmix ({_names(known)}) nor a folder.{hint} "
        "scmix.models.list() shows what can be loaded."
    )


def _names(known: dict[str, Path]) -> str:
    return ", ".join(known) or "none in this installation"
