"""What is asked of `tl.perturb`, checked before any work is done."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._errors import InputError
from ...perturbations import Edit
from ._genes import GeneSets, tokens_of
from ._source import Source
from ._states import States

logger = logging.getLogger("scmix")

_SCREEN = 200  # genes run exactly when it is not said


def check_choices(effects: str, limits: dict[str, int | None]) -> None:
    """Refuse what does not exist."""
    if effects not in ("cells", "genes"):
        raise InputError(f"Found effects={effects!r}; expected 'cells' or 'genes'.")
    for name, value in limits.items():
        if value is not None and value < 1:
            raise InputError(f"Found {name}={value}; expected at least 1.")


def checked_screen(
    screen: Any, sets: GeneSets, edit: Edit, effects: str, *, has_goal: bool
) -> int | None:
    """How many genes are run exactly after a screen; None: all, without one."""
    reasons = {
        "a list of genes": sets.names is not None,
        "an anchor": sets.anchor is not None,
        f"kind={edit.kind!r}": edit.kind != "delete",
        "effects='genes'": effects == "genes",
        "no states": not has_goal,
    }
    against = [reason for reason, holds in reasons.items() if holds]
    if screen is None:
        return None
    if screen == "auto":
        if against and sets.names is None:
            logger.info("All genes are run exactly: there are no estimates for %s.", against[0])
        return None if against else _SCREEN
    if not isinstance(screen, int) or screen < 1:
        raise InputError(f"Found screen={screen!r}; expected 'auto', None, or at least 1.")
    if against:
        raise InputError(
            f"Found screen={screen} with {' and '.join(against)}; estimates are made for deletions "
            "of all genes, one by one, towards a goal. Pass screen=None to run all exactly, and "
            "a list of genes or a lower max_cells if that takes too long."
        )
    return screen


def check_genes(sets: GeneSets, vectors_of: Sequence[str], source: Source, states: States) -> None:
    """Refuse genes that a species does not have."""
    species = np.unique(source.codes[states.cells])
    if len(vectors_of) and species.size > 1:
        raise InputError("Found vectors_of= for two species; expected one. Perturb them apart.")
    for code in species:
        sets.tokens(source.vocabulary, code)
        sets.anchor_token(source.vocabulary, code)
        tokens_of(list(vectors_of), source.vocabulary, code)
