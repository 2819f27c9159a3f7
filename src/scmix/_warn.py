"""Warnings that point at the line of the user's that led to them."""

import sys
import warnings
from types import FrameType


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the first caller outside scmix."""
    warnings.warn(text, category, stacklevel=_outside())


def _outside() -> int:
    """Stack level, as `warn` counts it, of the first caller outside scmix."""
    level = 2
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("scmix"):
        level, frame = level + 1, frame.f_back
    return level
