"""What a tool is given, as an AnnData that can be read; or the call that would make one of it."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import anndata as ad
import pandas as pd

from scmix._errors import InputError


def opened(adata: ad.AnnData, layer: str | None = None) -> tuple[ad.AnnData, str | None]:
    """The object that cells are read from, and the layer of it.

    This is `adata` itself, or a stand-in that shares its matrices: where `obs` and `var` were
    opened lazily (:func:`anndata.experimental.read_lazy`), with both tables in memory; where
    `layer` is `"raw"` and no layer has that name, with counts and genes of `adata.raw`. Results
    are written to `adata`.

    Raises
    ------
    InputError
        When it is no AnnData; the message names what to pass.
    """
    check_adata(adata)
    raw = adata.raw if layer == "raw" and "raw" not in adata.layers else None
    if raw is None and isinstance(adata.obs, pd.DataFrame) and isinstance(adata.var, pd.DataFrame):
        return adata, layer
    obs, obsm, obsp = _table(adata.obs), dict(adata.obsm), dict(adata.obsp)
    if raw is not None:
        stand_in = ad.AnnData(raw.X, obs=obs, var=_table(raw.var), obsm=obsm, obsp=obsp)
        return stand_in, None
    layers = {name: adata.layers[name] for name in adata.layers if name is not None}
    stand_in = ad.AnnData(
        adata.X, obs=obs, var=_table(adata.var), layers=layers, obsm=obsm, obsp=obsp
    )
    stand_in.uns = adata.uns
    return stand_in, layer


def check_adata(adata: Any) -> None:
    """Refuse what is not an AnnData, by naming the AnnData that it holds."""
    if isinstance(adata, ad.AnnData):
        return
    raise InputError(f"Found {_name(adata)}; expected an AnnData. {_advice(adata)}")


def _name(thing: Any) -> str:
    kind = type(thing).__name__
    return f"the path {str(thing)!r}" if isinstance(thing, str | PathLike) else f"a {kind}"


def _advice(thing: Any) -> str:
    modalities, tables = getattr(thing, "mod", None), getattr(thing, "tables", None)
    if isinstance(modalities, Mapping):
        return _choose(modalities, "mdata", "modalities", "Results are written to it in place.")
    if isinstance(tables, Mapping):
        return _choose(tables, "sdata", "tables", "Results are written to it in place.")
    if isinstance(thing, ad.Raw):
        return 'Pass the AnnData and layer="raw", or adata.raw.to_adata().'
    if isinstance(thing, str | PathLike):
        reader = "read_zarr" if str(thing).rstrip("/").endswith(".zarr") else "read_h5ad"
        return f"Read it first: anndata.{reader}(path)."
    return "Put raw counts into one, cells by genes: anndata.AnnData(counts, obs=..., var=...)."


def _choose(held: Mapping, variable: str, kind: str, ending: str) -> str:
    """Name the tables that hold cells, the likeliest first."""
    names = [str(name) for name, table in held.items() if isinstance(table, ad.AnnData)]
    if not names:
        return f"It has no {kind} that are AnnData."
    likely = min(names, key=lambda name: ("rna" not in name.lower(), names.index(name)))
    others = f" (its {kind}: {', '.join(map(repr, names))})" if len(names) > 1 else ""
    return f"Pass {variable}[{likely!r}]{others}. {ending}"


def _table(frame: Any) -> pd.DataFrame:
    return frame if isinstance(frame, pd.DataFrame) else frame.to_memory()


def check_tables(adata: ad.AnnData) -> None:
    """Refuse tables that were opened lazily, where :func:`opened` was not called."""
    if isinstance(adata.obs, pd.DataFrame) and isinstance(adata.var, pd.DataFrame):
        return
    raise InputError(
        "Found obs and var opened lazily; expected tables in memory. Load these two, the counts "
        "stay where they are: adata.obs, adata.var = adata.obs.to_memory(), adata.var.to_memory()."
    )
