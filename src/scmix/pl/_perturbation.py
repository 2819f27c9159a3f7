"""Genes by their effect, with what is known about chance."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.text import Annotation

from .._errors import InputError, MissingKeyError
from ._perturbation_table import effect_table, read, strongest
from ._showing import hand_over
from ._style import GREY, LINE, PAIR, RULE, THIN, styled, subplots
from ._units import in_units, power_of, write_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HIT, OTHER = "#0072b2", GREY
_MOST_LABELS = 12
_LONGEST_NAME = 0.4  # of the width of the volcano; names stand on both sides
_LONGEST_LINE = 28  # letters under half a figure
_ROUNDS = 40  # each leaves at most twice that share of what is lacking


def perturbation(
    adata: AnnData,
    *,
    key: str = "perturbation",
    goal: str | None = None,
    n_genes: int = 20,
    p: str = "p_matched",
    alpha: float = 0.05,
    flagged: bool = False,
    show: bool | None = None,
    return_fig: bool = False,
) -> "Figure | Axes | list[Axes] | None":
    """Draw genes by their effect: the largest with intervals, and all against a p-value.

    On the left the genes with the largest effects either way, with the interval over donors where
    there is one. On the right every gene, its effect against a p-value. Blue and filled: a hit,
    which means an adjusted p below `alpha` against both shuffled states and matched genes. Open
    diamonds are first-order estimates that were not computed exactly. A design with too few donors
    for a test has no hits, and the figure says so.

    Parameters
    ----------
    adata
        Annotated data with the scores of :func:`scmix.tl.perturb`.
    key
        Their key in `uns`.
    goal
        Goal state, when there are several.
    n_genes
        Number of genes on the left.
    p
        Column of the scores on the right.
    alpha
        Level of a hit.
    flagged
        Also draw genes with a flag, such as those seen in few cells.
    show
        Show the figure; as `scanpy.settings.autoshow` says when not given.
    return_fig
        Return the figure instead of showing it.

    Returns
    -------
    The figure if `return_fig`, the two axes if not shown, else nothing.

    Raises
    ------
    MissingKeyError
        If there are no scores, or no such goal or column.
    InputError
        If no row has an effect to draw, or the goal must be named.

    Examples
    --------
    >>> import pandas as pd, scmix
    >>> from anndata import AnnData
    >>> scores = pd.DataFrame(
    ...     {"gene": ["A", "B"], "effect": [0.2, -0.1], "p_matched": [0.001, 0.4]}
    ... )
    >>> adata = AnnData(uns={"perturbation": {"params": {}, "scores": scores}})
    >>> figure = scmix.pl.perturbation(adata, return_fig=True)
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['A', 'B']
    """
    params = read(adata, key).get("params", {})
    table = effect_table(adata, key, goal=goal, alpha=alpha, flagged=flagged)
    if p not in table:
        raise MissingKeyError(f"Found no column {p!r} in the scores; choose one of them for `p`.")
    if p.startswith("p") and not table[p].dropna().between(0, 1).all():
        raise InputError(f"Found values of {p!r} outside 0 to 1; expected p-values.")
    ranked = strongest(table, n_genes)
    with styled():
        height = max(2.0, 0.15 * len(ranked) + 0.7)
        figure, (left, right) = subplots(1, 2, PAIR, height, width_ratios=(0.85, 1))
        _ranked(left, ranked)
        _volcano(right, table, p)
        _make_room(figure, right)
        for axes in (left, right):
            power = power_of(max(map(abs, axes.get_xlim())))
            axes.set_xlabel(in_units(_direction(params, goal), power))
            axes.spines[["top", "right"]].set_visible(False)
            axes.locator_params(axis="x", nbins=4, steps=[1, 2, 5, 10])
            write_in(axes.xaxis, power)
        if params.get("inference") == "descriptive":
            right.set_title("descriptive: too few\ndonors for a test of states", fontsize="small")
        _key(figure, table)
    return hand_over(figure, show, return_fig, n_axes=2)


def _ranked(axes: "Axes", table: pd.DataFrame) -> None:
    places = np.arange(len(table))
    axes.axvline(0, color=RULE, linewidth=THIN, zorder=0)
    if {"ci_low", "ci_high"} <= set(table.columns):
        colors = np.where(table["hit"], HIT, OTHER)
        axes.hlines(places, table["ci_low"], table["ci_high"], colors=list(colors), linewidth=LINE)
    _points(axes, table, table["effect"], places, size=12)
    axes.set_yticks(places, list(table["label"]))
    axes.set_ylim(len(table) - 0.4, -0.6)


def _volcano(axes: "Axes", table: pd.DataFrame, p: str) -> None:
    height = -np.log10(table[p].clip(lower=np.finfo(float).tiny))
    axes.axvline(0, color=RULE, linewidth=THIN, zorder=0)
    _points(axes, table, table["effect"], height, size=7)
    axes.set_ylabel(f"-log10 {p}")
    if height.isna().all():
        axes.text(0.5, 0.5, f"no {p}", transform=axes.transAxes, ha="center", color=OTHER)
        return
    axes.set_ylim(bottom=0)
    table = table.assign(height=height).dropna(subset=["height"])
    _names(axes, _apart(table[table["hit"]] if table["hit"].any() else table))


def _apart(rows: pd.DataFrame) -> pd.DataFrame:
    """The highest rows, without those whose name would lie on another's."""
    highest = rows.nlargest(_MOST_LABELS, "height")
    gap = 0.035 * max(rows["height"].max(), 1e-9)
    kept: dict[bool, list[float]] = {True: [], False: []}  # by side
    clear = []
    for side, height in zip(highest["effect"] >= 0, highest["height"], strict=True):
        clear.append(not kept[side] or kept[side][-1] - height > gap)
        if clear[-1]:
            kept[side].append(height)
    return highest[clear]


def _names(axes: "Axes", rows: pd.DataFrame) -> None:
    """Names beside their points, on the outer side."""
    for label, effect, height in rows[["label", "effect", "height"]].to_numpy():
        outside = 1 if effect >= 0 else -1
        axes.annotate(
            label,
            (effect, height),
            xytext=(3 * outside, -2),
            textcoords="offset points",
            ha="left" if outside > 0 else "right",
            fontsize="small",
        )


def _make_room(figure: "Figure", axes: "Axes") -> None:
    """Widen the axes until the names in it end before its edges; drop names that are too long."""
    figure.draw_without_rendering()  # names have a width by then
    named = [text for text in axes.texts if isinstance(text, Annotation)]
    low, high = axes.get_xlim()
    reaches = []
    for text in named:
        reach = _reach(text, axes) / axes.bbox.width
        if reach > _LONGEST_NAME:
            text.remove()
        else:
            reaches.append((text.xy[0], reach))
    for _ in range(_ROUNDS):
        span = high - low
        low = min([low, *(x - reach * span for x, reach in reaches if x < 0)])
        high = max([high, *(x + reach * span for x, reach in reaches if x >= 0)])
    axes.set_xlim(low, high)


def _reach(text: Annotation, axes: "Axes") -> float:
    """Pixels from the point to the outer end of its name."""
    box, point = text.get_window_extent(), axes.transData.transform(text.xy)[0]
    return max(point - box.x0, box.x1 - point) + 2


def _points(axes: "Axes", table: pd.DataFrame, x: pd.Series, y: Any, size: float) -> None:
    """Filled blue hits, grey others, open diamonds for estimates."""
    y = np.asarray(y, dtype=float)
    estimate = _is_estimate(table)
    for mask, marker, face, edge, order in (
        (~table["hit"] & ~estimate, "o", OTHER, OTHER, 2),
        (~table["hit"] & estimate, "D", "none", OTHER, 1),
        (table["hit"], "o", HIT, HIT, 3),
    ):
        axes.scatter(
            x[mask],
            y[mask.to_numpy()],
            s=size,
            marker=marker,
            facecolors=face,
            edgecolors=edge,
            linewidths=THIN,
            zorder=order,
            rasterized=len(table) > 5_000,
        )


def _is_estimate(table: pd.DataFrame) -> pd.Series:
    if "estimated" not in table:
        return pd.Series(False, index=table.index)
    return table["estimated"].fillna(False).astype(bool)


def _direction(params: dict[str, Any], goal: str | None) -> str:
    if goal is None:
        named = params.get("goal", "")
        goal = named if isinstance(named, str) else (named[0] if len(named) == 1 else "")
    if not goal:
        return "effect"
    start = f"effect: {params.get('start', '')}"
    space = " " if len(f"{start} → {goal}") <= _LONGEST_LINE else "\n"
    return f"{start}{space}→ {goal}\n(difference of cosines)"


def _key(figure: "Figure", table: pd.DataFrame) -> None:
    """What the marks mean."""
    from matplotlib.lines import Line2D

    def mark(marker: str, face: str, edge: str, label: str) -> Line2D:
        look: Any = {"marker": marker, "markersize": 4, "color": edge, "markerfacecolor": face}
        return Line2D([], [], linestyle="", label=label, **look)

    handles = [mark("o", HIT, HIT, f"hit ({int(table['hit'].sum())})")]
    handles.append(mark("o", OTHER, OTHER, f"no hit ({int((~table['hit']).sum())})"))
    if _is_estimate(table).any():
        handles.append(mark("D", "none", OTHER, "estimate, not computed exactly"))
    figure.legend(
        handles=handles, loc="outside upper left", ncols=3, handletextpad=0.2, columnspacing=1
    )
