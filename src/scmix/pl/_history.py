"""How the fine-tuning of a classifier went."""

from typing import TYPE_CHECKING

import pandas as pd

from .._errors import InputError
from ._colors import category_colors
from ._showing import hand_over
from ._style import PAIR, RULE, THIN, styled, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..classifiers import CellClassifier

_LOSSES = {"loss": "training", "validation_loss": "validation"}
_SCORES = {"validation_macro_f1": "macro-F1", "validation_accuracy": "accuracy"}
_COLORS = category_colors([*_LOSSES.values(), *_SCORES.values()])
_MARKERS = {"training": "", "validation": "s", "macro-F1": "s", "accuracy": "o"}


def history(
    classifier: "CellClassifier | pd.DataFrame",
    *,
    show: bool | None = None,
    return_fig: bool = False,
) -> "Figure | Axes | list[Axes] | None":
    """Draw the loss of training and validation, and the scores on the validation cells, by epoch.

    Epoch 0 is the classifier before fine-tuning. A vertical line stands at the epoch that was
    kept. The training loss counts classes by their weights and is measured with dropout, so it may
    lie above that of validation.

    Parameters
    ----------
    classifier
        Of `scmix.tl.fine_tune`, or its `history`.
    show
        Show the figure; as `scanpy.settings.autoshow` says when not given.
    return_fig
        Return the figure instead of showing it.

    Returns
    -------
    The figure if `return_fig`, the list of its two axes if not shown, else nothing.

    Raises
    ------
    InputError
        If nothing was recorded: a classifier of recipe "fast" was not trained in steps.

    Examples
    --------
    >>> import pandas as pd
    >>> import scmix
    >>> records = {"epoch": [0, 0.5, 1], "loss": [None, 0.9, None], "kept": [False, False, True]}
    >>> records |= {"validation_loss": [1.2, None, 0.7], "validation_macro_f1": [0.3, None, 0.8]}
    >>> figure = scmix.pl.history(pd.DataFrame(records), return_fig=True)
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'score on validation cells']
    """
    table: pd.DataFrame = getattr(classifier, "history", classifier)
    if not len(table):
        raise InputError(
            'Found no record of training: recipe "fast" (or epochs=0) fits regressions on the '
            'model as it is, without steps. Pass a classifier of recipe="tuned".'
        )
    return hand_over(_draw(make_curves(table)), show, return_fig, n_axes=2)


def make_curves(table: pd.DataFrame) -> pd.DataFrame:
    """The curves as a tidy table: panel ("loss" or "score"), curve, epoch, value, kept."""
    parts = []
    for panel, columns in (("loss", _LOSSES), ("score", _SCORES)):
        for column, curve in columns.items():
            if column not in table:
                continue
            rows = table[table[column].notna()]
            parts.append(
                pd.DataFrame(
                    {
                        "panel": panel,
                        "curve": curve,
                        "epoch": rows["epoch"].to_numpy(float),
                        "value": rows[column].to_numpy(float),
                        "kept": rows.get("kept", pd.Series(False, rows.index)).to_numpy(bool),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def _draw(curves: pd.DataFrame) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    with styled():
        figure, both = subplots(1, 2, PAIR, 2.1)
        for axes, panel in zip(both, ("loss", "score"), strict=True):
            here = curves[curves["panel"] == panel]
            for name, rows in here.groupby("curve", sort=False):
                axes.plot(
                    rows["epoch"],
                    rows["value"],
                    color=_COLORS[str(name)],
                    marker=_MARKERS[str(name)],
                    linestyle="--" if name == "accuracy" else "-",
                    markersize=3.5,
                    label=name,
                )
            for epoch in curves.loc[curves["kept"], "epoch"].unique():
                axes.axvline(epoch, color=RULE, linewidth=THIN, linestyle=":", label="kept")
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.spines[["top", "right"]].set_visible(False)
            if here.empty:
                axes.text(0.5, 0.5, "no validation cells", ha="center", transform=axes.transAxes)
            else:
                axes.legend()
        both[0].set_ylabel("loss")
        both[0].set_ylim(bottom=0)
        lowest = curves.loc[curves["panel"] == "score", "value"].min()
        both[1].set_ylim(max(0, lowest - 0.05), 1.02)
        both[1].set_ylabel("score on validation cells")
    return figure
