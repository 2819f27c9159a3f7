"""A classifier from a trained network: weights, calibration, and what it was made from."""

from typing import Any

import numpy as np
import pandas as pd

from ..batches import Sequences
from ..checkpoints import Model
from ..checkpoints._model import weights_sha256
from ..genes import SPECIES
from ..statistics import Calibration, class_centroids, fit_temperature, nearest_centroid
from ._cells import Cells
from ._classifier import CellClassifier
from ._heads import Head
from ._network import Network
from ._recipes import Recipe
from ._seen import fingerprints
from ._validation import scores

Vectors = tuple[np.ndarray, np.ndarray]  # rows of cells, and what the encoder makes of these cells


def build(
    network: Network,
    base: Model,
    cells: Cells,
    whole: Sequences,
    recipe: Recipe,
    n_genes: int,
    history: pd.DataFrame,
    about: dict[str, Any],
    known: Vectors | None,
    *,
    device: str,
) -> CellClassifier:
    """Read the heads of a trained network, and calibrate them on the cells set aside.

    Vectors of `known` are those of this encoder and not computed again.
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
    logits, vectors = _predicted(classifier, cells, whole, known, device)
    for i, key in enumerate(keys):
        _calibrate(classifier, key, cells, cells.labels.codes[:, i], logits[key], vectors)
    return classifier


def _predicted(
    classifier: CellClassifier, cells: Cells, whole: Sequences, known: Vectors | None, device: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Logits of the cells that calibrate, vectors of those and the training's; NaN for others."""
    vectors = np.full((len(whole), classifier.model.config.hidden_size), np.nan, np.float32)
    missing = cells.calibrates | ~cells.aside
    if known is not None:
        rows, found = known
        vectors[rows], missing[rows] = found, False
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
    codes: np.ndarray,
    logits: np.ndarray,
    vectors: np.ndarray,
) -> None:
    """Measure temperature, distances and scores of a key on the cells that calibrate."""
    used = cells.calibrates & (codes >= 0)
    if not used.any():
        return
    centroids = class_centroids(
        vectors[~cells.aside], codes[~cells.aside], classifier.classes[key].size
    )
    classifier.training["scores"][key] = {
        "n_cells": int(used.sum()),
        **scores(codes[used], logits[used]),
    }
    classifier.calibration[key] = Calibration(
        # as a file holds it
        temperature=float(np.float32(fit_temperature(logits[used], codes[used]))),
        logits=logits[used],
        labels=codes[used],
        distances=nearest_centroid(vectors[used], centroids)[1],
        centroids=centroids,
        groups=None if cells.groups is None else cells.groups[used].astype(np.int32),
    )


def _about(base: Model, cells: Cells, recipe: Recipe, about: dict[str, Any]) -> dict[str, Any]:
    chosen = recipe.epochs > 0 and recipe.keep == "best"
    return {
        "base": {"name": base.name, "sha256": base.sha256},
        "label_keys": list(cells.labels.classes),
        "species": [SPECIES[code] for code in np.unique(cells.species)],
        "n_training": int((~cells.aside).sum()),
        "n_validation": int(cells.calibrates.sum()),
        "n_choosing": int(cells.chooses.sum()) if chosen else 0,
        "chosen_apart": bool(chosen and not (cells.chooses & cells.calibrates).any()),
        "rare_classes_left_out": cells.labels.dropped,
        "split": "given",
        "recipe": recipe.to_dict(),
        "scores": {},
        **about,
    }
