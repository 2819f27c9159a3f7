"""Drawing of the table that `umap_compare` makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._colors import MISSING, Palette, category_colors, cell_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES = 3.4
RASTER_FROM = 5_000  # more points than this make a vector file slow to open
_LEGEND_ROWS = 14
STYLE: Any = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.edgecolor": "#B0B0B0",
    "text.color": "black",
    "axes.labelcolor": "black",
    "font.size": 11,
}


@dataclass(frozen=True, eq=False)
class Paint:
    """How one colour row is painted.

    `values` are hex strings or, when `colors` is None, numbers within `limits`; they have the
    index of the table.
    """

    name: str
    values: pd.Series
    colors: dict[str, str] | None
    missing: bool
    limits: tuple[float, float] | tuple[None, None]


def paint(table: pd.DataFrame, color: str, palette: Palette | None) -> Paint:
    """Colours of one colour row, shared by all its panels."""
    values = table[f"color:{color}"]
    missing = bool(values.isna().any())
    if not isinstance(values.dtype, pd.CategoricalDtype):
        return Paint(color, values, None, missing, (values.min(), values.max()))
    colors = category_colors(list(values.cat.remove_unused_categories().cat.categories), palette)
    return Paint(color, cell_colors(values, colors), colors, missing, (None, None))


def draw(
    table: pd.DataFrame,
    colors: Sequence[str],
    scores: Mapping[str, pd.DataFrame],
    *,
    palette: Palette | None,
    legend_loc: str,
    size: float | None,
    seed: int,
) -> "Figure":
    """A grid of scatter plots: one row per colour, one column per panel, one key per row."""
    import matplotlib.pyplot as plt

    panels = [part for _, part in table.groupby("panel", sort=True)]
    size = size if size is not None else float(np.clip(12_000 / len(panels[0]), 1.5, 30))
    width, height = PANEL_INCHES * len(panels) + 2.2, PANEL_INCHES * len(colors) + 0.5
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            len(colors),
            len(panels),
            squeeze=False,
            layout="constrained",
            figsize=(width, height),
        )
        for row, color in zip(grid, colors, strict=True):
            painted = paint(table, color, palette)
            for number, (axes, part) in enumerate(zip(row, panels, strict=True)):
                _scatter(axes, part, painted, size, np.random.default_rng(seed))
                if color in scores:
                    axes.set_xlabel(caption(scores[color].iloc[number]), fontsize="small")
                if legend_loc == "on data" and painted.colors is not None:
                    _names_on_data(axes, part, color)
            _key(row, painted, legend_loc)
        for axes, part in zip(grid[0], panels, strict=True):
            axes.set_title(part["title"].iloc[0])
    return figure


def caption(scores: pd.Series) -> str:
    """The line of numbers under a panel."""
    line = f"silhouette {scores['silhouette']:.2f} · purity {scores['purity']:.2f}"
    if np.isnan(scores["centroid_shift"]):
        return line
    return f"{line} · shift {scores['centroid_shift']:.1f}"


def _scatter(
    axes: "Axes", part: pd.DataFrame, painted: Paint, size: float, rng: np.random.Generator
) -> None:
    from matplotlib import colormaps

    part = part.iloc[rng.permutation(len(part))]
    axes.scatter(
        part["umap1"],
        part["umap2"],
        s=size,
        c=painted.values.loc[part.index].to_numpy(),
        cmap=colormaps["viridis"].with_extremes(bad=MISSING) if painted.colors is None else None,
        vmin=painted.limits[0],
        vmax=painted.limits[1],
        plotnonfinite=True,
        linewidths=0,
        rasterized=len(part) > RASTER_FROM,
    )
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")


def _names_on_data(axes: "Axes", part: pd.DataFrame, color: str) -> None:
    from matplotlib.patheffects import withStroke

    for name, cells in part.groupby(f"color:{color}", observed=True):
        axes.text(
            cells["umap1"].median(),
            cells["umap2"].median(),
            name,
            ha="center",
            va="center",
            fontsize="small",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def _key(row: Sequence["Axes"], painted: Paint, legend_loc: str) -> None:
    """The legend or colour bar of a row, once, at its right end."""
    from matplotlib.lines import Line2D

    if painted.colors is None:
        bar = row[-1].inset_axes((1.04, 0.1, 0.045, 0.8))
        row[-1].figure.colorbar(row[-1].collections[0], cax=bar, label=painted.name)
        return
    if legend_loc == "on data":
        return
    shown = painted.colors | ({"missing": MISSING} if painted.missing else {})
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=7, color=color, label=name)
        for name, color in shown.items()
    ]
    row[-1].legend(
        handles=handles,
        title=painted.name,
        ncols=-(-len(handles) // _LEGEND_ROWS),
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        frameon=False,
        alignment="left",
        borderaxespad=0,
        handletextpad=0.3,
    )
