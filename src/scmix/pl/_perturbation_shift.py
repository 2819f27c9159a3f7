"""Where perturbed cells go, in a picture of all cells."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from .._errors import InputError, MissingKeyError
from ._arrows import arrows
from ._colors import MISSING, OKABE_ITO
from ._drawing import RASTER_FROM, panel_inches, point_size
from ._perturbation_table import chosen, read
from ._showing import hand_over
from ._style import styled, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LONGEST = 0.15  # of the extent of the cells of all states
_MOST_ARROWS = 40
_START, _GOALS = "#9ecae1", OKABE_ITO[4:5] + OKABE_ITO[1:2] + OKABE_ITO[5:8]


def perturbation_shift(
    adata: AnnData,
    genes: str | Sequence[str] | None = None,
    *,
    key: str = "perturbation",
    basis: str = "X_umap",
    use_rep: str = "X_scmix",
    size: float | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> "Figure | Axes | list[Axes] | None":
    """Draw arrows from cells to their perturbed selves, in a picture of all cells.

    One panel for each gene. Start cells are blue, cells of a goal orange with a star at their
    middle, all others grey. An arrow, of 40 cells at most, points to where, in the picture, cells
    lie that the shift points to, and is as long as the shift is, on one scale in all panels and
    much enlarged. A picture in the plane shows directions roughly: read effects from the scores.

    Parameters
    ----------
    adata
        Annotated data with the vectors that :func:`scmix.tl.perturb` keeps of some cells.
    genes
        Genes to draw, by name or symbol; the first four kept when not given.
    key
        Key of the result in `uns`.
    basis
        Key of `obsm` of a layout with two columns.
    use_rep
        Key of `obsm` of the embedding, of the same model, layer and pooling as the perturbation.
    size
        Size of a point in square points; chosen by the number of cells when not given.
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
        If the vectors, a gene, the layout or the embedding do not exist.
    InputError
        If the embedding has another width than the vectors.

    Examples
    --------
    >>> import numpy as np, scmix
    >>> from anndata import AnnData
    >>> cells = np.random.default_rng(0).normal(size=(20, 4))
    >>> adata = AnnData(obsm={"X_scmix": cells, "X_umap": cells[:, :2]})
    >>> adata.obs["state"] = ["healthy", "ill"] * 10
    >>> adata.uns["perturbation"] = {
    ...     "params": {"state_key": "state", "start": "healthy", "goal": "ill"},
    ...     "scores": [],
    ...     "vectors": {
    ...         "cells": adata.obs_names[[0, 2]].to_numpy(),
    ...         "genes": np.array(["A"]),
    ...         "symbols": np.array(["A"]),
    ...         "original": cells[[0, 2]],
    ...         "perturbed": cells[None, [1, 3]],
    ...     },
    ... }
    >>> figure = scmix.pl.perturbation_shift(adata, return_fig=True)
    >>> figure.axes[0].get_title()
    'A'
    """
    found = read(adata, key)
    table = arrow_table(adata, found, key, genes, basis, use_rep)
    layout, states = np.asarray(adata.obsm[basis])[:, :2], _states(adata, found["params"])
    names = list(pd.unique(table["label"]))
    panel = min(panel_inches(len(names)), 2.4)
    extent = float(np.ptp(layout[states.notna().to_numpy()], axis=0).max())
    size = size if size is not None else point_size(len(layout), panel)
    with styled():
        figure, grid = subplots(1, len(names), panel * len(names), panel + 0.3, squeeze=False)
        drawn = [some(table[table["label"] == name]) for name in names]
        for axes, name, arrows_of in zip(grid[0], names, drawn, strict=True):
            _cells(axes, layout, states, size)
            axes.update_datalim(np.concatenate([_tips(each, extent) for each in drawn]))
            _arrows(axes, arrows_of, extent)
            axes.set_title(name)
        _key(figure, states, n_columns=2 if len(names) == 1 else 4)
    return hand_over(figure, show, return_fig, n_axes=len(names))


def arrow_table(
    adata: AnnData,
    found: Mapping[str, Any],
    key: str,
    genes: str | Sequence[str] | None,
    basis: str,
    use_rep: str,
) -> pd.DataFrame:
    """One row per gene and cell that has it: `label`, `cell`, `x`, `y`, `dx`, `dy`.

    The longest arrow has length 1.
    """
    vectors = _vectors(found, key)
    layout, embedding = (_of_obsm(adata, name) for name in (basis, use_rep))
    original, perturbed = np.asarray(vectors["original"]), np.asarray(vectors["perturbed"])
    if embedding.shape[1] != original.shape[1]:
        raise InputError(
            f"Found vectors of width {original.shape[1]} and obsm[{use_rep!r}] of width "
            f"{embedding.shape[1]}. Embed the cells with the model of the perturbation."
        )
    names, symbols = (pd.Series(vectors[name]).astype(str) for name in ("genes", "symbols"))
    asked = [genes] if isinstance(genes, str) else genes
    kept = list(names[:4]) if asked is None else chosen(names, asked, symbols)
    numbers = names.reset_index().set_index(0)["index"][kept].to_numpy()
    rows = _rows(adata, vectors["cells"])
    gene, cell = np.nonzero(np.isfinite(perturbed[numbers]).all(axis=2))
    shifts = perturbed[numbers[gene], cell] - original[cell]
    made = arrows(embedding, layout, rows[cell], shifts)
    return pd.DataFrame(
        {
            "label": symbols.where(symbols != "", names).to_numpy()[numbers[gene]],
            "cell": adata.obs_names[rows[cell]],
            "x": layout[rows[cell], 0],
            "y": layout[rows[cell], 1],
            "dx": made[:, 0],
            "dy": made[:, 1],
        }
    )


def _vectors(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    if "vectors" not in found:
        raise MissingKeyError(
            f"Found no vectors in uns[{key!r}]; expected those of some perturbed cells. Call "
            "scmix.tl.perturb with `vectors_of`."
        )
    return found["vectors"]


def _of_obsm(adata: AnnData, name: str) -> np.ndarray:
    if name not in adata.obsm:
        raise MissingKeyError(
            f"Found no {name!r} in obsm; it has {', '.join(map(repr, adata.obsm)) or 'nothing'}. "
            "Call scmix.tl.embed, sc.pp.neighbors and sc.tl.umap first."
        )
    return np.asarray(adata.obsm[name], dtype=np.float64)


def _rows(adata: AnnData, names: Sequence[str]) -> np.ndarray:
    rows = adata.obs_names.get_indexer(pd.Index(names).astype(str))
    if (rows < 0).any():
        raise MissingKeyError(
            f"Found {(rows < 0).sum()} perturbed cells that are not in obs_names; expected the "
            "cells that were perturbed. Use the object before it was subset."
        )
    return rows


def _states(adata: AnnData, params: Mapping[str, Any]) -> pd.Series:
    """Start, each goal by name, or missing, for every cell."""
    goals = params["goal"]
    goals = [goals] if isinstance(goals, str) else [str(goal) for goal in goals]
    if params["state_key"] not in adata.obs:
        raise MissingKeyError(f"Found no column {params['state_key']!r} in obs.")
    states = adata.obs[params["state_key"]].astype(str)
    return pd.Series(pd.Categorical(states, [str(params["start"]), *goals]), adata.obs_names)


def _colors(states: pd.Series) -> dict[str, str]:
    start, *goals = states.cat.categories
    return {start: _START, **{g: _GOALS[i % len(_GOALS)] for i, g in enumerate(goals)}}


def _cells(axes: "Axes", layout: np.ndarray, states: pd.Series, size: float) -> None:
    options: Any = {"s": size, "linewidths": 0, "rasterized": len(layout) > RASTER_FROM}
    none = states.isna().to_numpy()
    _scatter(axes, layout[none], MISSING, zorder=0, **options)
    colors = _colors(states)
    for name, color in colors.items():
        _scatter(axes, layout[(states == name).to_numpy()], color, zorder=1, **options)
    star: Any = {"marker": "*", "s": 60, "edgecolors": "black", "linewidths": 0.6, "zorder": 4}
    for name in list(colors)[1:]:
        middle = np.median(layout[(states == name).to_numpy()], axis=0)
        _scatter(axes, middle[None], colors[name], **star)
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")


def _scatter(axes: "Axes", points: np.ndarray, color: str, **options: Any) -> None:
    axes.scatter(points[:, 0], points[:, 1], c=color, **options)


def some(table: pd.DataFrame) -> pd.DataFrame:
    """Rows from all of the table, not more than can be told apart as arrows."""
    return table.iloc[np.unique(np.linspace(0, len(table) - 1, _MOST_ARROWS).astype(np.intp))]


def _arrows(axes: "Axes", table: pd.DataFrame, extent: float) -> None:
    tails = table[["x", "y"]].to_numpy()
    axes.quiver(
        *tails.T,
        *(_tips(table, extent) - tails).T,
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.005,
        headwidth=3.5,
        color="black",
        zorder=3,
    )


def _tips(table: pd.DataFrame, extent: float) -> np.ndarray:
    """Where arrows end: quiver itself makes room for where they begin."""
    return table[["x", "y"]].to_numpy() + table[["dx", "dy"]].to_numpy() * _LONGEST * extent


def _key(figure: "Figure", states: pd.Series, n_columns: int) -> None:
    from matplotlib.lines import Line2D

    colors = _colors(states) | ({"other": MISSING} if states.isna().any() else {})
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=4, color=color, label=name)
        for name, color in colors.items()
    ]
    goals = Line2D(
        [], [], marker="*", linestyle="", markersize=7, color="white", markeredgecolor="black",
        markeredgewidth=0.6, label="middle of a goal",
    )  # fmt: skip
    handles.append(goals)
    figure.legend(handles=handles, loc="outside lower center", ncols=n_columns, columnspacing=1)
