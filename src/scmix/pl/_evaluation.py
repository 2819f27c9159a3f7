"""Methods side by side, with how far their scores can be trusted."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData

from .._errors import InputError, MissingKeyError
from ._showing import hand_over
from ._style import GREY, GRID, LETTER, LINE, THIN, styled, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Metric = Literal["macro_f1", "accuracy", "balanced_accuracy"]
NAMES = {
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
}
COLORS = {"baseline": GREY, "scmix": "#0072b2", "yours": "#d55e00", "other": "#009e73"}
LEGEND = {"baseline": "baseline", "scmix": "scmix", "yours": "yours", "other": "other packages"}
_MARKERS = {"baseline": "o", "scmix": "D", "yours": "s", "other": "^"}
_ROW_INCHES, _PANEL_INCHES = 0.165, 1.55


def evaluation(
    adata: AnnData | pd.DataFrame,
    *,
    metric: Metric = "macro_f1",
    key: str = "evaluation",
    show: bool | None = None,
    return_fig: bool = False,
) -> "Figure | Axes | list[Axes] | None":
    """Draw the table of `scmix.tl.evaluate`: a row for each method, a panel for each split.

    A point is the mean over seeds, the thin line its 95 % interval, the thick one plus and minus
    one standard deviation over seeds. Baselines are hollow grey circles. The dotted line is the
    majority rate for the accuracy, and the score of the method that always says the largest type
    otherwise. Methods whose package is not installed are named without a point.

    Parameters
    ----------
    adata
        Annotated data with the result, or the table that `scmix.tl.evaluate` returned.
    metric
        `"macro_f1"`, `"accuracy"` or `"balanced_accuracy"`.
    key
        Key of `uns` of the result.
    show
        Show the figure; as `scanpy.settings.autoshow` says when not given.
    return_fig
        Return the figure instead of showing it.

    Returns
    -------
    The figure if `return_fig`, the axes if not shown (a list if there are several), else nothing.

    Raises
    ------
    MissingKeyError
        If there is no result under `key`.
    InputError
        If the table lacks columns, or `metric` is not as above.

    Examples
    --------
    >>> import pandas as pd, scmix
    >>> table = pd.DataFrame(
    ...     {
    ...         "split": "5-fold",
    ...         "representation": ["none", "scmix-mini"],
    ...         "classifier": ["majority", "kNN"],
    ...         "kind": ["baseline", "scmix"],
    ...         "macro_f1": [0.1, 0.8],
    ...         "macro_f1_sd": [0.0, 0.01],
    ...         "macro_f1_low": [0.1, 0.7],
    ...         "macro_f1_high": [0.1, 0.9],
    ...         "note": "",
    ...     }
    ... )
    >>> figure = scmix.pl.evaluation(table, return_fig=True)
    >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
    ['majority', 'scmix-mini · kNN']
    """
    if metric not in get_args(Metric):
        raise InputError(f"Found metric={metric!r}; expected one of {get_args(Metric)}.")
    points = evaluation_points(_table(adata, key), metric)
    return hand_over(_draw(points, metric), show, return_fig, n_axes=points["split"].nunique())


def evaluation_points(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """What is drawn: `split`, `name`, `kind`, `mean`, `sd`, `low`, `high`, `note`, in order."""
    ends = [metric, f"{metric}_sd", f"{metric}_low", f"{metric}_high"]
    columns = ["split", "representation", "classifier", "kind", *ends, "note"]
    lacking = [name for name in columns if name not in table]
    if lacking:
        raise InputError(
            f"Found a table without {', '.join(lacking)}; expected one of scmix.tl.evaluate."
        )
    points = table[columns].rename(
        columns=dict(zip(ends, ("mean", "sd", "low", "high"), strict=True))
    )
    alone = points["representation"].isin(["none", "genes"])
    both = points["representation"] + " · " + points["classifier"]
    points.insert(1, "name", points["classifier"].where(alone, both))
    return points.drop(columns=["representation", "classifier"])


def _table(adata: AnnData | pd.DataFrame, key: str) -> pd.DataFrame:
    if isinstance(adata, pd.DataFrame):
        return adata
    made = adata.uns.get(key)
    if not isinstance(made, Mapping) or "table" not in made:
        raise MissingKeyError(
            f'Found no evaluation in adata.uns["{key}"]; there are {list(adata.uns)}. Call '
            "scmix.tl.evaluate first."
        )
    return made["table"]


def _draw(points: pd.DataFrame, metric: str) -> "Figure":
    panels = [part for _, part in points.groupby("split", sort=False)]
    names = list(dict.fromkeys(points["name"]))
    width = _PANEL_INCHES * len(panels) + LETTER * max(map(len, names)) + 0.1
    height = _ROW_INCHES * len(names) + 0.85
    with styled():
        figure, grid = subplots(
            1, len(panels), width, height, squeeze=False, sharex=True, sharey=True
        )
        for axes, part in zip(grid[0], panels, strict=True):
            _panel(axes, part, names, metric)
            axes.set_title(part["split"].iloc[0])
        grid[0, 0].set_yticks(range(len(names)), names)
        grid[0, 0].set_ylim(len(names) - 0.4, -0.6)
        _legend(figure, [kind for kind in COLORS if kind in set(points["kind"])])
    return figure


def _panel(axes: "Axes", part: pd.DataFrame, names: list[str], metric: str) -> None:
    place = {name: row for row, name in enumerate(names)}
    for point in part.itertuples():
        row, color = place[point.name], COLORS[point.kind]
        if np.isnan(point.mean):
            axes.text(0.01, row, point.note.split(":")[0], va="center", fontsize="small",
                      color=GREY)  # fmt: skip
            continue
        axes.plot([point.low, point.high], [row, row], color=color, linewidth=THIN)
        if point.sd > 0:
            ends = [point.mean - point.sd, point.mean + point.sd]
            axes.plot(
                ends, [row, row], color=color, linewidth=2.5, alpha=0.5, solid_capstyle="butt"
            )
        face = "white" if point.kind == "baseline" else color
        axes.plot(
            point.mean, row, _MARKERS[point.kind], markersize=4, markeredgecolor=color,
            markerfacecolor=face,
        )  # fmt: skip
    floor = part.loc[part["name"] == "majority", "mean"]
    if len(floor):
        axes.axvline(floor.iloc[0], color=GREY, linewidth=LINE, linestyle=":", zorder=0)
    axes.set(xlim=(0, 1), xlabel=NAMES[metric])
    axes.grid(axis="x", color=GRID, linewidth=THIN)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _legend(figure: "Figure", kinds: list[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker=_MARKERS[kind], linestyle="", markersize=4,
               markeredgecolor=COLORS[kind], label=LEGEND[kind],
               markerfacecolor="white" if kind == "baseline" else COLORS[kind])
        for kind in kinds
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), handletextpad=0.2,
        columnspacing=0.8, borderpad=0,
    )  # fmt: skip
