"""Embeddings side by side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from anndata import AnnData

from .._errors import InputError
from ._colors import Palette
from ._drawing import draw
from ._panels import aligned, is_continuous, make_panels, panel_numbers, panel_table
from ._showing import hand_over

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def umap_compare(
    adata: AnnData | Mapping[str, AnnData] | Sequence[AnnData],
    keys: str | Sequence[str] = ("X_scmix", "X_pca"),
    *,
    color: str | Sequence[str],
    titles: Sequence[str] | None = None,
    align: bool = False,
    numbers: bool = False,
    palette: Palette | None = None,
    legend_loc: str = "right margin",
    size: float | None = None,
    n_neighbors: int = 15,
    min_dist: float = 0.5,
    metric: str = "cosine",
    seed: int = 0,
    show: bool | None = None,
    return_fig: bool = False,
) -> "Figure | Axes | list[Axes] | None":
    """Draw UMAPs of several embeddings side by side, with the same colours everywhere.

    Columns are embeddings (of each object, when there are several), rows are colours. The layout
    is `obsm[f"{key}_umap"]` where that exists, and `obsm[key]` itself where that has two
    columns; else it is computed and not stored. Cells are drawn in random order, so that no
    category hides another. Cells without a vector are left out, which is logged.

    Parameters
    ----------
    adata
        Annotated data, or several: a list, or a dict whose names become titles.
    keys
        Keys of `obsm`.
    color
        Columns of `obs`. Numbers are shown by a colour map, everything else as categories.
    titles
        Titles of the columns, in the order drawn (objects, then keys within an object).
    align
        Move, turn, mirror and scale later layouts so that they lie on the first one as well as
        they can (`scmix.metrics.procrustes`). Needs the same cells in every panel.
    numbers
        Write under each panel, for categories: silhouette and nearest-neighbour purity of the
        embedding itself, and how far the categories' centroids lie from those of the first panel
        once aligned, in its units (as Figures 2 and 3 of the Mix-Geneformer paper compare them).
    palette
        Colours of the categories: a dict by category, or a list. The default is Okabe-Ito for up
        to eight categories, twelve more that the colour-blind can tell apart for up to twenty,
        and scanpy's largest palette beyond. More than eight categories are numbered: in the
        legend, and on their cells.
    legend_loc
        `"right margin"`, or `"on data"`: names at the middle of their cells, without a legend.
    size
        Size of a point in square points; chosen by the number of cells when not given.
    n_neighbors, min_dist, metric, seed
        For layouts that are computed, as in `umap.UMAP`; `metric` also for `numbers`.
    show
        Show the figure; as `scanpy.settings.autoshow` says when not given.
    return_fig
        Return the figure instead of showing it.

    Returns
    -------
    The figure if `return_fig`, the axes if not shown (a list, row by row, if there are several),
    else nothing.

    Raises
    ------
    MissingKeyError
        If a key or column does not exist.
    InputError
        If `align` meets different cells, or an embedding has fewer than three cells.

    Examples
    --------
    >>> import numpy as np, scmix
    >>> from anndata import AnnData
    >>> rng = np.random.default_rng(0)
    >>> adata = AnnData(
    ...     obsm={"X_one": rng.normal(size=(40, 2)), "X_two": rng.normal(size=(40, 2))}
    ... )
    >>> adata.obs["cell_type"] = ["alpha", "beta"] * 20
    >>> figure = scmix.pl.umap_compare(
    ...     adata, ["X_one", "X_two"], color="cell_type", return_fig=True
    ... )
    >>> [axes.get_title() for axes in figure.axes]
    ['X_one', 'X_two']
    """
    if legend_loc not in ("right margin", "on data"):
        raise InputError(f"Found legend_loc={legend_loc!r}; expected 'right margin' or 'on data'.")
    colors = [color] if isinstance(color, str) else list(color)
    panels = make_panels(
        _named(adata),
        [keys] if isinstance(keys, str) else list(keys),
        colors,
        titles,
        n_neighbors=n_neighbors,
        min_dist=min_dist,
        metric=metric,
        seed=seed,
    )
    layouts = aligned(panels) if align else [panel.layout for panel in panels]
    table = panel_table(panels, layouts)
    scores = {
        c: panel_numbers(panels, c, metric)
        for c in colors
        if numbers and not is_continuous([panel.obs[c] for panel in panels])
    }
    figure = draw(
        table, colors, scores, palette=palette, legend_loc=legend_loc, size=size, seed=seed
    )
    return hand_over(figure, show, return_fig, n_axes=len(panels) * len(colors))


def _named(adata: AnnData | Mapping[str, AnnData] | Sequence[AnnData]) -> dict[str, AnnData]:
    if isinstance(adata, AnnData):
        return {"": adata}
    if isinstance(adata, Mapping):
        objects = dict(adata)
    else:
        objects = {str(number): one for number, one in enumerate(adata, start=1)}
    wrong = [type(one).__name__ for one in objects.values() if not isinstance(one, AnnData)]
    if wrong or not objects:
        raise InputError(
            f"Found {wrong[0] if wrong else 'no object'} in `adata`; expected an AnnData, or a "
            "list or dict of AnnData."
        )
    return objects
