"""Cells read by their encoders, species scored one by one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...genes import SPECIES
from ._analysis import Options
from ._models import Fold
from ._result import joined, say
from ._source import Source
from ._species import score_species
from ._states import States, check_every_state


def score(
    options: Options, folds: Sequence[Fold], states: States, source: Source
) -> dict[str, Any]:
    """The whole result, and what is said about it."""
    width = folds[0].reader.model.config.hidden_size
    vectors = np.empty((len(states.cells), width), np.float32)
    for fold in folds:
        vectors[fold.cells] = source.vectors(states.cells[fold.cells], fold.reader)
    codes, made = source.codes[states.cells], {}
    for code in np.unique(codes):
        here = (codes == code) & np.isfinite(vectors[:, 0])
        check_every_state(states[here], SPECIES[code])
        parts = [replace(fold, cells=fold.cells[here]) for fold in folds]
        made[SPECIES[code]] = score_species(
            options, parts, int(code), states[here], vectors[here], source
        )
    result = joined(made, options.described, source.adata)
    say(result)
    return result
