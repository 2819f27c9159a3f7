import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scmix import pl
from scmix._errors import InputError, MissingKeyError
from scmix.pl._confidence import make_curves


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def cells():
    """Six labelled cells, one unknown, one without a vector, one without a true label."""
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(["a", "b", "a", "b", "c", "a", "b", "a", None]),
            "found": pd.Categorical(["a", "b", "b", "b", "a", "a", "unknown", None, "a"]),
            "found_confidence": [0.95, 0.9, 0.62, 0.6, 0.55, 0.95, 0.3, np.nan, 1.0],
        },
        index=[f"cell{i}" for i in range(9)],
    )
    return AnnData(obs=obs)


def test_curves_by_hand():
    curves = make_curves(cells(), "cell_type", "found", n_bins=5)
    table = curves.table
    np.testing.assert_array_equal(table["n_cells"], [2, 1, 3])  # to 0.6, to 0.8, to 1
    np.testing.assert_allclose(table["confidence"], [0.575, 0.62, 2.8 / 3])
    np.testing.assert_allclose(table["accuracy"], [0.5, 0, 1])
    np.testing.assert_allclose(curves.share, np.arange(1, 7) / 7)  # the unknown is not covered
    np.testing.assert_allclose(curves.risk, [0, 0, 0, 1 / 4, 1 / 5, 2 / 6])


def test_figure_shows_the_curves():
    figure = pl.confidence(cells(), "cell_type", "found", n_bins=5, return_fig=True)
    left, right = figure.axes
    np.testing.assert_allclose(left.lines[1].get_xydata(), left_points())
    np.testing.assert_allclose(right.lines[0].get_ydata(), [0, 0, 0, 1 / 4, 1 / 5, 2 / 6])
    (ece,), (aurc,) = ([t.get_text() for t in a.get_legend().get_texts()] for a in figure.axes)
    assert ece == f"found: ECE {(2 * 0.075 + 0.62 + 3 * 0.2 / 3) / 6:.3f}"
    assert aurc == f"found: AURC {(1 / 4 + 1 / 5 + 2 / 6) / 6:.3f}"


def left_points():
    return [[0.575, 0.5], [0.62, 0], [2.8 / 3, 1]]


def test_several_labels_share_the_axes_and_differ_in_colour_and_marker():
    adata = cells()
    for column in ("found", "found_confidence"):
        adata.obs[column.replace("found", "other")] = adata.obs[column]
    axes = pl.confidence(adata, "cell_type", ["found", "other"], show=False)
    assert len(axes) == 2
    curves = axes[1].lines[::2]
    assert len({line.get_color() for line in curves}) == 2
    assert len({line.get_marker() for line in axes[1].lines[1::2]}) == 2


def test_nothing_is_written():
    adata = cells()
    before = adata.obs.copy()
    pl.confidence(adata, "cell_type", "found", show=False)
    pd.testing.assert_frame_equal(adata.obs, before)
    assert not adata.uns


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (("cell_typ", "found"), MissingKeyError, "no column 'cell_typ'"),
        (("cell_type", "cell_type"), MissingKeyError, "no column 'cell_type_confidence'"),
    ],
)
def test_missing_columns_are_named(call, error, message):
    with pytest.raises(error, match=message):
        pl.confidence(cells(), *call)


def test_no_cell_to_compare_is_named():
    adata = cells()[6:].copy()
    with pytest.raises(InputError, match="no cell with a label in 'cell_type'"):
        pl.confidence(adata, "cell_type", "found")
