"""One file of a corpus: what the user says about it, and how it is read without loading it."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import pandas as pd

from ..._errors import InputError, MissingKeyError
from .._store import ORGAN, file_sha256

RAW = "raw"
_ENDINGS = (".h5ad", ".zarr")


@dataclass(frozen=True)
class Source:
    """One h5ad or zarr file of a corpus, and how to read it.

    Parameters
    ----------
    path
        The file, or the folder of a zarr store.
    name
        Name of the data set; None: the file's name without ending. Two files of the same name
        are refused.
    species
        "human" or "mouse"; None: recognised from the genes.
    species_key
        Column of ``obs`` with each cell's species, for a file with both.
    layer
        Layer with the raw counts; None: ``X``; ``"raw"`` also means ``.raw``, with its own genes.
    gene_ids
        Column of ``var`` with Ensembl ids or symbols; None: found by itself.
    organ
        Organ that all cells are from; sampling is balanced over data sets and organs.
    organ_key
        Column of ``obs`` with each cell's organ, for a file with several.
    keep
        Columns of ``obs`` to keep, with few different values each (cell type, donor, assay): their
        names, or names in the corpus with the names in the file, as
        ``{"cell_type": "author_cell_type"}``.
    doublet_key
        Column of ``obs`` that marks doublets, which are left out: true or false, 1 or 0,
        "doublet" or "singlet".
    cell_key
        Column of ``obs`` that names a cell across files, such as its barcode, for files that
        share cells but not genes. Cells named before in the same ``family`` are left out.
    family
        Which files share the names in ``cell_key``.
    allow_noninteger
        Accept fractional counts, such as those corrected for ambient RNA.

    Examples
    --------
    >>> from scmix.pretrain import Source
    >>> Source("atlas/heart.h5ad", layer="raw", organ="heart", keep=["donor_id"]).dataset
    'heart'
    """

    path: str | PathLike[str]
    name: str | None = None
    species: str | None = None
    species_key: str | None = None
    layer: str | None = None
    cell_key: str | None = None
    family: str = ""
    gene_ids: str | None = None
    organ: str | None = None
    organ_key: str | None = None
    keep: Sequence[str] | Mapping[str, str] = ()
    doublet_key: str | None = None
    allow_noninteger: bool = False

    def __post_init__(self) -> None:
        if self.organ is not None and self.organ_key is not None:
            raise InputError(
                f"Found organ={self.organ!r} and organ_key={self.organ_key!r} for {self.path}; "
                "pass one of them."
            )
        if isinstance(self.keep, str):
            raise InputError(f"Found keep={self.keep!r}; expected a list: keep=[{self.keep!r}].")
        if ORGAN in self._named and (self.organ or self.organ_key):
            raise InputError(f"{self.path}: the organ is given twice, by organ and in keep.")

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        if self.name:
            return self.name
        name = Path(self.path).name
        return next((name.removesuffix(end) for end in _ENDINGS if name.endswith(end)), name)

    @property
    def columns(self) -> dict[str, str]:
        """Columns to keep: name in the corpus, name in ``obs``."""
        return {**self._named, ORGAN: self.organ_key} if self.organ_key else self._named

    @property
    def _named(self) -> dict[str, str]:
        return dict(self.keep) if isinstance(self.keep, Mapping) else {n: n for n in self.keep}

    def settings(self) -> dict[str, Any]:
        """All that was said about the file, as JSON can hold it."""
        return {**asdict(self), "path": str(Path(self.path).resolve()), "keep": self._named}


def check_sources(sources: list[Source]) -> None:
    """Refuse an empty list, equal names, and files that are not there."""
    names = [source.dataset for source in sources]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if not sources or repeated:
        found = f"these data sets more than once: {', '.join(repeated)}" if sources else "no files"
        raise InputError(f"Found {found}; expected one or more files with different names.")
    missing = [str(source.path) for source in sources if not Path(source.path).exists()]
    if missing:
        raise InputError(f"These files do not exist: {', '.join(missing)}.")


def stamp(path: Path) -> dict[str, int]:
    """Size and time of the last change: whether a file is still what it was."""
    stats = [file.stat() for file in _files(path)]
    return {
        "bytes": sum(stat.st_size for stat in stats),
        "mtime_ns": max((stat.st_mtime_ns for stat in stats), default=0),
    }


def source_sha256(path: Path) -> str:
    """SHA-256 of a file; of a zarr store, that of the names and hashes of its files."""
    if path.is_file():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(f"{file.relative_to(path).as_posix()} {file_sha256(file)}\n".encode())
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


@contextmanager
def open_source(source: Source) -> Iterator[tuple[ad.AnnData, str | None]]:
    """The file as an AnnData whose matrices stay on disk, and the layer with the counts."""
    with _open_group(Path(source.path)) as group:
        layers = group.get("layers", {})
        raw = source.layer == RAW and RAW in group and RAW not in layers
        tables = group[RAW] if raw else group
        adata = ad.AnnData(
            X=_lazy(tables["X"]) if "X" in tables else None,
            obs=ad.io.read_elem(group["obs"]),
            var=ad.io.read_elem(tables["var"]),
            layers={} if raw else {name: _lazy(layers[name]) for name in layers},
        )
        try:
            yield adata, None if raw else source.layer
        except InputError as error:
            other = RAW in group and source.layer is None
            hint = ' The file has .raw: Source(..., layer="raw") reads that.' if other else ""
            raise type(error)(f"{source.path}: {error}{hint}") from error


@contextmanager
def _open_group(path: Path) -> Iterator[Any]:
    try:
        if path.is_dir():
            import zarr

            group = zarr.open_group(path, mode="r")
        else:
            group = h5py.File(path, "r")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no readable h5ad or zarr file: {error}.") from error
    try:
        if "obs" not in group or "var" not in group:
            raise InputError(f"{path} holds no AnnData; it has {', '.join(group)}.")
        yield group
    finally:
        if isinstance(group, h5py.File):
            group.close()


def _lazy(element: Any) -> Any:
    return element if hasattr(element, "shape") else ad.io.sparse_dataset(element)


def obs_column(adata: ad.AnnData, name: str) -> pd.Series:
    """A column of ``obs``, or an error that names those there are."""
    if name not in adata.obs:
        raise MissingKeyError(
            f"Found no column {name!r} in obs; it has {', '.join(adata.obs.columns)}."
        )
    return adata.obs[name]
