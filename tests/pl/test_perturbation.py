import itertools

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.quiver import Quiver

from scmix import pl
from scmix._errors import InputError, MissingKeyError
from scmix.pl._arrows import arrows
from scmix.pl._perturbation import HIT
from scmix.pl._perturbation_heatmap import gene_matrix, state_matrix
from scmix.pl._perturbation_shift import arrow_table
from scmix.pl._perturbation_table import effect_table, read, strongest
from scmix.pl._units import power_of


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def scores():
    return pd.DataFrame(
        {
            "gene": ["e1", "e2", "e3", "e4", "e5"],
            "symbol": ["A", "B", "", "D", "E"],
            "goal": "ill",
            "effect": [0.01, -0.3, 0.2, np.nan, 0.9],
            "ci_low": [0.0, -0.4, 0.1, np.nan, 0.5],
            "ci_high": [0.02, -0.2, 0.3, np.nan, 1.0],
            "p_matched": [0.9, 1e-4, 1e-3, np.nan, 1e-9],
            "padj_matched": [0.9, 0.001, 0.01, np.nan, 1e-8],
            "padj_state": [0.5, 0.3, 0.01, np.nan, 0.001],
            "p_family": [0.5, 0.02, 0.2, np.nan, 0.001],
            "estimated": False,
            "flag": ["", "", "", "", "few_cells"],
        }
    )


def scored(table=None, **params):
    params = {"state_key": "state", "start": "healthy", "goal": "ill", **params}
    table = scores() if table is None else table
    return AnnData(uns={"perturbation": {"params": params, "scores": table}})


def test_table_holds_effects_in_order_names_and_hits():
    table = effect_table(scored(), "perturbation", goal=None, alpha=0.05, flagged=False)
    assert list(table["label"]) == ["e3", "A", "B"]
    # e3 by shuffled states with BH, B by the family-wise p; both against matched genes, too
    assert list(table["hit"]) == [True, False, True]
    strict = effect_table(scored(), "perturbation", goal=None, alpha=0.005, flagged=False)
    assert not strict["hit"].any()
    with_flagged = effect_table(scored(), "perturbation", goal="ill", alpha=0.05, flagged=True)
    assert list(with_flagged["label"]) == ["E", "e3", "A", "B"]


def test_family_wise_p_does_not_count_after_a_screen():
    table = scores().assign(estimated=[True, False, False, False, False])
    found = effect_table(scored(table), "perturbation", goal=None, alpha=0.05, flagged=False)
    assert list(found["hit"]) == [True, False, False]  # B had the family-wise p alone


def test_no_hit_without_a_test_of_states():
    table = scores()
    table[["padj_state", "p_family"]] = np.nan
    found = effect_table(scored(table), "perturbation", goal=None, alpha=0.05, flagged=True)
    assert not found["hit"].any()


def test_strongest_are_largest_either_way_in_order():
    table = effect_table(scored(), "perturbation", goal=None, alpha=0.05, flagged=False)
    assert list(strongest(table, 2)["label"]) == ["e3", "B"]
    with pytest.raises(InputError, match="n_genes=0"):
        strongest(table, 0)


def test_several_goals_must_be_named():
    two = scored(pd.concat([scores(), scores().assign(goal="old")], ignore_index=True))
    with pytest.raises(InputError, match="Found several goals: ill, old"):
        pl.perturbation(two)
    with pytest.raises(MissingKeyError, match="Found no goal 'young'; expected one of ill, old"):
        pl.perturbation(two, goal="young")
    assert len(effect_table(two, "perturbation", goal="old", alpha=0.05, flagged=False)) == 3


def test_perturbation_draws_the_table():
    figure = pl.perturbation(scored(), return_fig=True)
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["e3", "A", "B"]
    intervals = [segment[:, 0].tolist() for segment in left.collections[0].get_segments()]
    assert intervals == [[0.1, 0.3], [0.0, 0.02], [-0.4, -0.2]]
    assert "healthy → ill" in left.get_xlabel()
    points = [c for c in right.collections if isinstance(c, PathCollection)]
    hits = points[-1]
    assert to_hex(hits.get_facecolor()[0]) == HIT
    np.testing.assert_allclose(
        np.sort(hits.get_offsets(), axis=0), np.sort([[0.2, 3], [-0.3, 4]], axis=0)
    )
    assert {text.get_text() for text in right.texts} == {"e3", "B"}


def test_small_numbers_are_written_in_a_power_of_ten():
    assert [power_of(x) for x in (0, float("nan"), 1, 0.01, 0.0099, 0.0032, 1e-5)] == [
        *(0, 0, 0, 0, -3, -3, -5),
    ]
    table = scores()
    table[["effect", "ci_low", "ci_high"]] /= 100
    figure = pl.perturbation(scored(table), return_fig=True)
    figure.canvas.draw()
    left, right = figure.axes
    assert left.get_xlabel().endswith("(difference of cosines, $10^{-3}$)")
    for axes in (left, right):
        for text in axes.get_xticklabels():
            written = float(text.get_text().replace("\N{MINUS SIGN}", "-"))
            assert written == pytest.approx(1000 * text.get_position()[0])
    figure = pl.perturbation_heatmap(scored(table), return_fig=True)
    matrix, bar = figure.axes
    assert {text.get_text() for text in matrix.texts} >= {"-3.0", "2.0", "0.1"}
    assert bar.get_ylabel() == "effect ($10^{-3}$)"


@pytest.mark.parametrize("size", [0.0035, 0.0045, 0.02, 0.4])
def test_numbers_of_the_axes_do_not_touch(size):
    table = scores()
    for name in ("effect", "ci_low", "ci_high"):
        table[name] *= size / table["effect"].abs().max()
    figure = pl.perturbation(scored(table), return_fig=True, flagged=True)
    figure.canvas.draw()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        shown = [t for t in axes.get_xticklabels() if low <= t.get_position()[0] <= high]
        boxes = [text.get_window_extent() for text in shown]
        assert len(boxes) >= 2
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("symbols", ["SYMBOLX1", "S"])
def test_names_in_the_volcano_end_before_its_edges(symbols):
    table = scores().assign(symbol=symbols, flag="")
    figure = pl.perturbation(scored(table), return_fig=True)
    figure.canvas.draw()
    axes = figure.axes[1]
    assert len(axes.texts) == 3
    for text in axes.texts:
        box = text.get_window_extent()
        assert axes.bbox.x0 <= box.x0 < box.x1 <= axes.bbox.x1


def test_names_too_long_for_the_volcano_stand_beside_the_ranked_effects_only():
    table = scores().assign(symbol="ENSMUSG00000000001")
    figure = pl.perturbation(scored(table), return_fig=True)
    assert not figure.axes[1].texts
    assert figure.axes[0].get_yticklabels()[0].get_text() == "ENSMUSG00000000001"


def test_a_descriptive_result_says_so():
    figure = pl.perturbation(scored(inference="descriptive"), return_fig=True)
    assert "descriptive" in figure.axes[1].get_title()


def test_bad_input_is_named():
    with pytest.raises(MissingKeyError, match=r"Call scmix\.tl\.perturb"):
        pl.perturbation(AnnData())
    with pytest.raises(MissingKeyError, match="Found no column 'p_other'"):
        pl.perturbation(scored(), p="p_other")
    with pytest.raises(InputError, match="All are flagged: pass flagged=True"):
        pl.perturbation(scored(scores().assign(flag="few_cells")))


# --- arrows ---


def test_arrows_point_to_the_cells_that_lie_where_the_shift_points():
    """Three groups at the corners of a triangle, and a layout that mirrors and turns them."""
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], 30)
    embedding = 5 * np.eye(6)[group] + 0.1 * rng.normal(size=(90, 6))
    corners = np.array([[0.0, 0.0], [-10, 0], [0, -10]])
    layout = corners[group] + 0.1 * rng.normal(size=(90, 2))
    shifts = np.array([embedding[40] - embedding[0], (embedding[70] - embedding[0]) / 4])
    made = arrows(embedding, layout, np.array([0, 0]), shifts)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), [1, 0.25], rtol=0.05)
    assert made[0] @ [-1, 0] > 0.8  # within 37 degrees of the group's middle
    assert made[1] @ [0, -1] > 0.8 * 0.25
    np.testing.assert_array_equal(arrows(embedding, layout, np.array([3]), np.zeros((1, 6))), 0)


def test_shifts_of_no_direction_do_not_point_to_the_middle():
    """Random shifts in a layout that has nothing to do with them: arrows of all cells cancel."""
    rng = np.random.default_rng(2)
    embedding, layout = rng.normal(size=(300, 20)), rng.normal(size=(300, 2))
    made = arrows(embedding, layout, np.arange(300), rng.normal(size=(300, 20)))
    inward = -(made * layout).sum(axis=1) / np.linalg.norm(layout, axis=1)
    assert abs(inward.mean()) < 4 * inward.std() / np.sqrt(300)


def shifted():
    rng = np.random.default_rng(1)
    cells = rng.normal(size=(12, 3))
    obs = pd.DataFrame(
        {"state": ["healthy", "ill", "other"] * 4}, index=[f"c{i}" for i in range(12)]
    )
    adata = AnnData(obs=obs, obsm={"X_scmix": cells, "X_umap": cells[:, :2]})
    perturbed = cells[None, [3, 0]] + [[[0.1, 0, 0]], [[0, 0.4, 0]]]
    perturbed[1, 0] = np.nan  # the second gene is not in the first cell
    adata.uns = scored().uns
    adata.uns["perturbation"]["vectors"] = {
        "cells": np.array(["c3", "c0"]),
        "genes": np.array(["e1", "e2"]),
        "symbols": np.array(["A", ""]),
        "original": cells[[3, 0]],
        "perturbed": perturbed,
    }
    return adata


def test_arrow_table_has_a_row_for_each_gene_and_cell_that_has_it():
    adata = shifted()
    found = read(adata, "perturbation")
    table = arrow_table(adata, found, "perturbation", None, "X_umap", "X_scmix")
    assert list(zip(table["label"], table["cell"], strict=True)) == [
        ("A", "c3"),
        ("A", "c0"),
        ("e2", "c0"),
    ]
    np.testing.assert_array_equal(table[["x", "y"]], adata.obsm["X_umap"][[3, 0, 0]])
    np.testing.assert_allclose(np.hypot(table["dx"], table["dy"]), [0.25, 0.25, 1])
    one = arrow_table(adata, found, "perturbation", "A", "X_umap", "X_scmix")
    assert set(one["label"]) == {"A"}


def test_shift_marks_the_goal_and_has_a_panel_for_each_gene():
    figure = pl.perturbation_shift(shifted(), return_fig=True)
    assert [axes.get_title() for axes in figure.axes] == ["A", "e2"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["healthy", "ill", "other", "middle of a goal"]


def test_arrows_end_inside_of_panels_of_one_scale(monkeypatch):
    monkeypatch.setattr("scmix.pl._perturbation_shift._LONGEST", 3.0)  # out of the cells' extent
    adata = shifted()
    figure = pl.perturbation_shift(adata, return_fig=True)
    first, second = figure.axes
    for axes in (first, second):
        (drawn,) = (each for each in axes.collections if isinstance(each, Quiver))
        tips = np.array([drawn.X + drawn.U, drawn.Y + drawn.V])
        limits = np.array([axes.get_xlim(), axes.get_ylim()])
        assert (tips > limits[:, :1]).all()
        assert (tips < limits[:, 1:]).all()
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim() == second.get_ylim()


def test_shift_names_what_is_missing():
    adata = shifted()
    with pytest.raises(MissingKeyError, match="Found no scores of 'Z'"):
        pl.perturbation_shift(adata, "Z")
    with pytest.raises(MissingKeyError, match="Found no 'X_tsne' in obsm; it has 'X_scmix'"):
        pl.perturbation_shift(adata, basis="X_tsne")
    with pytest.raises(MissingKeyError, match="Found 1 perturbed cells"):
        pl.perturbation_shift(adata[1:].copy())
    adata.obsm["X_scmix"] = np.zeros((12, 5))
    with pytest.raises(InputError, match="of width 3"):
        pl.perturbation_shift(adata)
    del adata.uns["perturbation"]["vectors"]
    with pytest.raises(MissingKeyError, match="Found no vectors"):
        pl.perturbation_shift(adata)


# --- heatmaps ---


def test_states_are_columns_in_their_order():
    other = scores().assign(goal="dead", effect=[0.5, 0.0, np.nan, np.nan, 0.1])
    adata = scored(pd.concat([scores(), other], ignore_index=True))
    matrix = state_matrix(adata, "perturbation", None, 3)
    expected = pd.DataFrame({"ill": [0.9, 0.01, -0.3], "dead": [0.1, 0.5, 0.0]}, ["E", "A", "B"])
    pd.testing.assert_frame_equal(matrix, expected, check_names=False, check_index_type=False)
    table = scores().assign(effect_other=[0.5, 0.4, 0.3, 0.2, 0.1])
    beside = state_matrix(scored(table), "perturbation", ["B", "A"], 3)
    expected = pd.DataFrame({"ill": [-0.3, 0.01], "other": [0.4, 0.5]}, ["B", "A"])
    pd.testing.assert_frame_equal(beside, expected, check_names=False, check_index_type=False)
    asked = state_matrix(adata, "perturbation", ["B", "e3"], 3)
    assert list(asked.index) == ["B", "e3"]


def test_gene_matrix_holds_how_far_each_gene_moved():
    adata = scored()
    adata.uns["perturbation"]["genes"] = pd.DataFrame(
        {
            "perturbed": ["e1", "e1", "e2"],
            "perturbed_symbol": ["A", "A", "B"],
            "affected": ["e2", "e3", "e1"],
            "affected_symbol": ["B", "C", "A"],
            "effect": [0.1, 0.5, 0.2],
        }
    )
    matrix = gene_matrix(adata, "perturbation", None, 5)
    assert list(matrix.columns) == ["C", "A", "B"]
    assert matrix.loc["A", "C"] == pytest.approx(0.5)
    assert matrix.loc["B", "A"] == pytest.approx(0.2)
    assert np.isnan(matrix.loc["A", "A"])
    figure = pl.perturbation_heatmap(adata, by="genes", return_fig=True)
    assert figure.axes[0].get_xlabel() == "affected gene"


def test_heatmap_names_what_is_missing():
    with pytest.raises(MissingKeyError, match='effects="genes"'):
        pl.perturbation_heatmap(scored(), by="genes")
    with pytest.raises(InputError, match="by='cells'"):
        pl.perturbation_heatmap(scored(), by="cells")
    with pytest.raises(MissingKeyError, match="Found no scores of 'Z'"):
        pl.perturbation_heatmap(scored(), ["Z"])
