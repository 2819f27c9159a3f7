"""The page on other packages: its examples run with the versions that are installed."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import scmix

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "ecosystem.md"
FENCED = re.compile(r"^```\{code-cell\}\n(.*?)^```", re.DOTALL | re.MULTILINE)
CELLS = FENCED.findall(PAGE.read_text("utf-8"))
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive"),
]


def code_of(package: str) -> str:
    """The cell that imports a package."""
    (code,) = [cell for cell in CELLS if f"import {package}" in cell]
    return re.sub(r"^:tags:.*\n", "", code)


def snippet_of(package: str) -> str:
    """The example for a package that may not be installed."""
    (code,) = [snippet for snippet in SNIPPETS if f"import {package}" in snippet]
    return code


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


def test_decoupler():
    pytest.importorskip("decoupler")
    genes = [f"G{i}" for i in range(40)]
    scores = pd.DataFrame({"symbol": genes, "effect": np.linspace(1, -1, 40)})
    scores.loc[20, "effect"] = np.nan
    adata = AnnData(uns={"perturbation": {"scores": scores}})
    network = pd.DataFrame({"source": "TF", "target": genes[:8], "weight": 1.0})
    namespace = {"adata": adata, "network": network}
    exec(snippet_of("decoupler"), namespace)
    assert namespace["activities"].loc["effect", "TF"] > 2
    assert namespace["padj"].loc["effect", "TF"] < 0.05


def test_scvi(monkeypatch):
    scvi = pytest.importorskip("scvi")
    train = scvi.model.SCVI.train
    quick = {"max_epochs": 2, "enable_progress_bar": False}
    monkeypatch.setattr(scvi.model.SCVI, "train", lambda self: train(self, **quick))
    adata = scmix.datasets.pbmc3k()[::8].copy()
    adata.obs["batch"] = np.resize(["one", "two"], adata.n_obs)
    short = snippet_of("scvi").replace('"X_scVI"])', '"X_scVI"], others=(), seeds=[0])')
    exec(short, {"adata": adata, "scmix": scmix})
    assert {"X_scmix", "X_scVI"} <= set(adata.uns["evaluation"]["table"]["representation"])
    plt.close("all")


def test_spatialdata(tmp_path):
    spatialdata = pytest.importorskip("spatialdata")
    sdata = spatialdata.SpatialData(tables={"table": scmix.datasets.pbmc3k()[:20].copy()})
    with pytest.raises(ValueError, match=re.escape("Pass sdata['table']")):
        scmix.tl.embed(sdata)
    scmix.tl.embed(sdata["table"], n_genes=64)
    assert sdata.tables["table"].obsm["X_scmix"].shape == (20, 256)
    sdata.write(tmp_path / "cells.zarr")
    again = spatialdata.read_zarr(tmp_path / "cells.zarr")["table"]
    np.testing.assert_array_equal(again.obsm["X_scmix"], sdata["table"].obsm["X_scmix"])
