"""The page on other packages: its examples run with the versions that are installed."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "ecosystem.md"
FENCED = re.compile(r"^```\{code-cell\}\n(.*?)^```", re.DOTALL | re.MULTILINE)
CELLS = FENCED.findall(PAGE.read_text("utf-8"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive"),
]


def code_of(package: str) -> str:
    """The cell that imports a package."""
    (code,) = [cell for cell in CELLS if f"import {package}" in cell]
    return re.sub(r"^:tags:.*\n", "", code)


@pytest.fixture(scope="module")
def after_scanpy():
    namespace = {}
    exec(code_of("scanpy as sc"), namespace)
    yield namespace
    plt.close("all")


def test_scanpy(after_scanpy):
    adata = after_scanpy["adata"]
    assert adata.uns["neighbors"]["params"]["use_rep"] == "X_scmix"
    assert np.isfinite(adata.obsm["X_umap"]).all()
    assert np.array_equal(adata.X.data, np.round(adata.X.data))  # counts are as they were


def test_scib_metrics(after_scanpy):
    pytest.importorskip("scib_metrics")
    *statements, last = code_of("scib_metrics").split("\n{\n")
    exec("\n".join(statements), after_scanpy)
    found = eval("{\n" + last, after_scanpy)
    assert set(found) == {"silhouette_label", "isolated_labels"}
    assert 0.4 < found["silhouette_label"] < 1


def test_cellxgene(after_scanpy, capsys):
    exec(CELLS[-1], after_scanpy)
    assert 'adata.raw holds counts: pass layer="raw"' in capsys.readouterr().out
    downloaded = after_scanpy["downloaded"]
    assert downloaded.obsm["X_scmix"].shape == (downloaded.n_obs, 256)
    assert downloaded.uns["X_scmix"]["params"]["layer"] == "raw"
