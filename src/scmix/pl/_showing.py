"""How a finished figure is returned or shown."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def hand_over(
    figure: "Figure", show: bool | None, return_fig: bool, n_axes: int
) -> "Figure | Axes | list[Axes] | None":
    """Return or show, as scanpy's plots do."""
    import matplotlib.pyplot as plt

    if return_fig:
        plt.close(figure)  # the caller has it; a notebook would draw it twice
        return figure
    if show is None:
        from scanpy import settings

        show = settings.autoshow
    if not show:
        return figure.axes[:n_axes] if n_axes > 1 else figure.axes[0]
    plt.show()
    return None
