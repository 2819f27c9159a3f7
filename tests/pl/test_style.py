"""Figures are fit for print: light, legible in a column, with letters in vector files."""

import matplotlib as mpl

mpl.use("Agg")

import io
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from scmix import pl
from scmix.pl._colors import MISSING, MORE, OKABE_ITO
from scmix.pl._evaluation import COLORS
from scmix.pl._perturbation import HIT, OTHER
from scmix.pl._perturbation_shift import _GOALS, _START
from scmix.pl._style import COLUMN, PAGE, PAIR

SMALLEST = 5.0  # points; what journals ask for
TYPES = ["CD14+ monocyte", "naive CD4 T", "NK", "B"]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def labelled():
    rng = np.random.default_rng(0)
    truth = rng.choice(TYPES, 80)
    given = np.where(rng.random(80) < 0.8, truth, rng.choice(TYPES, 80))
    adata = AnnData(
        obs=pd.DataFrame(
            {"cell_type": truth, "scmix_label": given}, map(str, range(80)), dtype="category"
        )
    )
    adata.obs["scmix_label_confidence"] = rng.uniform(0.3, 1, 80)
    adata.obs["species"] = np.resize(["human", "mouse"], 80)
    for key in ("X_one", "X_two", "X_three"):
        adata.obsm[key] = rng.normal(size=(80, 2))
    return adata


def many_types():
    adata = labelled()
    adata.obs["cell_type"] = [f"type {i % 13}" for i in range(adata.n_obs)]
    return adata


def evaluated():
    names = ["majority", "PCA-50", "scmix-mini", "mine"]
    table = pd.DataFrame({"split": "5-fold", "representation": names, "classifier": "kNN"})
    table["kind"] = ["baseline", "baseline", "scmix", "yours"]
    for column in ("macro_f1", "macro_f1_sd", "macro_f1_low", "macro_f1_high"):
        table[column] = 0.5
    return table.assign(note="")


def trained():
    records = {"epoch": [0, 0.5, 1], "loss": [None, 0.9, None], "kept": [False, False, True]}
    records |= {"validation_loss": [1.2, None, 0.7], "validation_macro_f1": [0.3, None, 0.8]}
    return pd.DataFrame(records)


def perturbed():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 4))
    adata = AnnData(obsm={"X_scmix": vectors, "X_umap": vectors[:, :2]})
    adata.obs["state"] = ["healthy", "disease"] * 10
    names = [f"GENE{i}" for i in range(30)]
    scores = pd.DataFrame({"gene": names, "goal": "disease", "effect": rng.normal(size=30)})
    scores["p_matched"] = rng.random(30)
    affected = pd.DataFrame({"perturbed": ["GENE1", "GENE2"], "affected": "GENE3", "effect": 0.1})
    adata.uns["perturbation"] = {
        "params": {
            "state_key": "state",
            "start": "healthy",
            "goal": "disease",
            "inference": "descriptive",
        },
        "scores": scores,
        "genes": affected,
        "vectors": {
            "cells": adata.obs_names[[0, 2]].to_numpy(),
            "genes": np.array(names[:4]),
            "symbols": np.array(names[:4]),
            "original": vectors[[0, 2]],
            "perturbed": vectors[[1, 3]][None].repeat(4, axis=0),
        },
    }
    return adata


FIGURES = {
    "one embedding": lambda: pl.umap_compare(
        labelled(), "X_one", color="cell_type", numbers=True, return_fig=True
    ),
    "two embeddings": lambda: pl.umap_compare(
        labelled(), ["X_one", "X_two"], color=["species", "cell_type"], return_fig=True
    ),
    "many types": lambda: pl.umap_compare(
        many_types(), ["X_one", "X_two"], color="cell_type", return_fig=True
    ),
    "three embeddings": lambda: pl.umap_compare(
        labelled(), ["X_one", "X_two", "X_three"], color="scmix_label_confidence", return_fig=True
    ),
    "confusion": lambda: pl.confusion(labelled(), "cell_type", "scmix_label", return_fig=True),
    "confidence": lambda: pl.confidence(labelled(), "cell_type", return_fig=True),
    "evaluation": lambda: pl.evaluation(evaluated(), return_fig=True),
    "history": lambda: pl.history(trained(), return_fig=True),
    "perturbation": lambda: pl.perturbation(perturbed(), return_fig=True),
    "one shift": lambda: pl.perturbation_shift(perturbed(), "GENE0", return_fig=True),
    "four shifts": lambda: pl.perturbation_shift(perturbed(), return_fig=True),
    "states": lambda: pl.perturbation_heatmap(perturbed(), return_fig=True),
    "genes": lambda: pl.perturbation_heatmap(perturbed(), by="genes", return_fig=True),
}


@pytest.fixture(params=FIGURES)
def figure(request):
    return FIGURES[request.param]()


def letters(figure):
    figure.draw_without_rendering()  # ticks are made by then
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def test_letters_are_legible_at_the_width_of_a_column(figure):
    width = figure.get_size_inches()[0]
    assert width <= PAGE
    printed = COLUMN if width <= PAIR else PAGE
    for text in letters(figure):
        assert text.get_fontsize() * min(1, printed / width) >= SMALLEST, text


def test_nothing_lies_outside_of_the_figure(figure):
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) > -0.02
    assert box.x1 < width + 0.02
    assert box.y1 < height + 0.02


def test_ground_is_white_and_letters_are_dark(figure):
    assert to_rgb(figure.get_facecolor()) == (1, 1, 1)
    assert all(axes.get_facecolor()[:3] == (1, 1, 1) for axes in figure.axes)


def test_letters_stay_letters_in_vector_files(figure):
    shown = letters(figure)[0].get_text().splitlines()[0]
    svg, pdf = io.BytesIO(), io.BytesIO()
    before = dict(mpl.rcParams)
    figure.savefig(svg, format="svg")
    figure.savefig(pdf, format="pdf")
    assert dict(mpl.rcParams) == before
    text = svg.getvalue().decode()
    assert "<text" in text
    assert shown.replace("&", "&amp;").replace("<", "&lt;") in text
    assert b"/FontFile2" in pdf.getvalue()  # TrueType, which editors can edit
    assert b"/Type3" not in pdf.getvalue()


# Machado, Oliveira & Fernandes (2009): how linear RGB looks to the colour-blind, full severity
SIGHT = {
    "normal": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
PALETTES = {
    "categories": OKABE_ITO,
    "many categories": (*OKABE_ITO, *MORE, MISSING, "white"),
    "methods": tuple(COLORS.values()),
    "hits": (HIT, OTHER),
    "states": (_START, *_GOALS),
}


def seen(color, sight):
    """CIELAB of a colour as somebody sees it."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(SIGHT[sight]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(xyz @ linear / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("name", PALETTES)
def test_colours_can_be_told_apart(name, sight):
    distances = {
        (one, two): float(np.linalg.norm(seen(one, sight) - seen(two, sight)))
        for one, two in combinations(PALETTES[name], 2)
    }
    closest = min(distances, key=distances.get)
    assert distances[closest] > 10, (closest, distances[closest])
