"""The shipped data sets are what their docstrings say, to the last count."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from scmix import datasets

ALL = [datasets.pancreas, datasets.pbmc3k]


def total(adata: ad.AnnData) -> int:
    return int(adata.X.sum(dtype=np.float64))


@pytest.mark.parametrize("load", ALL)
def test_counts_are_raw(load: Callable[[], ad.AnnData]) -> None:
    adata = load()
    assert isinstance(adata.X, sp.csr_matrix | sp.csr_array)
    assert adata.X.dtype == np.float32
    assert (adata.X.data > 0).all()
    assert (adata.X.data == np.round(adata.X.data)).all()
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    assert np.diff(adata.X.indptr).min() > 0


@pytest.mark.parametrize("load", ALL)
def test_every_call_is_a_new_object(load: Callable[[], ad.AnnData]) -> None:
    first = load()
    first.X.data[:] = 0
    first.obs["cell_type"] = "changed"
    second = load()
    assert total(second) > 0
    assert (second.obs["cell_type"] != "changed").all()


@pytest.mark.parametrize("load", ALL)
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(load: Callable[[], ad.AnnData], suffix: str, tmp_path: Path) -> None:
    adata = load()
    path = tmp_path / f"cells.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    again = getattr(ad, f"read_{suffix}")(path)
    assert (again.X != adata.X).nnz == 0
    assert again.obs.equals(adata.obs)
    assert again.var.equals(adata.var)
    assert again.uns == adata.uns


def test_pancreas() -> None:
    adata = datasets.pancreas()
    human, mouse = (adata[adata.obs["species"] == name] for name in ("human", "mouse"))
    assert adata.shape == (997, 24897)
    assert adata.X.nnz == 1_450_250
    assert (total(human), total(mouse)) == (874_780, 3_041_391)
    assert human.obs["cell_type"].value_counts().to_dict() == dict.fromkeys(
        ["activated stellate", "alpha", "beta", "delta", "macrophage"], 35
    )
    assert mouse.obs["cell_type"].value_counts().to_dict() == {
        "beta": 343,
        "ductal": 236,
        "delta": 85,
        "endothelial": 72,
        "quiescent stellate": 29,
        "macrophage": 17,
        "gamma": 14,
        "alpha": 9,
        "activated stellate": 4,
        "immune other": 4,
        "T cell": 4,
        "Schwann": 3,
        "B cell": 2,
    }
    assert human.obs["donor"].value_counts().to_dict() == {
        "human3": 58,
        "human2": 52,
        "human1": 42,
        "human4": 23,
    }
    assert set(mouse.obs["donor"]) == {"mouse1"}
    assert set(adata.obs["dataset"]) == {"baron_human_cider", "baron_mouse1"}


def test_pancreas_genes_belong_to_their_species() -> None:
    adata = datasets.pancreas()
    is_mouse_gene = adata.var_names.str.startswith("ENSMUSG")
    assert (np.where(is_mouse_gene, "mouse", "human") == adata.var["species"]).all()
    assert (~is_mouse_gene).sum() == 11_123
    assert adata.var_names.str.fullmatch(r"ENS(MUS)?G\d{11}").all()
    for species, foreign in (("human", is_mouse_gene), ("mouse", ~is_mouse_gene)):
        assert adata[adata.obs["species"] == species, foreign].X.nnz == 0


@pytest.mark.parametrize(
    ("species", "symbol", "cell_type", "expected"),
    [
        ("human", "GCG", "alpha", 20_979),
        ("human", "GCG", "beta", 43),
        ("mouse", "Gcg", "alpha", 7_944),
        ("mouse", "Ins2", "beta", 327_837),
    ],
)
def test_pancreas_hormones(species: str, symbol: str, cell_type: str, expected: int) -> None:
    adata = datasets.pancreas()
    cells = (adata.obs["species"] == species) & (adata.obs["cell_type"] == cell_type)
    assert total(adata[cells, adata.var["symbol"] == symbol]) == expected


def test_pbmc3k() -> None:
    adata = datasets.pbmc3k()
    assert adata.shape == (2700, 16634)
    assert adata.X.nnz == 2_286_884
    assert total(adata) == 6_390_631
    assert list(adata.var.columns) == []
    labels = adata.obs["cell_type"]
    assert labels.value_counts().to_dict() == {
        "Naive CD4 T": 697,
        "Memory CD4 T": 483,
        "CD14+ Mono": 480,
        "B": 344,
        "CD8 T": 271,
        "FCGR3A+ Mono": 162,
        "NK": 155,
        "DC": 32,
        "Platelet": 14,
    }
    assert labels.isna().sum() == 62
    assert total(adata[:, "MS4A1"]) == 909
    assert total(adata[labels == "B", "MS4A1"]) == 756
