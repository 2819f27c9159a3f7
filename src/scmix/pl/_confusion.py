"""Which types are taken for which."""

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData

from .._errors import InputError, MissingKeyError
from ._showing import hand_over
from ._style import LETTER, THIN, styled, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Order = Literal["category", "cluster"]
_NUMBERS_UP_TO = 12  # types; above, the colours have to do
_LONGEST_NAME = 32


def confusion(
    adata: AnnData,
    true: str,
    predicted: str,
    *,
    order: Order = "category",
    show: bool | None = None,
    return_fig: bool = False,
) -> "Figure | Axes | list[Axes] | None":
    """Draw which predicted labels the cells of each true label got.

    Each row is a true label and adds up to 100 %; the number of its cells stands at the right.
    Predictions that are no true label, such as `"unknown"`, come last. Cells without a true label
    are left out.

    Parameters
    ----------
    adata
        Annotated data.
    true, predicted
        Columns of `obs`.
    order
        `"category"`: as the categories of the true labels are ordered. `"cluster"`: labels that
        are mistaken for each other side by side.
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
        If a column does not exist.
    InputError
        If no cell has a true label, or `order` is not as above.

    Examples
    --------
    >>> import scmix
    >>> from anndata import AnnData
    >>> adata = AnnData(obs={"cell_type": ["alpha", "beta", "beta"]})
    >>> adata.obs["scmix_label"] = ["alpha", "alpha", "beta"]
    >>> figure = scmix.pl.confusion(adata, "cell_type", "scmix_label", return_fig=True)
    >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
    ['alpha', 'beta']
    """
    if order not in get_args(Order):
        raise InputError(f"Found order={order!r}; expected one of {get_args(Order)}.")
    for key in (true, predicted):
        if key not in adata.obs:
            raise MissingKeyError(
                f"Found no column {key!r} in adata.obs; there are {list(adata.obs)}."
            )
    counts = confusion_counts(adata.obs[true], adata.obs[predicted])
    if order == "cluster":
        counts = clustered(counts)
    return hand_over(_draw(counts, true, predicted), show, return_fig, n_axes=1)


def confusion_counts(true: pd.Series, predicted: pd.Series) -> pd.DataFrame:
    """Cells by true label (rows) and predicted label (columns): the same labels first, in order."""
    rows = _categorical(true)
    kept = rows.notna()
    if not kept.any():
        raise InputError(f"Found no cell with a label in {true.name!r}.")
    rows = rows[kept].remove_unused_categories()
    columns = _categorical(predicted)[kept]
    columns = columns.add_categories("missing").fillna("missing")
    columns = columns.remove_unused_categories()
    names = list(rows.categories)
    extra = [name for name in columns.categories if name not in rows.categories]
    table = np.zeros((len(names), len(names) + len(extra)), dtype=np.int64)
    place = {name: i for i, name in enumerate([*names, *extra])}
    at = np.array([place[name] for name in columns.categories])[columns.codes]
    np.add.at(table, (rows.codes, at), 1)
    return pd.DataFrame(table, index=names, columns=[*names, *extra])


def clustered(counts: pd.DataFrame) -> pd.DataFrame:
    """The same with labels that are taken for each other side by side; extra columns stay last."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    names = list(counts.index)
    if len(names) < 3:
        return counts
    shares = _shares(counts)[names].to_numpy()
    distance = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distance, 0)
    condensed = squareform(distance, checks=False)
    tree = optimal_leaf_ordering(linkage(condensed, "average"), condensed)
    ordered = [names[i] for i in leaves_list(tree)]
    return counts.loc[ordered, [*ordered, *counts.columns[len(names) :]]]


def _categorical(values: pd.Series) -> pd.Categorical:
    return pd.Categorical(values).remove_unused_categories().rename_categories(str)


def _shares(counts: pd.DataFrame) -> pd.DataFrame:
    return counts.div(counts.sum(axis=1), axis=0)


def _draw(counts: pd.DataFrame, true: str, predicted: str) -> "Figure":
    n_rows, n_columns = counts.shape
    numbers = n_rows <= _NUMBERS_UP_TO
    cell = 0.23 if numbers else 0.15
    room = LETTER * min(max(map(len, counts.columns)), _LONGEST_NAME) + 0.3
    width = n_columns * cell + room + (0.4 if numbers else 1.0)
    shares = _shares(counts).to_numpy()
    with styled():
        figure, axes = subplots(1, 1, width, n_rows * cell + room + 0.15)
        # not cividis: its light end is a strong yellow, in which rare mistakes shout
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        _name(axes, counts, true, predicted)
        if numbers:
            _write_numbers(axes, shares)
        else:
            bar = figure.colorbar(image, ax=axes, shrink=min(1, 1.6 / (n_rows * cell)), aspect=12)
            bar.set_label("share of the true label")
            bar.outline.set_visible(False)
    return figure


def _name(axes: "Axes", counts: pd.DataFrame, true: str, predicted: str) -> None:
    percent = " (% of the true)" if len(counts) <= _NUMBERS_UP_TO else ""
    axes.set_xticks(range(counts.shape[1]), map(_short, counts.columns), rotation=90, ha="center")
    axes.set_yticks(range(len(counts)), map(_short, counts.index))
    axes.set(xlabel=f"{predicted}{percent}", ylabel=true)
    axes.tick_params(length=0)
    sizes = axes.secondary_yaxis("right")
    sizes.set_yticks(range(len(counts)), [f"{n:,}" for n in counts.sum(axis=1)])
    sizes.tick_params(length=0)
    sizes.spines[:].set_visible(False)
    sizes.set_ylabel("cells")
    if counts.shape[1] > len(counts):  # what is no true label stands apart
        axes.axvline(len(counts) - 0.5, color="#7a7a7a", linewidth=THIN)


def _write_numbers(axes: "Axes", shares: np.ndarray) -> None:
    """Percentages, light on dark and dark on light; those that round to zero are left out."""
    for row, column in np.argwhere(shares >= 0.005):
        share = shares[row, column]
        axes.text(
            column,
            row,
            f"{100 * share:.0f}",
            ha="center",
            va="center",
            fontsize="small",
            color="white" if share > 0.55 else "black",
        )


def _short(name: str) -> str:
    """Long names without their middle: both ends tell types apart."""
    if len(name) <= _LONGEST_NAME:
        return name
    end = _LONGEST_NAME // 2
    return f"{name[: _LONGEST_NAME - end - 1]}…{name[-end:]}"
