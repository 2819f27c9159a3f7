"""Folders of classifiers: a checkpoint with heads, labels.json and arrays of calibration."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .._errors import IncompatibleModelError
from . import _labels, _manifest
from ._contents import Contents, read_contents
from ._folder import write_folder
from ._model import (
    Model,
    config_text,
    model_of,
    vocabulary_bytes,
)
from ._registry import read_steadily
from ._tensors import read_tensors, weights_bytes


@dataclass(frozen=True, eq=False)
class Stored:
    """What a classifier's folder holds.

    Parameters
    ----------
    model
        The encoder.
    heads
        Weights of the heads by name (:func:`scmix.checkpoints._labels.head_names`).
    arrays
        Arrays of the calibration by name.
    labels
        Content of labels.json.
    """

    model: Model
    heads: dict[str, Tensor]
    arrays: dict[str, Tensor]
    labels: dict[str, Any]


def write(
    folder: str | os.PathLike,
    model: Model,
    heads: Mapping[str, Tensor],
    arrays: Mapping[str, Tensor],
    labels: dict[str, Any],
    *,
    recipe: dict,
    overwrite: bool = False,
) -> None:
    """Save a classifier, whole or not at all.

    With one label key and the pooler, the folder is one of
    `transformers.BertForSequenceClassification`.
    """
    keys = labels["label_keys"]
    classes = keys[0]["classes"] if len(keys) == 1 else None
    files = {
        _manifest.WEIGHTS: weights_bytes({**model.encoder.state_dict(), **heads}),
        _manifest.CONFIG: config_text(model.config, classes),
        _manifest.VOCABULARY: vocabulary_bytes(model.vocabulary),
        _manifest.LABELS: _manifest.to_text(labels, "labels"),
        _manifest.CALIBRATION: weights_bytes(arrays, None),
    }
    _labels.read(files[_manifest.LABELS], Path(_manifest.LABELS))
    files[_manifest.MANIFEST] = _manifest.build(
        files,
        recipe=recipe,
        training_data=list(model.manifest.get("training_data") or []),
        licence=model.manifest.get("licence") or "not stated",
    )
    write_folder(Path(folder).expanduser(), files, overwrite=overwrite, replaceable=_manifest.NAMES)


def read(folder: str | os.PathLike, *, verify: bool = True) -> Stored:
    """Load what :func:`write` saved; every file is checked before it is used."""
    return read_steadily(
        folder, lambda name, path: _read(name, path, verify), is_whole=lambda _: verify
    )


def _read(name: str, folder: Path, verify: bool) -> Stored:
    contents = read_contents(folder, verify=verify)
    if contents.labels is None:
        raise IncompatibleModelError(
            f"{folder} is an encoder without a head: it has no {_manifest.LABELS}. Expected the "
            "folder of a classifier; scmix.tl.fine_tune makes one from this model."
        )
    model, tensors = model_of(name, contents)
    heads = {key: tensors[key] for key in _labels.head_shapes(contents.labels, contents.settings)}
    return Stored(model, heads, _arrays(contents), contents.labels)


def _arrays(contents: Contents) -> dict[str, Tensor]:
    entries, content, _ = contents.calibration()
    return read_tensors(entries, content, contents.folder / _manifest.CALIBRATION)
