"""How far the confidence of labels can be believed, and what it is worth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from .._errors import InputError, MissingKeyError
from ..statistics import Reliability, reliability, risk_coverage
from ._colors import category_colors
from ._showing import hand_over
from ._style import LINE, PAIR, RULE, THIN, styled, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UNKNOWN = "unknown"
_MARKERS = "osD^vP*X"


def confidence(
    adata: AnnData,
    label_key: str,
    keys: str | Sequence[str] = "scmix_label",
    *,
    n_bins: int = 15,
    show: bool | None = None,
    return_fig: bool = False,
) -> "Figure | Axes | list[Axes] | None":
    """Draw how often labels are right at each confidence, and the errors among the surest cells.

    Left, the reliability curve: cells by confidence, in bins of equal width; on the diagonal,
    labels of 80 % confidence are right in 80 % of cells. The area of a point shows how many cells
    it stands for; ECE is the mean distance to the diagonal, weighted by cells. Right, the
    risk-coverage curve: the share of wrong labels among the most confident cells, for every share
    of cells that is labelled; AURC is its mean. A level curve means that confidence says nothing.

    Cells labelled "unknown" are in neither curve but count as not covered. A cell of a type that
    the labels do not offer is wrong whatever its label. Cells without a true label or without a
    confidence are left out.

    Parameters
    ----------
    adata
        Annotated data with labels of :func:`scmix.tl.annotate` or
        :func:`scmix.tl.transfer_labels`.
    label_key
        Column of `obs` with the true labels.
    keys
        Columns of `obs` with labels; `obs[f"{key}_confidence"]` says how sure each is.
    n_bins
        Bins of confidence between 0 and 1.
    show
        Show the figure; as `scanpy.settings.autoshow` says when not given.
    return_fig
        Return the figure instead of showing it.

    Returns
    -------
    The figure if `return_fig`, the list of its two axes if not shown, else nothing.

    Raises
    ------
    MissingKeyError
        If a column does not exist.
    InputError
        If no cell has a true label and a confidence.

    Examples
    --------
    >>> import scmix
    >>> from anndata import AnnData
    >>> adata = AnnData(obs={"cell_type": ["alpha", "beta", "beta"]})
    >>> adata.obs["scmix_label"] = ["alpha", "beta", "alpha"]
    >>> adata.obs["scmix_label_confidence"] = [0.9, 0.8, 0.6]
    >>> figure = scmix.pl.confidence(adata, "cell_type", return_fig=True)
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['confidence', 'share of cells labelled']
    """
    names = [keys] if isinstance(keys, str) else list(keys)
    curves = {key: make_curves(adata, label_key, key, n_bins) for key in names}
    return hand_over(_draw(curves), show, return_fig, n_axes=2)


class Curves:
    """Both curves of one column of labels.

    Parameters
    ----------
    sure, right
        Confidence and whether the label is right, of the cells with a label.
    n_cells
        Those, and the cells called unknown.
    n_bins
        Of the reliability curve.
    """

    def __init__(self, sure: np.ndarray, right: np.ndarray, n_cells: int, n_bins: int) -> None:
        self.bins: Reliability = reliability(sure, right, n_bins)
        share, self.risk = risk_coverage(sure, right)
        self.share = share * len(sure) / n_cells

    @property
    def table(self) -> pd.DataFrame:
        """The reliability curve, one row for each bin with cells."""
        columns = {name: getattr(self.bins, name) for name in self.bins._fields}
        table = pd.DataFrame(columns)
        return table[table["n_cells"] > 0].reset_index(drop=True)


def make_curves(adata: AnnData, label_key: str, key: str, n_bins: int) -> Curves:
    """Compare the labels of a key with the truth."""
    for column in (label_key, key, f"{key}_confidence"):
        if column not in adata.obs:
            raise MissingKeyError(
                f"Found no column {column!r} in adata.obs; there are {list(adata.obs)}. Labels and "
                "their confidence are written by scmix.tl.annotate and scmix.tl.transfer_labels."
            )
    truth, label = adata.obs[label_key], adata.obs[key]
    sure = adata.obs[f"{key}_confidence"].to_numpy(dtype=np.float64)
    compared = truth.notna().to_numpy() & label.notna().to_numpy() & np.isfinite(sure)
    labelled = compared & (label.astype(str) != _UNKNOWN).to_numpy()
    if not labelled.any():
        raise InputError(
            f"Found no cell with a label in {label_key!r} and one in {key!r} that has a "
            "confidence; expected at least one."
        )
    right = (truth.astype(str) == label.astype(str)).to_numpy()
    return Curves(sure[labelled], right[labelled], int(compared.sum()), n_bins)


def _draw(curves: dict[str, Curves]) -> "Figure":
    colors = category_colors(list(curves))
    with styled():
        figure, (left, right) = subplots(1, 2, PAIR, 2.25 + 0.15 * len(curves))
        left.plot([0, 1], [0, 1], color=RULE, linewidth=THIN, linestyle="--", zorder=0)
        for number, (key, curve) in enumerate(curves.items()):
            marker = _MARKERS[number % len(_MARKERS)]
            _reliability(left, curve, key, colors[key], marker)
            _risk(right, curve, key, colors[key], marker)
        left.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="share correct")
        left.set_aspect("equal", adjustable="box")
        right.set(xlim=(0, 1.02), xlabel="share of cells labelled", ylabel="share of them wrong")
        right.set_ylim(bottom=0)
        for axes in (left, right):
            axes.legend(
                loc="lower center", bbox_to_anchor=(0.5, 1.0), handletextpad=0.5, borderpad=0
            )
            axes.spines[["top", "right"]].set_visible(False)
    return figure


def _reliability(axes: "Axes", curve: Curves, key: str, color: str, marker: str) -> None:
    table = curve.table
    axes.plot(table["confidence"], table["accuracy"], color=color, linewidth=LINE)
    share = table["n_cells"] / table["n_cells"].sum()
    axes.scatter(
        table["confidence"],
        table["accuracy"],
        s=6 + 90 * share,
        color=color,
        marker=marker,
        alpha=0.8,
        linewidths=0,
        label=f"{key}: ECE {curve.bins.error:.3f}",
    )


def _risk(axes: "Axes", curve: Curves, key: str, color: str, marker: str) -> None:
    axes.plot(
        curve.share,
        curve.risk,
        color=color,
        linewidth=LINE,
        drawstyle="steps-post",
        clip_on=False,  # no errors lie on the axis
        label=f"{key}: AURC {curve.risk.mean():.3f}",
    )
    axes.plot(curve.share[-1], curve.risk[-1], color=color, marker=marker, markersize=4)
