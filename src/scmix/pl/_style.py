"""How every figure looks: sizes of print, colours of a light page, text that stays text.

Sizes are those on paper. At the width of a journal's column (85 mm) no letter of a figure of up
to 120 mm is smaller than 5 points; a wider one is meant for the width of the page (174 mm).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib.figure import Figure

COLUMN, PAIR, PAGE = 3.35, 4.7, 6.85  # inches: 85, 120 and 174 mm
LETTER = 0.062  # inches, of small text, rather wide than narrow
LINE, THIN = 1.2, 0.7  # points
GREY, RULE, GRID = "#7a7a7a", "#b0b0b0", "#e6e6e6"

STYLE: Any = {
    "figure.facecolor": "white",
    "figure.dpi": 180,  # a figure of print size is large enough on a screen, too
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.edgecolor": RULE,
    "axes.linewidth": THIN,
    "text.color": "black",
    "axes.labelcolor": "black",
    "xtick.color": "black",
    "ytick.color": "black",
    "font.size": 8.5,
    "axes.titlesize": "medium",
    "axes.labelsize": "small",
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": THIN,
    "ytick.major.width": THIN,
    "legend.fontsize": "small",
    "legend.title_fontsize": "small",
    "legend.frameon": False,
    "lines.linewidth": LINE,
}
_TEXT_STAYS_TEXT: Any = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none"}


class VectorFigure(Figure):
    """A figure whose letters stay letters in PDF, EPS and SVG files."""

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """As in matplotlib, whatever the session's font types are."""
        import matplotlib as mpl

        with mpl.rc_context(_TEXT_STAYS_TEXT):
            super().savefig(*arguments, **options)


@contextmanager
def styled() -> Iterator[None]:
    """The style of scmix's figures, which ends with the block."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def subplots(n_rows: int, n_columns: int, width: float, height: float, **options: Any) -> Any:
    """A figure of this size in inches and its axes, as `plt.subplots` makes them."""
    import matplotlib.pyplot as plt

    return plt.subplots(
        n_rows,
        n_columns,
        figsize=(width, height),
        layout="constrained",
        FigureClass=VectorFigure,
        **options,
    )
