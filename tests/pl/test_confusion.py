import itertools

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scmix import pl
from scmix._errors import InputError, MissingKeyError
from scmix.pl._confusion import clustered, confusion_counts


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def labelled(true, predicted):
    obs = pd.DataFrame({"true": true, "predicted": predicted})
    obs.index = obs.index.astype(str)
    return AnnData(obs=obs)


def test_counts_are_in_category_order_with_what_is_no_label_last():
    true = pd.Series(pd.Categorical(["b", "b", "a", None, "b"], categories=["b", "c", "a"]))
    predicted = pd.Series(["b", "unknown", "a", "a", None])
    counts = confusion_counts(true, predicted)
    assert list(counts.index) == ["b", "a"]
    assert list(counts.columns) == ["b", "a", "missing", "unknown"] or list(counts.columns) == [
        *("b", "a", "unknown", "missing")
    ]
    assert counts.loc["b"].to_dict() == {"b": 1, "a": 0, "unknown": 1, "missing": 1}
    assert counts.loc["a"].to_dict() == {"b": 0, "a": 1, "unknown": 0, "missing": 0}


def test_counts_of_numbers_and_of_all_cells():
    rng = np.random.default_rng(0)
    true, predicted = pd.Series(rng.integers(4, size=200)), pd.Series(rng.integers(4, size=200))
    counts = confusion_counts(true, predicted)
    assert list(counts.index) == list(counts.columns) == ["0", "1", "2", "3"]
    expected = pd.crosstab(true, predicted).to_numpy()
    np.testing.assert_array_equal(counts.to_numpy(), expected)


def test_clustering_puts_mistaken_types_side_by_side_and_moves_nothing_else():
    names = [f"type{i}" for i in range(6)]
    table = pd.DataFrame(10 * np.eye(6, 7, dtype=int), index=names, columns=[*names, "unknown"])
    table.loc["type0", "type4"] = 8
    table.loc["type4", "type0"] = 8
    table.loc["type1", "type5"] = 5
    table.loc["type2", "unknown"] = 7
    ordered = clustered(table)
    place = {name: i for i, name in enumerate(ordered.index)}
    assert abs(place["type0"] - place["type4"]) == 1
    assert abs(place["type1"] - place["type5"]) == 1
    assert list(ordered.columns) == [*ordered.index, "unknown"]
    pd.testing.assert_frame_equal(ordered.loc[names, table.columns], table)


def test_drawn_shares_add_up_to_one_in_each_row():
    adata = labelled(["a"] * 4 + ["b"] * 6, ["a"] * 3 + ["b"] * 7)
    figure = pl.confusion(adata, "true", "predicted", return_fig=True)
    shares = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(shares, [[0.75, 0.25], [0, 1]])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["75", "25", "100"]
    sizes = figure.axes[0].child_axes[0]
    assert [label.get_text() for label in sizes.get_yticklabels()] == ["4", "6"]


@pytest.mark.parametrize("order", ["category", "cluster"])
def test_thirty_types_with_long_names_keep_their_names_apart(order):
    names = [f"CD4-positive, alpha-beta memory T cell, subset {i}" for i in range(30)]
    rng = np.random.default_rng(0)
    true = rng.choice(names, 600)
    adata = labelled(pd.Categorical(true, categories=names), rng.permutation(true))
    figure = pl.confusion(adata, "true", "predicted", order=order, return_fig=True)
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(set(shown)) == 30
    assert max(map(len, shown)) <= 32
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    heights = sorted((box.y0, box.y1) for box in boxes)
    assert all(low[1] <= high[0] + 1 for low, high in itertools.pairwise(heights))


def test_one_type_and_bad_input():
    one = labelled(["beta"] * 3, ["beta", "beta", "alpha"])
    axes = pl.confusion(one, "true", "predicted", show=False)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["beta", "alpha"]
    with pytest.raises(MissingKeyError, match="no column 'label'"):
        pl.confusion(one, "true", "label")
    with pytest.raises(InputError, match="order='size'"):
        pl.confusion(one, "true", "predicted", order="size")
    with pytest.raises(InputError, match="no cell with a label"):
        pl.confusion(labelled(pd.Categorical([None, None]), ["a", "b"]), "true", "predicted")
