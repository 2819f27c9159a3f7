"""A classifier from a trained network: weights, calibration, and what it was made from."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..batches import Sequences
from ..checkpoints import Model
from ..checkpoints._model import weights_sha256
from ..genes import SPECIES
from ..statistics import Calibration, class_centroids, fit_temperature, nearest_centroid
from ._cells import Cells
from ._classifier import CellClassifier
from ._heads import Head, Judged
from ._network import Network
from ._recipes import Recipe
from ._seen import fingerprints
from ._validation import scores


class Start(NamedTuple):
    """What heads were fitted on.

    Parameters
    ----------
    rows
        Cells for training.
    vectors
        What the encoder makes of them.
    judged
        For each key, what heads say of them that were fitted on others.
    """

    rows: np.ndarray
    vectors: np.ndarray
    judged: list[Judged]


def build(
    network: Network,
    base: Model,
    cells: Cells,
    whole: Sequences,
    recipe: Recipe,
    n_genes: int,
    history: pd.DataFrame,
    about: dict[str, Any],
    start: Start | None,
    *,
    device: str,
) -> CellClassifier:
    """Read the heads of a trained network, and calibrate them.

    That is done on the cells set aside; where there are none, by the cross-validation of `start`.
    Given a `start`, encoder and heads are still those; its vectors are not computed again.
    """
    keys = tuple(cells.labels.classes)
    encoder = network.encoder.to("cpu").eval().requires_grad_(True)
    marks, comparable = fingerprints(whole)
    classifier = CellClassifier(
        model=Model(
            encoder,
            base.vocabulary,
            {key: base.manifest.get(key) for key in ("recipe", "training_data", "licence")},
            f"{base.name}-{'-'.join(keys)}",
            weights_sha256(encoder),
        ),
        classes=cells.labels.classes,
        heads=dict(zip(keys, _heads(network), strict=True)),
        pool=network.pool,
        hidden_layer=network.hidden_layer,
        n_genes=n_genes,
        calibration={},
        training=_about(base, cells, recipe, about),
        history=history,
        cells=np.unique(marks[comparable]),
    )
    logits, vectors = _predicted(classifier, cells, whole, start, device)
    judged = [_calibrate(classifier, key, cells, logits[key], vectors, start) for key in keys]
    classifier.training["n_validation"] = int(np.unique(np.concatenate(judged)).size)
    return classifier


def _predicted(
    classifier: CellClassifier, cells: Cells, whole: Sequences, start: Start | None, device: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Logits of the cells that calibrate, vectors of those and the training's; NaN for others."""
    vectors = np.full((len(whole), classifier.model.config.hidden_size), np.nan, np.float32)
    missing = cells.calibrates | ~cells.aside
    if start is not None:
        vectors[start.rows], missing[start.rows] = start.vectors, False
    parts, vectors[missing] = classifier.predict(whole[np.flatnonzero(missing)], device=device)
    logits = {}
    for key, part in parts.items():
        logits[key] = np.full((len(whole), part.shape[1]), np.nan, np.float32)
        logits[key][missing] = part
    return logits, vectors


def _heads(network: Network) -> list[Head]:
    votes = list(network.votes) or [None] * len(network.heads)
    return [
        Head(
            head.weight.detach().cpu().numpy().copy(),
            head.bias.detach().cpu().numpy().copy(),
            None if table is None else table.detach().cpu().numpy().copy(),
        )
        for head, table in zip(network.heads, votes, strict=True)
    ]


def _calibrate(
    classifier: CellClassifier,
    key: str,
    cells: Cells,
    logits: np.ndarray,
    vectors: np.ndarray,
    start: Start | None,
) -> np.ndarray:
    """Measure temperature, distances and scores of a key; the cells that did it."""
    i, taught = classifier.label_keys.index(key), ~cells.aside
    codes = cells.labels.codes[:, i]
    centroids = class_centroids(vectors[taught], codes[taught], classifier.classes[key].size)
    rows = np.flatnonzero(cells.calibrates & (codes >= 0))
    if start is not None and not cells.aside.any():
        known = np.isfinite(start.judged[i].distances)
        rows, found = start.rows[known], Judged(*(x[known] for x in start.judged[i]))
    elif rows.size:
        found = Judged(logits[rows], nearest_centroid(vectors[rows], centroids)[1])
    if not rows.size:
        return rows
    classifier.training["scores"][key] = {
        "n_cells": int(rows.size),
        **scores(codes[rows], found.logits),
    }
    classifier.calibration[key] = Calibration(
        # as a file holds it
        temperature=float(np.float32(fit_temperature(found.logits, codes[rows]))),
        logits=found.logits,
        labels=codes[rows],
        distances=found.distances,
        centroids=centroids,
        groups=None if cells.groups is None else cells.groups[rows].astype(np.int32),
    )
    return rows


def _about(base: Model, cells: Cells, recipe: Recipe, about: dict[str, Any]) -> dict[str, Any]:
    chosen = recipe.epochs > 0 and recipe.keep == "best"
    return {
        "base": {"name": base.name, "sha256": base.sha256},
        "label_keys": list(cells.labels.classes),
        "species": [SPECIES[code] for code in np.unique(cells.species)],
        "n_training": int((~cells.aside).sum()),
        "n_validation": 0,
        "n_choosing": int(cells.chooses.sum()) if chosen else 0,
        "chosen_apart": bool(chosen and not (cells.chooses & cells.calibrates).any()),
        "rare_classes_left_out": cells.labels.dropped,
        "split": "given",
        "recipe": recipe.to_dict(),
        "scores": {},
        **about,
    }
