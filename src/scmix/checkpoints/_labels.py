"""labels.json: the classes of a classifier, how it reads cells, and what it was made from."""

from pathlib import Path
from typing import Any

from .._errors import ModelFileError
from ._files import parse_json

MAX_BYTES = 2**24
POOLS = ("mean", "pooler")
_MAX_CLASSES = 100_000
_TYPES = {
    "label_keys": list,
    "pool": str,
    "hidden_layer": int,
    "n_genes": int,
    "gene_votes": bool,
    "n_cells": int,
    "training": dict,
    "history": list,
}
_KEY_TYPES = {"name": str, "classes": list, "n_validation": int, "has_groups": bool}


def read(raw: bytes, path: Path) -> dict[str, Any]:
    """A labels.json with every field that scmix relies on checked."""
    labels = parse_json(raw, path)
    _check_types(labels, _TYPES, path)
    names = [entry.get("name") for entry in labels["label_keys"] if isinstance(entry, dict)]
    if not names or len(names) != len(labels["label_keys"]) or len(set(names)) < len(names):
        raise _wrong(path, "label_keys", names, "one or several different keys")
    for entry in labels["label_keys"]:
        _check_key(entry, path)
    if not all(isinstance(record, dict) for record in labels["history"]):
        raise _wrong(path, "history", labels["history"], "a list of records")
    if labels["pool"] not in POOLS:
        raise _wrong(path, "pool", labels["pool"], f"one of {', '.join(POOLS)}")
    for name in ("hidden_layer", "n_genes", "n_cells"):
        if not 0 <= labels[name] < 2**31:
            raise _wrong(path, name, labels[name], "a number that is not negative")
    return labels


def head_shapes(labels: dict[str, Any], settings: dict) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of the heads, as labels.json describes them."""
    shapes: dict[str, tuple[int, ...]] = {}
    width, n_tokens = settings["hidden_size"], settings["vocab_size"]
    for i, entry in enumerate(labels["label_keys"]):
        head, votes = head_names(i, len(labels["label_keys"]))
        n = len(entry["classes"])
        shapes |= {f"{head}.weight": (n, width), f"{head}.bias": (n,)}
        shapes |= {f"{votes}.weight": (n_tokens, n)} if labels["gene_votes"] else {}
    return shapes


def calibration_shapes(labels: dict[str, Any], settings: dict) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array that a classifier is calibrated by."""
    shapes: dict[str, tuple[int, ...]] = (
        {"cells": (labels["n_cells"],)} if labels["n_cells"] else {}
    )
    for i, entry in enumerate(labels["label_keys"]):
        n, n_classes = entry["n_validation"], len(entry["classes"])
        if not n:
            continue
        shapes |= {
            f"{i}.temperature": (1,),
            f"{i}.logits": (n, n_classes),
            f"{i}.labels": (n,),
            f"{i}.distances": (n,),
            f"{i}.centroids": (n_classes, settings["hidden_size"]),
        }
        shapes |= {f"{i}.groups": (n,)} if entry["has_groups"] else {}
    return shapes


def head_names(i: int, n_keys: int) -> tuple[str, str]:
    """Names of the head and the votes of a label key; a single head as in transformers."""
    return ("classifier", "votes") if n_keys == 1 else (f"classifiers.{i}", f"votes.{i}")


def _check_key(entry: dict[str, Any], path: Path) -> None:
    _check_types(entry, _KEY_TYPES, path)
    classes = entry["classes"]
    if not all(isinstance(name, str) and 0 < len(name) <= 1_000 for name in classes):
        raise _wrong(path, "classes", classes, "names")
    if len(set(classes)) < len(classes) or not 2 <= len(classes) <= _MAX_CLASSES:
        raise _wrong(path, "classes", classes, "two or more different names")
    if not 0 <= entry["n_validation"] < 2**31:
        raise _wrong(path, "n_validation", entry["n_validation"], "a number of cells")


def _check_types(content: dict[str, Any], types: dict[str, type], path: Path) -> None:
    if content.keys() != types.keys():
        raise _wrong(path, "keys", sorted(content), ", ".join(sorted(types)))
    for name, kind in types.items():
        if type(content[name]) is not kind:
            raise _wrong(path, name, content[name], kind.__name__)


def _wrong(path: Path, name: str, found: object, expected: str) -> ModelFileError:
    return ModelFileError(
        f"{path} has {name} {str(found)[:120]!r}, expected {expected}. Copy the classifier again."
    )
