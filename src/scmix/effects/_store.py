"""Effects on disk, appended as they are made, so that a run that was killed goes on."""

import json
import os
import time
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .._errors import InputError, ResourceError
from ._totals import PairTotals


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

    def describe(self, about: dict[str, Any]) -> None:
        """Keep, once, what numbers in the records mean: anything that JSON can hold."""
        if not self.about_path.exists():
            _write_json(self.about_path, about)

    @property
    def about_path(self) -> Path:
        """The file of :meth:`describe`."""
        return self._path.with_suffix(".about.json")

    def sums(self) -> "Sums":
        """Where sums that grow with every step are kept."""
        return Sums(self._path.with_suffix(".pairs.npz"))

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

    def forget(self, n_steps: int) -> None:
        """Drop the steps behind the first `n_steps`."""
        del self._state["ends"][n_steps:]
        os.truncate(self._path, self._end * self._dtype.itemsize)
        self._write_state()

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
        _write_json(self._state_path, self._state)


class Sums:
    """Sums over the steps of a run, written now and then.

    They are too large to be written with every step, and need not be: what was done after the
    last time is done again.

    Parameters
    ----------
    path
        Of the file.
    seconds
        Shortest time between two writings.
    """

    def __init__(self, path: Path, seconds: float = 60.0) -> None:
        self._path, self._seconds, self._last = path, seconds, time.monotonic()

    def restore(self, totals: PairTotals) -> int:
        """Put back what was kept; how many steps it is the sum of."""
        if not self._path.exists():
            return 0
        try:
            with np.load(self._path, allow_pickle=False) as kept:
                totals.n[...], totals.similarity[...] = kept["n"], kept["similarity"]
                totals.squared[...] = kept["squared"]
                return int(kept["n_steps"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{self._path} is damaged. Delete the folder and run again."
            ) from error

    def save(self, totals: PairTotals, n_steps: int, *, at_once: bool = False) -> None:
        """Keep the sums, unless that was done a short time ago."""
        if not at_once and time.monotonic() - self._last < self._seconds:
            return
        beside = self._path.with_suffix(".partial.npz")
        try:
            np.savez(
                beside,
                n_steps=n_steps,
                n=totals.n,
                similarity=totals.similarity,
                squared=totals.squared,
            )
            os.replace(beside, self._path)
        except OSError as error:
            raise ResourceError(
                f"Could not write to {self._path}: {error.strerror}. Free some space and run again."
            ) from error
        self._last = time.monotonic()


def read_store(folder: str | PathLike) -> pd.DataFrame:
    """Effects of every edit of every cell, from the folder of `scmix.tl.perturb(..., store=)`.

    This is what the tests of :mod:`scmix.statistics.published` take. Everything is read at once.

    Parameters
    ----------
    folder
        Of a finished run.

    Returns
    -------
    One row for each cell and gene or set whose edit changed what is read of the cell: `gene`,
    `symbol`, `species`, `cell`, `donor`, `state` (of the cell), `rank` (mean of the set's genes,
    NaN where it has none of them), `similarity` (cosine between original and perturbed), and
    `towards_<state>`, the movement towards each state, as the formula of the run has it.

    Raises
    ------
    InputError
        There is no such run in the folder, or a file is damaged.

    Examples
    --------
    >>> import tempfile
    >>> import scmix
    >>> from scmix.statistics.published import mixture_model
    >>> adata = scmix.datasets.pbmc3k()[::200].copy()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     scmix.tl.perturb(adata, ["RPL13", "RPS2"], min_cells=2, store=folder)
    ...     values = scmix.effects.read_store(folder)
    >>> sorted(mixture_model(values["symbol"], values["similarity"])["Gene"])
    ['RPL13', 'RPS2']
    """
    paths = sorted(Path(folder).expanduser().glob("*.about.json"))
    if not paths:
        raise InputError(
            f"Found no effects in {folder}; expected the store of scmix.tl.perturb(..., store=)."
        )
    return pd.concat([_read_values(path) for path in paths], ignore_index=True)


def _read_values(path: Path) -> pd.DataFrame:
    try:
        about = json.loads(path.read_text())
        names = {key: np.array(about[key], dtype=str) for key in _NAMES}
        weights = {state: np.array(w) for state, w in about["towards"].items()}
        numbers, dtype = np.array(about["number"], np.int64), record(about["n_probes"])
        rows = np.fromfile(path.with_name(path.name.removesuffix("about.json") + "rows"), dtype)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged. Delete the folder and run again.") from error
    rows = rows[rows["changed"]]
    place = np.searchsorted(numbers, rows["number"])
    columns: dict[str, Any] = {key: names[key][place] for key in ("gene", "symbol")}
    columns["species"] = about["species"]
    columns |= {key: names[key][rows["cell"]] for key in ("cell", "donor", "state")}
    columns |= {key: rows[key].astype(np.float64) for key in ("rank", "similarity")}
    for state, weight in weights.items():
        columns[f"towards_{state}"] = rows["shift"].astype(np.float64) @ weight
    return pd.DataFrame(columns)


_NAMES = ("gene", "symbol", "cell", "donor", "state")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(content))
    os.replace(beside, path)


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text())
        whole = isinstance(state, dict) and set(state) == {"key", "notes", "ends"}
    except ValueError:
        whole = False
    if not whole:
        raise InputError(f"{path} is damaged. Delete the folder and run again.")
    return state
