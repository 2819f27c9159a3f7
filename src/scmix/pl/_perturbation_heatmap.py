"""Effects of several genes on several states, or on each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from .._errors import InputError, MissingKeyError
from ._perturbation_table import chosen, labels, read
from ._showing import hand_over
from ._style import LETTER, styled, subplots
from ._units import in_units, power_of, write_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MISSING = "#d9d9d9"
_OTHER = "effect_"  # columns of the scores for states other than the goals
_MOST_NUMBERS = 120  # cells of a heatmap that are still readable with a number in each


def perturbation_heatmap(
    adata: AnnData,
    genes: Sequence[str] | None = None,
    *,
    by: str = "states",
    key: str = "perturbation",
    n_genes: int = 20,
    show: bool | None = None,
    return_fig: bool = False,
) -> "Figure | Axes | list[Axes] | None":
    """Draw effects as colours: perturbed genes by states, or by affected genes.

    Orange is a shift towards a state and purple one away from it, white none; for genes, the
    lighter the larger. Grey was not measured.

    Parameters
    ----------
    adata
        Annotated data with the result of :func:`scmix.tl.perturb`.
    genes
        Perturbed genes, by name or symbol, in the order to draw; those with the largest effects
        when not given.
    by
        `"states"`: columns are the goals of the scores and the other states. `"genes"`: columns
        are affected genes, and the colour is how far a gene's own vector moved (1 minus the cosine
        before and after); needs `effects="genes"` in :func:`scmix.tl.perturb`.
    key
        Key of the result in `uns`.
    n_genes
        Number of perturbed, and of affected, genes when they are not given.
    show
        Show the figure; as `scanpy.settings.autoshow` says when not given.
    return_fig
        Return the figure instead of showing it.

    Returns
    -------
    The figure if `return_fig`, its axes if not shown, else nothing.

    Raises
    ------
    MissingKeyError
        If there is no result, no effects on genes, or no such gene.
    InputError
        If `by` is neither of the two.

    Examples
    --------
    >>> import pandas as pd, scmix
    >>> from anndata import AnnData
    >>> scores = pd.DataFrame(
    ...     {"gene": ["A", "B"] * 2, "goal": ["x", "x", "y", "y"], "effect": [0.2, -0.1, 0.0, 0.1]}
    ... )
    >>> adata = AnnData(uns={"perturbation": {"params": {}, "scores": scores}})
    >>> figure = scmix.pl.perturbation_heatmap(adata, return_fig=True)
    >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
    ['x', 'y']
    """
    if by not in ("states", "genes"):
        raise InputError(f"Found by={by!r}; expected 'states' or 'genes'.")
    make = state_matrix if by == "states" else gene_matrix
    matrix = make(adata, key, genes, n_genes)
    with styled():
        figure, axes = subplots(1, 1, *_size(matrix, by))
        _draw(axes, matrix, by)
    return hand_over(figure, show, return_fig, n_axes=1)


def state_matrix(
    adata: AnnData, key: str, genes: Sequence[str] | None, n_genes: int
) -> pd.DataFrame:
    """Effects, perturbed genes by goals; genes named by their symbol."""
    scores = pd.DataFrame(read(adata, key)["scores"])
    if "goal" not in scores:
        scores = scores.assign(goal="effect")
    scores = scores.assign(gene=scores["gene"].astype(str), goal=scores["goal"].astype(str))
    matrix = scores.pivot(index="gene", columns="goal", values="effect")
    matrix = matrix[list(pd.unique(scores["goal"]))]
    others = [name for name in scores if name.startswith(_OTHER)]
    first = scores.drop_duplicates("gene").set_index("gene")[others]
    matrix = matrix.join(first.rename(columns=lambda name: name.removeprefix(_OTHER)))
    return _some_rows(matrix, scores["gene"], labels(scores), genes, n_genes)


def gene_matrix(
    adata: AnnData, key: str, genes: Sequence[str] | None, n_genes: int
) -> pd.DataFrame:
    """How far vectors moved, perturbed genes by affected genes."""
    found = read(adata, key)
    if "genes" not in found:
        raise MissingKeyError(
            f"Found no effects on genes in uns[{key!r}]. Call scmix.tl.perturb with "
            'effects="genes".'
        )
    pairs = found["genes"]
    names = {"gene": pairs["perturbed"].astype(str)}
    names |= {"symbol": pairs["perturbed_symbol"]} if "perturbed_symbol" in pairs else {}
    named = labels(pd.DataFrame(names))
    columns = pairs["affected_symbol" if "affected_symbol" in pairs else "affected"].astype(str)
    matrix = pairs.assign(gene=names["gene"], column=columns).pivot_table(
        index="gene", columns="column", values="effect", observed=True
    )
    matrix = _some_rows(matrix, names["gene"], named, genes, n_genes)
    most = matrix.max().sort_values(ascending=False, kind="stable").index[:n_genes]
    return matrix[most]


def _some_rows(
    matrix: pd.DataFrame,
    names: pd.Series,
    symbols: pd.Series,
    genes: Sequence[str] | None,
    n_genes: int,
) -> pd.DataFrame:
    """Rows of the asked genes, or of those with the largest values from high to low."""
    if genes is None:
        largest = matrix.abs().max(axis=1).nlargest(n_genes).index
        rows = matrix.loc[largest].iloc[:, 0].sort_values(ascending=False).index
    else:
        rows = pd.Index(chosen(names, [genes] if isinstance(genes, str) else genes, symbols))
    shown = dict(zip(names, symbols, strict=True))
    return matrix.loc[rows].rename(index=shown)


def _size(matrix: pd.DataFrame, by: str) -> tuple[float, float]:
    """Width and height in inches: what the names need, and room for a number in each cell."""
    columns = [len(str(name)) for name in matrix.columns]
    rows = max(len(str(name)) for name in matrix.index) * LETTER
    if by == "genes":
        width, height = 0.15 * len(columns), LETTER * max(columns) + 0.35
    else:
        width, height = max(0.5, LETTER * max(columns)) * len(columns), 0.4
    return width + rows + 0.95, max(1.3, height + 0.155 * len(matrix))


def _draw(axes: "Axes", matrix: pd.DataFrame, by: str) -> None:
    from matplotlib import colormaps

    values = matrix.to_numpy(dtype=float)
    largest = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    signed = by == "states"
    image = axes.imshow(
        values,
        aspect="auto",
        cmap=colormaps["PuOr_r" if signed else "viridis"].with_extremes(bad=_MISSING),
        vmin=-largest if signed else 0,
        vmax=largest,
    )
    axes.set_xticks(range(matrix.shape[1]), matrix.columns, rotation=90 if by == "genes" else 0)
    axes.set_yticks(range(matrix.shape[0]), matrix.index)
    axes.set_xlabel("goal" if signed else "affected gene")
    axes.set_ylabel("perturbed gene")
    power = power_of(largest)
    label = in_units("effect" if signed else "1 - cosine", power)
    write_in(axes.figure.colorbar(image, ax=axes, label=label, shrink=0.8).ax.yaxis, power)
    if signed and values.size <= _MOST_NUMBERS:
        _write_numbers(axes, values, image, power)


def _write_numbers(axes: "Axes", values: np.ndarray, image: Any, power: int) -> None:
    """Two digits of the largest value, dark on light and light on dark."""
    largest = image.norm.vmax / 10.0**power
    digits = max(0, 1 - int(np.floor(np.log10(largest)))) if largest > 0 else 0
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            axes.text(
                column,
                row,
                f"{round(value / 10.0**power, digits) + 0.0:.{digits}f}",  # no minus before zero
                ha="center",
                va="center",
                fontsize="small",
                color="white" if dark else "black",
            )
