"""Drawing of the table that `umap_compare` makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._colors import MISSING, OKABE_ITO, Palette, category_colors, cell_colors
from ._style import COLUMN, LETTER, PAGE, PAIR, RULE, THIN, styled, subplots
from ._tags import tags

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RASTER_FROM = 5_000  # more points than this make a vector file slow to open
_SMALLEST_PANEL = 1.3  # inches
_LEGEND_ROWS = 14


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

    @property
    def numbers(self) -> dict[str, str]:
        """Numbers of the categories where they are too many to be told by their colours."""
        names = list(self.colors or ())
        if len(names) <= len(OKABE_ITO):
            return {}
        return {name: str(number) for number, name in enumerate(names, start=1)}

    @property
    def key(self) -> dict[str, str]:
        """Entries of the legend, with their colours."""
        colors, numbers = self.colors or {}, self.numbers
        shown = {f"{numbers.get(n, '')} {n}".lstrip(): color for n, color in colors.items()}
        return shown | ({"missing": MISSING} if self.missing else {})


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
    panels = [part for _, part in table.groupby("panel", sort=True)]
    paints = [paint(table, color, palette) for color in colors]
    room = max(_key_inches(painted, legend_loc) for painted in paints)
    panel = panel_inches(len(panels), room)
    size = size if size is not None else point_size(len(panels[0]), panel)
    width = panel * len(panels) + room
    height = sum(panel + (0.4 if color in scores else 0.1) for color in colors) + 0.2
    with styled():
        figure, grid = subplots(len(colors), len(panels), width, height, squeeze=False)
        for row, color, painted in zip(grid, colors, paints, strict=True):
            for number, (axes, part) in enumerate(zip(row, panels, strict=True)):
                _scatter(axes, part, painted, size, np.random.default_rng(seed))
                if color in scores:
                    axes.set_xlabel(caption(scores[color].iloc[number]))
                if legend_loc == "on data" and painted.colors is not None:
                    _names_on_data(axes, part, color)
                elif painted.numbers:
                    _numbers_on_data(axes, part, painted, panel)
            _key(row, painted, legend_loc)
        for axes, part in zip(grid[0], panels, strict=True):
            axes.set_title(part["title"].iloc[0])
    return figure


def panel_inches(n_panels: int, room: float = 0.0) -> float:
    """Width of a panel beside a key: as large as a column, a pair or a page holds them."""
    width = {1: COLUMN, 2: PAIR}.get(n_panels, PAGE)
    return max(_SMALLEST_PANEL, (width - room) / n_panels)


def point_size(n_cells: int, panel: float) -> float:
    """Square points of a cell, so that the cells cover about the same part of any panel."""
    return float(np.clip(900 / n_cells, 0.15, 1.3)) * panel**2


def _key_inches(painted: Paint, legend_loc: str) -> float:
    if painted.colors is None:
        return 0.75
    if legend_loc == "on data":
        return 0.05
    n_columns = -(-len(painted.key) // _LEGEND_ROWS)
    longest = max([*map(len, painted.key), len(painted.name) // n_columns])
    return n_columns * (LETTER * longest + 0.25) + 0.1


def caption(scores: pd.Series) -> str:
    """The line of numbers under a panel."""
    line = f"silhouette {scores['silhouette']:.2f} · purity {scores['purity']:.2f}"
    if np.isnan(scores["centroid_shift"]):
        return line
    shift = scores["centroid_shift"]  # zero in the panel that the others are compared with
    return f"{line}\nshift of centroids " + (f"{shift:.1f}" if shift else "0 (reference)")


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
    for name, cells in part.groupby(f"color:{color}", observed=True):
        place = (cells["umap1"].median(), cells["umap2"].median())
        axes.text(*place, name, ha="center", va="center", fontsize="small", path_effects=_halo())


def _numbers_on_data(axes: "Axes", part: pd.DataFrame, painted: Paint, inches: float) -> None:
    """The numbers of the legend beside the cells."""
    rows = part.groupby(f"color:{painted.name}", observed=True).indices
    points = part[["umap1", "umap2"]].to_numpy()
    for tag in tags(points, rows, painted.numbers, inches):
        axes.annotate(
            painted.numbers[tag.name],
            tuple(tag.clump),
            tuple(tag.place),
            ha="center",
            va="center",
            fontsize="small",
            path_effects=_halo(),
            arrowprops={"arrowstyle": "-", "color": RULE, "linewidth": THIN, "shrinkA": 0}
            if tag.is_away
            else None,
        )


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=1.5, foreground="white")]


def _key(row: Sequence["Axes"], painted: Paint, legend_loc: str) -> None:
    """The legend or colour bar of a row, once, at its right end."""
    from matplotlib.lines import Line2D

    if painted.colors is None:
        bar = row[-1].inset_axes((1.04, 0.1, 0.045, 0.8))
        row[-1].figure.colorbar(row[-1].collections[0], cax=bar, label=painted.name)
        return
    if legend_loc == "on data":
        return
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=4, color=color, label=name)
        for name, color in painted.key.items()
    ]
    row[-1].legend(
        handles=handles,
        title=painted.name,
        ncols=-(-len(handles) // _LEGEND_ROWS),
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        labelspacing=0.3,
        columnspacing=0.8,
        alignment="left",
        borderaxespad=0,
        handletextpad=0.3,
    )
