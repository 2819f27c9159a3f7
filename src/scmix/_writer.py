"""The one place that changes an AnnData: everything a call made, at its very end, or nothing."""

import logging
from collections.abc import Collection, Mapping
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from scmix._errors import InputError

logger = logging.getLogger("scmix")

_SLOTS = ("obs", "var", "obsm", "varm", "layers", "uns")


def params(**options: Any) -> dict[str, Any]:
    """Options of a call for `uns[key]["params"]`, with the scmix version; None is left out."""
    from scmix import __version__

    plain = {name: _plain(value) for name, value in options.items() if value is not None}
    return {"scmix_version": __version__, **plain}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    return value


def write(
    adata: ad.AnnData,
    updates: Mapping[tuple[str, str], Any],
    overwrite: bool = False,
    *,
    replaceable: Collection[tuple[str, str]] = (),
    stale: Collection[tuple[str, str]] = (),
) -> None:
    """Write all results of a call, or none.

    Parameters
    ----------
    adata
        Where to write.
    updates
        Values by slot and key: `{("obsm", "X_scmix"): array, ("uns", "X_scmix"): {...}}`.
    overwrite
        Replace what is there. What scmix wrote under the same `.uns` key is replaced anyway, so
        that a notebook cell can be run again.
    replaceable
        Slots and keys that the caller has found fit to be replaced.
    stale
        Slots and keys of an earlier call, which are removed.

    Raises
    ------
    InputError
        When a key exists already, or a value does not fit its slot or cannot be saved.
    """
    for (slot, key), value in updates.items():
        _check_update(adata, slot, key, value)
        taken = key in getattr(adata, slot) and (slot, key) not in replaceable
        taken = taken and not _is_same(adata, slot, key, value)
        if taken and not overwrite and not _is_rerun(adata, slot, key, updates):
            raise InputError(
                f'{slot}["{key}"] exists already. Pass overwrite=True, or another key_added.'
            )
    undo: list[tuple[str, str, bool, Any]] = []
    try:
        for (slot, key), value in updates.items():
            held = getattr(adata, slot)
            undo.append((slot, key, key in held, held.get(key)))
            held[key] = value.array if isinstance(value, pd.Series) else value
        for slot, key in stale:
            undo.append((slot, key, True, getattr(adata, slot)[key]))
            del getattr(adata, slot)[key]
    except BaseException:  # Ctrl-C as well
        _restore(adata, undo)
        raise
    logger.info("added %s", ", ".join(f'{slot}["{key}"]' for slot, key in updates))


def _restore(adata: ad.AnnData, undo: list[tuple[str, str, bool, Any]]) -> None:
    for slot, key, existed, old in reversed(undo):
        held = getattr(adata, slot)
        if existed:
            held[key] = old
        elif key in held:
            del held[key]


def _check_update(adata: ad.AnnData, slot: str, key: str, value: Any) -> None:
    if slot not in _SLOTS:
        raise InputError(f"Found slot {slot!r}; expected one of {_SLOTS}.")
    if not isinstance(key, str) or not key or "/" in key:
        raise InputError(f"Found the key {key!r}; expected text without '/'.")
    if slot == "uns":
        _check_writable(value, f'uns["{key}"]')
        return
    expected = adata.shape if slot == "layers" else adata.shape[:1]
    if slot in ("var", "varm"):
        expected = adata.shape[1:]
    if tuple(np.shape(value))[: len(expected)] != expected:
        raise InputError(f'{slot}["{key}"] has shape {np.shape(value)}; expected {expected}.')


def _check_writable(value: Any, path: str) -> None:
    """Refuse what h5ad and zarr files cannot hold."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str) or not key or "/" in key:
                raise InputError(f"Found the key {key!r} in {path}; expected text without '/'.")
            _check_writable(item, f"{path}[{key!r}]")
    elif isinstance(value, list):
        kinds = {type(item) for item in value}
        if len(kinds) > 1 or not kinds <= {str, bool, int, float}:
            raise InputError(f"{path} is a mixed or nested list, which files cannot hold.")
    elif isinstance(value, np.ndarray) and value.dtype.kind == "O":
        raise InputError(f"{path} is an array of objects, which files cannot hold.")
    elif not isinstance(value, str | bool | int | float | np.generic | np.ndarray | pd.DataFrame):
        raise InputError(f"{path} is a {type(value).__name__}, which files cannot hold.")


def is_ours(entry: Any) -> bool:
    """Whether scmix wrote this entry of `.uns`."""
    made = entry.get("params") if isinstance(entry, Mapping) else None
    return isinstance(made, Mapping) and "scmix_version" in made


def _is_rerun(
    adata: ad.AnnData, slot: str, key: str, updates: Mapping[tuple[str, str], Any]
) -> bool:
    """Whether scmix wrote this key in an earlier call of the same kind."""
    if (slot, key) == ("var", "scmix_token"):
        return True
    owners = [name for place, name in updates if place == "uns" and is_ours(adata.uns.get(name))]
    return any(key == name or key.startswith(f"{name}_") for name in owners)


def _is_same(adata: ad.AnnData, slot: str, key: str, value: Any) -> bool:
    """Whether a column holds the values already."""
    if slot not in ("obs", "var"):
        return False
    old, new = np.asarray(getattr(adata, slot)[key]), np.asarray(value)
    return old.shape == new.shape and bool(np.all(old.astype(str) == new.astype(str)))
