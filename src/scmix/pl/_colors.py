"""One colour per category, the same in every panel."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.colors import to_hex

from .._errors import InputError

# Okabe & Ito (2008), told apart by the colour-blind; ordered so that neighbours differ in grey
# and the pale yellow comes last.
OKABE_ITO = (
    "#0072b2",
    "#e69f00",
    "#000000",
    "#56b4e9",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#f0e442",
)
# Twelve more, each the farthest in CIELAB from all before it, from white and from MISSING, in the
# sight (normal or colour-blind) in which it comes closest to one of them.
MORE = (
    "#8700f0",
    "#692d0f",
    "#3c3c4b",
    "#9678ff",
    "#f0004b",
    "#96d287",
    "#4b3cb4",
    "#692d78",
    "#5af069",
    "#69693c",
    "#a53c78",
    "#a53c0f",
)
MISSING = "#d3d3d3"

Palette = Mapping[str, str] | Sequence[str]


def category_colors(names: Sequence[str], palette: Palette | None = None) -> dict[str, str]:
    """Colour of each category as a hex string; a given palette is cycled or looked up."""
    if isinstance(palette, Mapping):
        lacking = [name for name in names if name not in palette]
        if lacking:
            raise InputError(
                f"Found no colour for {', '.join(map(repr, lacking))} in `palette`; expected one "
                "for every category. Add them, or pass a list of colours."
            )
        return {name: to_hex(palette[name]) for name in names}
    colors = _default(len(names)) if palette is None else list(palette)
    if not colors:
        raise InputError("Found an empty `palette`; expected at least one colour.")
    return {name: to_hex(colors[i % len(colors)]) for i, name in enumerate(names)}


def cell_colors(values: pd.Series, colors: Mapping[str, str]) -> pd.Series:
    """Hex colour of each cell, light grey where the category is missing."""
    return values.astype(object).map(dict(colors)).fillna(MISSING)


def _default(n_colors: int) -> Sequence[str]:
    known = OKABE_ITO + MORE
    if n_colors <= len(known):
        return known
    from scanpy.plotting import palettes

    return palettes.default_102
