"""Cells in a file: read lazily, and written with what a command added, whole or not at all."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import pandas as pd
import zarr
from anndata.io import read_elem, sparse_dataset, write_elem

from .._errors import InputError
from ._output import CELLS, check_ending

_TABLES = ("obsm", "obsp", "varm", "varp", "uns")
_WRITTEN = ("obsm", "uns")  # where commands put results, beside columns of obs

Group = Any  # of h5py or zarr


@dataclass(frozen=True, eq=False)
class CellFile:
    """A file of cells, opened.

    Parameters
    ----------
    path
        The file, or the folder of a zarr store.
    adata
        What it holds. Counts stay in the file and are read in blocks.
    """

    path: Path
    adata: ad.AnnData
    _obs: pd.DataFrame
    _held: dict[str, dict[str, Any]]

    def write(self, target: Path) -> None:
        """Write the cells with everything that was added to `adata`, as `target`'s name says."""
        if self.path.suffix == target.suffix and _is_new_format(self.path):
            _copy(self.path, target)
            with _group(target, "r+") as group:
                self._write_added(group)
            return
        full = _read_whole(self.path)
        full.obs = self.adata.obs
        for slot in _WRITTEN:
            setattr(full, slot, dict(getattr(self.adata, slot)))
        if target.suffix == ".zarr":
            full.write_zarr(target)
        else:
            full.write_h5ad(target, compression="gzip")

    def _write_added(self, group: Group) -> None:
        for slot in _WRITTEN:
            now, before = getattr(self.adata, slot), self._held[slot]
            for key in before.keys() - now.keys():
                del group[slot][key]
            for key, value in now.items():
                if value is not before.get(key):
                    _write(group[slot], key, value)
        obs, before = self.adata.obs, self._obs
        for key in before.columns.difference(obs.columns):
            del group["obs"][key]
        for key in obs.columns:
            if key not in before or not obs[key].equals(before[key]):
                _write(group["obs"], key, _plain(obs[key]))
        if list(obs.columns) != list(before.columns):
            group["obs"].attrs["column-order"] = list(obs.columns)


@contextmanager
def opened(path: str) -> Iterator[CellFile]:
    """Open a file of cells."""
    file = Path(path).expanduser()
    check_ending(file, CELLS, "input")
    if not file.exists():
        raise InputError(f"There is no {file}. Expected an .h5ad file or a .zarr folder.")
    if not _is_new_format(file):
        yield _cell_file(file, _read_whole(file))
        return
    with _group(file, "r") as group:
        yield _cell_file(file, _lazily(group, file))


def _cell_file(path: Path, adata: ad.AnnData) -> CellFile:
    held = {slot: dict(getattr(adata, slot)) for slot in _WRITTEN}
    return CellFile(path, adata, adata.obs.copy(), held)


def _lazily(group: Group, path: Path) -> ad.AnnData:
    """An AnnData whose matrices of cells by genes stay in the file."""
    try:
        parts: dict[str, Any] = {
            slot: read_elem(group[slot]) for slot in ("obs", "var", *_TABLES) if slot in group
        }
        if "X" in group:
            parts["X"] = _matrix(group["X"])
        if "layers" in group:
            parts["layers"] = {key: _matrix(group["layers"][key]) for key in group["layers"]}
        raw = group.get("raw")
        if raw is not None and raw.attrs.get("encoding-type") == "raw":
            parts["raw"] = {"X": _matrix(raw["X"]), "var": read_elem(raw["var"])}
        return ad.AnnData(**parts)
    except Exception as error:
        raise _unreadable(path, error) from error


def _matrix(element: Group) -> Any:
    """A matrix that is read when it is used; what is no plain matrix is read at once."""
    kind = element.attrs.get("encoding-type", "array")
    if kind in ("csr_matrix", "csc_matrix"):
        return sparse_dataset(element)
    return element if kind == "array" else read_elem(element)


def _read_whole(path: Path) -> ad.AnnData:
    try:
        return ad.read_zarr(path) if path.suffix == ".zarr" else ad.read_h5ad(path)
    except Exception as error:
        raise _unreadable(path, error) from error


def _is_new_format(path: Path) -> bool:
    """Whether the parts of the file say what they are, as since anndata 0.8."""
    with _group(path, "r") as group:
        return "encoding-type" in group.attrs


@contextmanager
def _group(path: Path, mode: Any) -> Iterator[Group]:
    if path.suffix == ".h5ad":
        try:
            file = h5py.File(path, mode)
        except OSError as error:
            raise _unreadable(path, error) from error
        with file:
            yield file
        return
    try:
        group = zarr.open_group(path, mode=mode, use_consolidated=False)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    yield group
    if mode != "r" and _is_consolidated(path):
        zarr.consolidate_metadata(group.store)


def _is_consolidated(path: Path) -> bool:
    return zarr.open_group(path, mode="r").metadata.consolidated_metadata is not None


def _unreadable(path: Path, error: Exception) -> InputError:
    lines = str(error).strip().splitlines()
    reason = lines[0].rstrip(".") if lines else type(error).__name__
    return InputError(
        f"{path} cannot be read: {reason}. Expected a file "
        "that AnnData has written (adata.write_h5ad or adata.write_zarr). Copy or write it again."
    )


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
        os.chmod(target, 0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _plain(column: pd.Series) -> Any:
    values = column.array
    return values.to_numpy() if isinstance(values, pd.arrays.NumpyExtensionArray) else values


def _write(group: Group, key: str, value: Any) -> None:
    if key in group:
        del group[key]
    write_elem(group, key, dict(value) if isinstance(value, Mapping) else value)
