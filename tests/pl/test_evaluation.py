import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex

from scmix import pl
from scmix._errors import InputError, MissingKeyError
from scmix.pl._evaluation import COLORS, evaluation_points
from scmix.pl._style import THIN


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def made(splits=("5-fold",)):
    rows = pd.DataFrame(
        {
            "representation": ["none", "PCA-50", "scmix-mini", "X_mine", "genes"],
            "classifier": ["majority", "kNN", "kNN", "kNN", "CellTypist"],
            "kind": ["baseline", "baseline", "scmix", "yours", "other"],
            "note": ["", "", "", "", "not installed: pip install celltypist"],
        }
    )
    for i, name in enumerate(["macro_f1", "accuracy", "balanced_accuracy"]):
        mean = np.array([0.1, 0.5, 0.7, 0.9, np.nan]) + 0.01 * i
        rows[name] = mean
        rows[f"{name}_sd"] = [0, 0.02, 0.03, np.nan, np.nan]
        rows[f"{name}_low"], rows[f"{name}_high"] = mean - 0.05, mean + 0.04
    return pd.concat([rows.assign(split=split) for split in splits], ignore_index=True)


def test_points_are_the_columns_of_the_metric():
    points = evaluation_points(made(), "accuracy")
    assert list(points["name"]) == [
        "majority",
        "PCA-50 · kNN",
        "scmix-mini · kNN",
        "X_mine · kNN",
        "CellTypist",
    ]
    assert points["mean"].iloc[1] == pytest.approx(0.51)
    assert (points["low"].iloc[:4] < points["mean"].iloc[:4]).all()


def test_what_is_drawn_is_what_is_in_the_table():
    figure = pl.evaluation(made(), return_fig=True)
    axes = figure.axes[0]
    points = [line for line in axes.lines if line.get_marker() not in ("None", "", None)]
    assert [float(np.ravel(line.get_xdata())[0]) for line in points] == [0.1, 0.5, 0.7, 0.9]
    faces = [to_hex(line.get_markerfacecolor()) for line in points]
    assert faces == ["#ffffff", "#ffffff", COLORS["scmix"], COLORS["yours"]]
    thin = [tuple(line.get_xdata()) for line in axes.lines if line.get_linewidth() == THIN]
    assert thin[1] == pytest.approx((0.45, 0.54))
    thick = [tuple(line.get_xdata()) for line in axes.lines if line.get_linewidth() == 2.5]
    assert thick == [pytest.approx((0.48, 0.52)), pytest.approx((0.67, 0.73))]
    assert [text.get_text() for text in axes.texts] == ["not installed"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "baseline",
        "scmix",
        "yours",
        "other packages",
    ]


def test_a_panel_for_each_split_from_the_object():
    adata = AnnData(uns={"mine": {"table": made(("human to mouse", "mouse to human"))}})
    axes = pl.evaluation(adata, key="mine", metric="accuracy", show=False)
    assert [one.get_title() for one in axes] == ["human to mouse", "mouse to human"]
    assert axes[0].get_xlabel() == "accuracy"


def test_bad_input_is_named():
    with pytest.raises(MissingKeyError, match=r'no evaluation in adata.uns\["evaluation"\]'):
        pl.evaluation(AnnData(np.ones((2, 2))))
    with pytest.raises(InputError, match="metric='f1'"):
        pl.evaluation(made(), metric="f1")
    with pytest.raises(InputError, match="without macro_f1_low"):
        pl.evaluation(made().drop(columns="macro_f1_low"))
