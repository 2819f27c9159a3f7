"""The row of a classifier that is fine-tuned on every training part."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ... import _slots, checkpoints, statistics
from .folds import Fold
from .methods import Method, Probabilities, in_class_order, majority

_LABEL = "label"


def fine_tuned(
    model: checkpoints.Model, groups: str | None, reading: Mapping[str, Any], options: Mapping
) -> Method:
    """Method that fine-tunes the model with each fold's seed; probabilities are calibrated.

    Parameters
    ----------
    model
        Where every training starts.
    groups
        Column of donors, by which the classifier sets cells aside.
    reading
        How genes and counts are read, as in `scmix.tl.embed`.
    options
        Of `scmix.tl.fine_tune`.
    """
    # transformers takes seconds to import, which tables without this row need not wait for
    from .._fine_tune import fine_tune
    from .._predictions import predict

    def probabilities(fold: Fold) -> Probabilities:
        known, asked = fold.cells("train"), fold.cells("test")
        within = groups if groups and known.obs[groups].nunique() > 1 else None
        classifier = fine_tune(
            known, _LABEL, groups=within, model=model, seed=fold.seed, **reading, **options
        )
        blocks = _slots.iter_sequences(
            asked, classifier.model.vocabulary, n_genes=classifier.n_genes, **reading
        )
        found = predict(
            classifier, blocks, asked.n_obs, [_LABEL], device=None, dtype="auto", batch_tokens=None
        )
        logits = found.logits[_LABEL]
        occupied = np.isfinite(logits).all(axis=1)
        calibration = classifier.calibration.get(_LABEL)
        temperature = 1.0 if calibration is None else calibration.temperature
        out = majority(fold)
        chances = statistics.probabilities(logits[occupied], temperature)
        out[occupied] = in_class_order(chances, classifier.classes[_LABEL], fold)
        return out

    return Method(f"{model.name}, fine-tuned", "classifier", "scmix", probabilities, seeded=True)
