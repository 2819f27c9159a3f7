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
    vectors = [source.vectors(states.cells[fold.cells], fold.reader) for fold in folds]
    has_genes = np.zeros(len(states.cells), bool)
    for fold, own in zip(folds, vectors, strict=True):
        has_genes[fold.cells] = own.finite()
    codes, made = source.codes[states.cells], {}
    for code in np.unique(codes):
        here = (codes == code) & has_genes
        check_every_state(states[here], SPECIES[code])
        parts = [replace(fold, cells=fold.cells[here]) for fold in folds]
        of_parts = [own[here[fold.cells]] for fold, own in zip(folds, vectors, strict=True)]
        made[SPECIES[code]] = score_species(
            options, parts, int(code), states[here], of_parts, source
        )
    result = joined(made, options.described, source.adata)
    say(result)
    return result
