"""A classifier to and from its checkpoint folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .._errors import ModelFileError
from ..checkpoints import _classifier
from ..checkpoints._labels import head_names
from ..statistics import Calibration
from ._classifier import CellClassifier
from ._heads import Head
from ._records import as_table

if TYPE_CHECKING:
    from os import PathLike

_TRAINING = {
    "n_training": int,
    "n_validation": int,
    "split": str,
    "species": list,
    "base": dict,
    "recipe": dict,
    "scores": dict,
}


def save(classifier: CellClassifier, folder: Path, *, overwrite: bool) -> None:
    """Write the folder of a classifier."""
    heads: dict[str, Tensor] = {}
    arrays = {"cells": torch.from_numpy(classifier.cells.view(np.int64))}
    for i, (key, head) in enumerate(classifier.heads.items()):
        heads |= _head_tensors(i, len(classifier.heads), head)
        if key in classifier.calibration:
            arrays |= _calibration_tensors(i, classifier.calibration[key])
    _classifier.write(
        folder,
        classifier.model,
        heads,
        {name: tensor for name, tensor in arrays.items() if tensor.numel()},
        _labels(classifier),
        recipe=classifier.training["recipe"],
        overwrite=overwrite,
    )


def load(folder: "str | PathLike[str]") -> CellClassifier:
    """Read the folder of a classifier."""
    stored = _classifier.read(folder)
    labels, keys = stored.labels, stored.labels["label_keys"]
    _check_training(labels, folder)
    arrays = {name: tensor.numpy() for name, tensor in stored.arrays.items()}
    return CellClassifier(
        model=stored.model,
        classes={entry["name"]: np.array(entry["classes"], dtype=str) for entry in keys},
        heads={
            entry["name"]: _head(stored.heads, *head_names(i, len(keys)))
            for i, entry in enumerate(keys)
        },
        pool=labels["pool"],
        hidden_layer=labels["hidden_layer"],
        n_genes=labels["n_genes"],
        calibration={
            entry["name"]: _calibration(arrays, i)
            for i, entry in enumerate(keys)
            if entry["n_validation"]
        },
        training=labels["training"],
        history=as_table(labels["history"]),
        cells=arrays.get("cells", np.empty(0, np.int64)).view(np.uint64),
    )


def _check_training(labels: dict[str, Any], folder: "str | PathLike[str]") -> None:
    """What a classifier says of itself when it is printed must be there."""
    about = labels["training"]
    good = all(type(about.get(name)) is kind for name, kind in _TRAINING.items())
    good = good and {"name", "seed"} <= about["recipe"].keys() and "name" in about["base"]
    judged = [entry["name"] for entry in labels["label_keys"] if entry["n_validation"]]
    for key in judged if good else ():
        scores = about["scores"].get(key)
        good = isinstance(scores, dict) and all(
            isinstance(scores.get(name), float) for name in ("accuracy", "macro_f1")
        )
        if not good:
            break
    if not good:
        raise ModelFileError(
            f"{folder} does not say in labels.json how the classifier was trained, expected "
            f"{', '.join(_TRAINING)}. Copy the classifier again."
        )


def _labels(classifier: CellClassifier) -> dict[str, Any]:
    rows = classifier.history.to_dict("records")
    return {
        "label_keys": [
            {
                "name": key,
                "classes": list(map(str, names)),
                "n_validation": _n_validation(classifier, key),
                "has_groups": _n_validation(classifier, key) > 0
                and classifier.calibration[key].groups is not None,
            }
            for key, names in classifier.classes.items()
        ],
        "pool": classifier.pool,
        "hidden_layer": int(classifier.hidden_layer),
        "n_genes": int(classifier.n_genes),
        "gene_votes": any(head.votes is not None for head in classifier.heads.values()),
        "n_cells": int(classifier.cells.size),
        "training": classifier.training,
        # JSON has no NaN
        "history": [{k: None if pd.isna(v) else v for k, v in row.items()} for row in rows],
    }


def _n_validation(classifier: CellClassifier, key: str) -> int:
    return classifier.calibration[key].n_cells if key in classifier.calibration else 0


def _head_tensors(i: int, n_keys: int, head: Head) -> dict[str, Tensor]:
    name, votes = head_names(i, n_keys)
    tensors = {f"{name}.weight": head.weight, f"{name}.bias": head.bias}
    tensors |= {} if head.votes is None else {f"{votes}.weight": head.votes}
    return {name: torch.from_numpy(values) for name, values in tensors.items()}


def _head(tensors: dict[str, Tensor], name: str, votes: str) -> Head:
    table = tensors.get(f"{votes}.weight")
    return Head(
        tensors[f"{name}.weight"].numpy(),
        tensors[f"{name}.bias"].numpy(),
        None if table is None else table.numpy(),
    )


def _calibration_tensors(i: int, calibration: Calibration) -> dict[str, Tensor]:
    found = {
        "temperature": np.array([calibration.temperature], np.float32),
        "logits": calibration.logits,
        "labels": calibration.labels.astype(np.int64),
        "distances": calibration.distances,
        "centroids": calibration.centroids,
        "groups": None if calibration.groups is None else calibration.groups.astype(np.int64),
    }
    return {f"{i}.{k}": torch.from_numpy(v) for k, v in found.items() if v is not None}


def _calibration(arrays: dict[str, np.ndarray], i: int) -> Calibration:
    groups = arrays.get(f"{i}.groups")
    return Calibration(
        temperature=float(arrays[f"{i}.temperature"][0]),
        logits=arrays[f"{i}.logits"],
        labels=arrays[f"{i}.labels"].astype(np.int32),
        distances=arrays[f"{i}.distances"],
        centroids=arrays[f"{i}.centroids"],
        groups=None if groups is None else groups.astype(np.int32),
    )
