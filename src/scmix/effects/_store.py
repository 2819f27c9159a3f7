"""Effects on disk, appended as they are made, so that a run that was killed goes on."""

import json
import os
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import InputError, ResourceError


def record(n_probes: int) -> np.dtype:
    """One edit of one cell, as bytes of fixed size."""
    return np.dtype(
        [
            ("cell", "<i4"),
            ("number", "<i4"),
            ("changed", "?"),
            ("rank", "<f4"),
            ("similarity", "<f4"),
            ("shift", "<f4", (n_probes,)),
        ]
    )


class Store:
    """A file of records, and beside it how many steps of a run they are.

    A step is written whole or not at all: what was appended after the last finished step is cut
    off when the store is opened again.

    Parameters
    ----------
    folder
        Made where it does not exist.
    name
        Of the files.
    key
        Hash of all that the records depend on. A store that was made otherwise is refused.
    dtype
        Of a record.
    """

    def __init__(self, folder: str | PathLike, name: str, key: str, dtype: np.dtype) -> None:
        self._path = Path(folder).expanduser() / f"{name}.rows"
        self._state_path = self._path.with_suffix(".json")
        self._dtype = dtype
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._open(key)
        except OSError as error:
            raise ResourceError(f"Cannot use the store {folder}: {error.strerror}.") from error

    @property
    def n_steps(self) -> int:
        """Steps that are finished."""
        return len(self._state["ends"])

    @property
    def notes(self) -> dict[str, Any]:
        """What was decided once, before the first step."""
        return self._state["notes"]

    def note(self, **notes: Any) -> None:
        """Keep a decision: anything that JSON can hold."""
        self._state["notes"].update(notes)
        self._write_state()

    def append(self, rows: np.ndarray) -> None:
        """Add the records of the next step."""
        try:
            with open(self._path, "ab") as file:
                file.write(rows.astype(self._dtype).tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ResourceError(
                f"Could not write to {self._path}: {error.strerror}. Free some space and run "
                "again: finished steps are kept."
            ) from error
        self._state["ends"].append(self._end + len(rows))
        self._write_state()

    def read(self, step: int) -> np.ndarray:
        """Records of a finished step."""
        ends = self._state["ends"]
        first = ends[step - 1] if step else 0
        size = self._dtype.itemsize
        with open(self._path, "rb") as file:
            file.seek(first * size)
            return np.frombuffer(file.read((ends[step] - first) * size), self._dtype)

    @property
    def _end(self) -> int:
        return self._state["ends"][-1] if self._state["ends"] else 0

    def _open(self, key: str) -> None:
        self._state: dict[str, Any] = {"key": key, "notes": {}, "ends": []}
        if self._state_path.exists():
            self._state = _read_state(self._state_path)
            if self._state["key"] != key:
                raise InputError(
                    f"Found in {self._path.parent} the effects of another run: its data, model or "
                    "options differ. Pass another store, or delete this folder."
                )
        self._path.touch()
        if self._path.stat().st_size < self._end * self._dtype.itemsize:
            raise InputError(f"{self._path} is cut short. Delete the folder and run again.")
        os.truncate(self._path, self._end * self._dtype.itemsize)
        self._write_state()

    def _write_state(self) -> None:
        beside = self._state_path.with_suffix(".partial")
        beside.write_text(json.dumps(self._state))
        os.replace(beside, self._state_path)


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text())
        whole = isinstance(state, dict) and set(state) == {"key", "notes", "ends"}
    except ValueError:
        whole = False
    if not whole:
        raise InputError(f"{path} is damaged. Delete the folder and run again.")
    return state
