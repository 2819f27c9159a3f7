import itertools
import logging

import matplotlib as mpl

mpl.use("Agg")

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex

from scmix import metrics, pl
from scmix._errors import InputError, MissingKeyError
from scmix.pl._colors import OKABE_ITO, category_colors
from scmix.pl._panels import aligned, make_panels, panel_numbers, panel_table

UMAP = {"n_neighbors": 15, "min_dist": 0.5, "metric": "cosine", "seed": 0}


def cells(n_cells=60, seed=0, categories=("beta", "alpha", "delta")):
    rng = np.random.default_rng(seed)
    labels = pd.Categorical(np.resize(categories, n_cells), categories=[*categories, "unused"])
    obs = pd.DataFrame(
        {
            "cell_type": labels,
            "species": np.repeat(["human", "mouse"], n_cells // 2),
            "depth": rng.integers(500, 3000, n_cells),
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    centres = 5 * np.eye(max(10, len(categories)))[:, :10][labels.codes]
    return AnnData(
        obs=obs,
        obsm={
            "X_one": centres + rng.normal(size=(n_cells, 10)),
            "X_two": centres + rng.normal(size=(n_cells, 10)),
            "X_one_umap": rng.normal(size=(n_cells, 2)),
            "X_two_umap": rng.normal(size=(n_cells, 2)),
        },
    )


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_table_holds_the_stored_layouts_exactly():
    adata = cells()
    panels = make_panels({"": adata}, ["X_one", "X_two"], ["cell_type", "depth"], None, **UMAP)
    table = panel_table(panels, [panel.layout for panel in panels])
    assert list(table.columns) == [
        *("panel", "title", "cell", "umap1", "umap2"),
        *("color:cell_type", "color:depth"),
    ]
    for number, key in enumerate(["X_one", "X_two"]):
        part = table[table["panel"] == number]
        assert (part["title"] == key).all()
        assert list(part["cell"]) == list(adata.obs_names)
        np.testing.assert_array_equal(part[["umap1", "umap2"]], adata.obsm[f"{key}_umap"])
        assert list(part["color:cell_type"]) == list(adata.obs["cell_type"])
        np.testing.assert_array_equal(part["color:depth"], adata.obs["depth"])
    assert list(table["color:cell_type"].cat.categories) == ["beta", "alpha", "delta"]


def test_layout_is_computed_from_the_seed_and_not_stored():
    adata = cells()
    del adata.obsm["X_one_umap"]
    before, state = set(adata.obsm), np.random.get_state()[1].copy()  # noqa: NPY002
    first, again = (
        make_panels({"": adata}, ["X_one"], ["species"], None, **UMAP)[0].layout for _ in range(2)
    )
    other = make_panels({"": adata}, ["X_one"], ["species"], None, **UMAP | {"seed": 1})[0].layout
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert set(adata.obsm) == before
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert metrics.knn_purity(first, adata.obs["cell_type"], k=5, metric="euclidean") > 0.9


def test_computing_a_layout_warns_of_nothing():
    adata = cells()
    del adata.obsm["X_one_umap"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_panels({"": adata}, ["X_one"], ["species"], None, **UMAP)


def test_two_columns_are_a_layout_already():
    adata = cells()
    panel = make_panels({"": adata}, ["X_two_umap"], ["species"], None, **UMAP)[0]
    np.testing.assert_array_equal(panel.layout, adata.obsm["X_two_umap"])


@pytest.mark.parametrize("n_cells", [3, 6, 12, 16])
def test_few_cells_have_a_layout(n_cells):
    adata = cells(60)[:n_cells].copy()
    del adata.obsm["X_one_umap"]
    layout = make_panels({"": adata}, ["X_one"], ["species"], None, **UMAP)[0].layout
    assert np.isfinite(layout).all()


def test_cells_without_a_vector_are_left_out_and_said(caplog):
    adata = cells()
    del adata.obsm["X_one_umap"]
    adata.obsm["X_one"][[4, 7]] = np.nan
    panels = make_panels({"": adata}, ["X_one", "X_two"], ["species"], None, **UMAP)
    with caplog.at_level(logging.INFO, logger="scmix"):
        table = panel_table(panels, aligned(panels))
    assert "left out 2 of 60 cells without a vector in 'X_one'" in caplog.text
    drawn = table.groupby("panel")["cell"].agg(set)
    assert set(adata.obs_names) - drawn[0] == {"cell4", "cell7"}
    assert drawn[1] == set(adata.obs_names)


def test_aligning_puts_a_turned_copy_on_the_first_panel():
    adata = cells()
    turned = adata.obsm["X_one_umap"] @ np.array([[0.0, 3.0], [3.0, 0.0]]) + 7
    adata.obsm["X_two_umap"] = turned
    panels = make_panels({"": adata}, ["X_one", "X_two"], ["species"], None, **UMAP)
    np.testing.assert_allclose(aligned(panels)[1], adata.obsm["X_one_umap"], atol=1e-10)
    assert panel_numbers(panels, "species", "cosine")["centroid_shift"].max() < 1e-9


def test_aligning_other_cells_is_refused():
    with pytest.raises(InputError, match="Found other cells in panel 'b'"):
        pl.umap_compare(
            {"a": cells(), "b": cells(40)}, "X_one", color="species", align=True, return_fig=True
        )


def test_numbers_are_the_metrics_of_the_embedding():
    adata = cells()
    panels = make_panels({"": adata}, ["X_one", "X_two"], ["cell_type"], None, **UMAP)
    numbers = panel_numbers(panels, "cell_type", "cosine")
    labels = adata.obs["cell_type"]
    for key in ("X_one", "X_two"):
        assert numbers.loc[key, "silhouette"] == metrics.silhouette(adata.obsm[key], labels)
        assert numbers.loc[key, "purity"] == metrics.knn_purity(adata.obsm[key], labels)
    moved = metrics.procrustes(adata.obsm["X_one_umap"], adata.obsm["X_two_umap"])
    expected = metrics.centroid_distance(adata.obsm["X_one_umap"], moved, labels)
    assert list(numbers["centroid_shift"]) == [0.0, pytest.approx(expected)]


def test_several_objects_share_colours():
    one, two = cells(), cells(40, categories=("gamma", "beta"))
    figure = pl.umap_compare(
        {"mine": one, "yours": two}, "X_one", color="cell_type", return_fig=True
    )
    assert [axes.get_title() for axes in figure.axes] == ["mine", "yours"]
    legend = figure.axes[1].get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["beta", "alpha", "delta", "gamma"]
    expected = dict(zip(names, [line.get_color() for line in legend.get_lines()], strict=True))
    assert expected == category_colors(names)
    for axes, data in zip(figure.axes, (one, two), strict=True):
        assert drawn_colors(axes, data, "X_one_umap") == [
            expected[c] for c in data.obs["cell_type"]
        ]


def drawn_colors(axes, data, key):
    """Colour of each cell as drawn, found by its place."""
    points = axes.collections[0]
    places = {
        tuple(xy): to_hex(c)
        for xy, c in zip(points.get_offsets().data, points.get_facecolors(), strict=True)
    }
    return [places[tuple(xy)] for xy in data.obsm[key]]


def test_grid_of_colours_and_keys():
    adata = cells()
    axes = pl.umap_compare(
        adata, ["X_one", "X_two"], color=["species", "cell_type", "depth"], numbers=True, show=False
    )
    assert len(axes) == 6
    assert [a.get_title() for a in axes] == ["X_one", "X_two", "", "", "", ""]
    legends = [a.get_legend() for a in axes]
    assert [legend is not None for legend in legends] == [False, True, False, True, False, False]
    assert legends[3].get_title().get_text() == "cell_type"
    assert axes[0].get_xlabel().startswith("silhouette ")
    assert axes[4].get_xlabel() == ""
    first, second = axes[4].collections[0], axes[5].collections[0]
    assert (
        first.get_clim()
        == second.get_clim()
        == (
            adata.obs["depth"].min(),
            adata.obs["depth"].max(),
        )
    )
    assert [len(a.child_axes) for a in axes] == [0, 0, 0, 0, 0, 1]  # one colour bar
    assert all(a.get_aspect() == 1.0 for a in axes)


def test_order_of_drawing_is_random_and_seeded():
    adata = cells()

    def drawn(seed):
        axes = pl.umap_compare(adata, "X_one", color="species", seed=seed, show=False)
        return np.asarray(axes.collections[0].get_offsets())

    np.testing.assert_array_equal(drawn(0), drawn(0))
    assert not np.array_equal(drawn(0), drawn(1))
    assert not np.array_equal(drawn(0), adata.obsm["X_one_umap"])


def test_missing_labels_are_grey_and_named():
    adata = cells()
    adata.obs.loc["cell0", "species"] = None
    figure = pl.umap_compare(adata, "X_one", color="species", return_fig=True)
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["human", "mouse", "missing"]
    assert drawn_colors(figure.axes[0], adata, "X_one_umap")[0] == "#d3d3d3"


def test_names_on_data_instead_of_a_legend():
    adata = cells()
    adata.obs.loc["cell0", "cell_type"] = None
    figure = pl.umap_compare(
        adata, "X_one", color="cell_type", legend_loc="on data", return_fig=True
    )
    assert figure.axes[0].get_legend() is None
    assert {text.get_text() for text in figure.axes[0].texts} == {"beta", "alpha", "delta"}


def many_clumps(n_types=13, n_cells=1300):
    """Types in a row of clumps, the first one in two places."""
    adata = cells(n_cells, categories=tuple(f"t{i:02d}" for i in range(n_types)))
    codes = adata.obs["cell_type"].cat.codes.to_numpy()
    places = np.stack([10.0 * codes, 7.0 * (codes % 3)], axis=1)
    places[(codes == 0) & (np.arange(n_cells) >= n_cells // 2)] += [0, 30]
    adata.obsm["X_two_umap"] = places + np.random.default_rng(1).normal(size=(n_cells, 2))
    return adata


def test_more_categories_than_safe_colours_have_numbers_beside_their_cells():
    adata = many_clumps()
    figure = pl.umap_compare(adata, "X_two_umap", color="cell_type", return_fig=True)
    axes = figure.axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == [f"{i + 1} t{i:02d}" for i in range(13)]
    numbers = [text.get_text() for text in axes.texts]
    assert sorted(numbers, key=int) == ["1", *map(str, range(1, 14))]  # the first clump is in two
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    points = axes.transData.transform(adata.obsm["X_two_umap"])
    for text, box in zip(axes.texts, boxes, strict=True):
        middle = [(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]
        nearest = np.linalg.norm(points - middle, axis=1).argmin()
        assert adata.obs["cell_type"].cat.codes.iloc[nearest] == int(text.get_text()) - 1
        hidden = (np.abs(points - middle) < [box.width / 2, box.height / 2]).all(axis=1)
        assert hidden.mean() < 0.02


def test_numbers_that_find_no_room_beside_their_cells_are_joined_to_them_by_a_line():
    rng = np.random.default_rng(0)
    adata = cells(600, categories=tuple(f"t{i:02d}" for i in range(12)))
    adata.obsm["X_two_umap"] = rng.normal(size=(600, 2))
    figure = pl.umap_compare(adata, "X_two_umap", color="cell_type", return_fig=True)
    texts = figure.axes[0].texts
    assert {text.get_text() for text in texts} == {str(i) for i in range(1, 13)}
    assert any(text.arrow_patch is not None for text in texts)


def test_few_categories_and_names_on_data_have_no_numbers():
    figure = pl.umap_compare(cells(), "X_one", color="cell_type", return_fig=True)
    assert len(figure.axes[0].texts) == 0
    figure = pl.umap_compare(
        many_clumps(), "X_two_umap", color="cell_type", legend_loc="on data", return_fig=True
    )
    assert {text.get_text()[0] for text in figure.axes[0].texts} == {"t"}


def test_drawing_leaves_data_and_style_alone():
    adata = cells()
    before, style = adata.copy(), dict(mpl.rcParams)
    pl.umap_compare(adata, ["X_one", "X_two"], color="species", return_fig=True)
    assert dict(mpl.rcParams) == style
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert set(adata.obsm) == set(before.obsm)
    assert dict(adata.uns) == {}


@pytest.mark.parametrize(("n_names", "n_colors"), [(2, 2), (8, 8), (9, 9), (25, 25), (60, 60)])
def test_default_colours_are_distinct(n_names, n_colors):
    colors = category_colors([f"type{i}" for i in range(n_names)])
    assert len(set(colors.values())) == n_colors
    if n_names <= 8:
        assert list(colors.values()) == list(OKABE_ITO[:n_names])


def test_a_given_palette_is_used():
    assert category_colors(["a", "b", "c"], ["red", "blue"]) == {
        "a": "#ff0000",
        "b": "#0000ff",
        "c": "#ff0000",
    }
    assert category_colors(["b"], {"a": "red", "b": "blue"}) == {"b": "#0000ff"}
    with pytest.raises(InputError, match="no colour for 'b'"):
        category_colors(["a", "b"], {"a": "red"})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"keys": "X_on", "color": "species"}, MissingKeyError, "'X_on' in adata.obsm; .*'X_one'"),
        ({"keys": "X_one", "color": "specie"}, MissingKeyError, "adata.obs; there is 'species'"),
        ({"keys": "X_one", "color": "species", "titles": ["a", "b"]}, InputError, "2 titles for 1"),
        ({"keys": "X_one", "color": "species", "legend_loc": "left"}, InputError, "legend_loc"),
    ],
)
def test_bad_arguments_are_named_before_any_work(arguments, error, message, monkeypatch):
    monkeypatch.setattr("scmix.pl._panels._umap", None)
    with pytest.raises(error, match=message):
        pl.umap_compare(cells(), **arguments)


def test_other_objects_are_refused():
    with pytest.raises(InputError, match="Found DataFrame"):
        pl.umap_compare([cells().obs], "X_one", color="species")
