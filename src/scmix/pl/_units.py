"""Small numbers in a power of ten, so that what is written in a figure stays short."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axis import Axis

_SHORT = 0.01  # from here on numbers are written as they are


def power_of(largest: float) -> int:
    """The power of ten in which numbers of this size are written; 0: as they are."""
    if not math.isfinite(largest) or largest <= 0 or largest >= _SHORT:
        return 0
    return math.floor(math.log10(largest))


def in_units(label: str, power: int) -> str:
    """A label that names the power of ten."""
    if not power:
        return label
    unit = f"$10^{{{power}}}$"
    return f"{label[:-1]}, {unit})" if label.endswith(")") else f"{label} ({unit})"


def write_in(axis: "Axis", power: int) -> None:
    """Write the numbers of an axis in a power of ten."""
    if power:
        axis.set_major_formatter(lambda x, _: f"{x / 10.0**power:g}".replace("-", "\N{MINUS SIGN}"))
