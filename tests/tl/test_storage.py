"""Cells give the same results wherever their counts lie: in memory, in a file, in dask, in raw."""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

import scmix
from scmix import tl
from scmix._errors import InputError

EXACT = {"device": "cpu", "dtype": "float32"}
STATES = {"state_key": "cell_type", "start": "a", "goal": "b"}


@pytest.fixture(autouse=True)
def _no_bars():
    scmix.settings.progress = False


def backed(adata, folder):
    adata.write_h5ad(folder / "x.h5ad")
    return ad.read_h5ad(folder / "x.h5ad", backed="r"), {}


def zarr_store(adata, folder):
    adata.write_zarr(folder / "x.zarr")
    group = zarr.open(str(folder / "x.zarr"), mode="r")
    lazy = ad.AnnData(ad.io.sparse_dataset(group["X"]), obs=adata.obs, var=adata.var)
    return lazy, {}


def dask(adata, folder):
    array = pytest.importorskip("dask.array")
    dense = array.from_array(adata.X.toarray(), chunks=(7, 50))
    lazy = ad.AnnData(dense.rechunk((7, -1)).map_blocks(sp.csr_matrix), adata.obs, adata.var)
    return lazy, {}


def lazily_opened(adata, folder):
    pytest.importorskip("xarray")
    adata.write_zarr(folder / "x.zarr")
    return ad.experimental.read_lazy(folder / "x.zarr"), {}


def with_raw(adata):
    """Counts and all genes in raw, logarithms of half of the genes in X, as in CELLxGENE files."""
    raw = adata.copy()
    logged = adata[:, ::2].copy()
    logged.X = np.log1p(logged.X)
    logged.raw = raw
    return logged


def raw(adata, folder):
    return with_raw(adata), {"layer": "raw"}


def backed_raw(adata, folder):
    with_raw(adata).write_h5ad(folder / "raw.h5ad")
    return ad.read_h5ad(folder / "raw.h5ad", backed="r"), {"layer": "raw"}


STORES = [backed, zarr_store, dask, lazily_opened, raw, backed_raw]
every_store = pytest.mark.parametrize("store", STORES, ids=lambda store: store.__name__)


@pytest.fixture
def adata(make_adata):
    cells = make_adata(n_obs=40)
    cells.obs["cell_type"] = pd.Categorical(["a", "b"] * 20)
    cells.obs["donor"] = pd.Categorical([f"d{i % 3}" for i in range(40)])
    return cells


@pytest.fixture
def tiny_classifier(adata, tiny):
    return tl.fine_tune(adata, "cell_type", model=tiny, epochs=0, device="cpu")


@every_store
def test_embed(store, adata, tiny, tmp_path):
    expected = tl.embed(adata, tiny, **EXACT, copy=True).obsm["X_scmix"]
    other, options = store(adata, tmp_path)
    tl.embed(other, tiny, **EXACT, **options)
    assert np.array_equal(other.obsm["X_scmix"], expected)


@every_store
def test_annotate(store, adata, tiny_classifier, tmp_path):
    expected = tl.annotate(adata, tiny_classifier, reject="distance", **EXACT, copy=True)
    other, options = store(adata, tmp_path)
    tl.annotate(other, tiny_classifier, reject="distance", **EXACT, **options)
    for name in ("scmix_label", "scmix_label_confidence", "scmix_label_distance"):
        assert np.array_equal(np.asarray(other.obs[name]), np.asarray(expected.obs[name])), name
    name = "scmix_label_probabilities"
    assert np.array_equal(other.obsm[name], expected.obsm[name])


@every_store
def test_transfer_labels(store, adata, tiny, make_adata, tmp_path):
    query = make_adata(n_obs=9, seed=0)
    query.obs_names = [f"query{i}" for i in range(9)]
    expected = tl.transfer_labels(query, adata, "cell_type", model=tiny, **EXACT, copy=True)
    (tmp_path / "query").mkdir()
    lazy_query, options = store(query, tmp_path / "query")
    reference, _ = store(adata, tmp_path)
    tl.transfer_labels(lazy_query, reference, "cell_type", model=tiny, **EXACT, **options)
    found = np.asarray(lazy_query.obs["scmix_label"])
    assert np.array_equal(found, np.asarray(expected.obs["scmix_label"]))
    name = "scmix_label_probabilities"
    assert np.array_equal(lazy_query.obsm[name], expected.obsm[name])


@every_store
def test_perturb(store, adata, tiny, tmp_path):
    asked = {"model": tiny, "min_cells": 2, "max_cells": 5, "donor_key": "donor", **EXACT, **STATES}
    genes = list(adata.var_names[np.argsort(-adata.X.getnnz(axis=0))[:3]])
    expected = tl.perturb(adata, genes, **asked, copy=True).uns["perturbation"]["scores"]
    other, options = store(adata, tmp_path)
    tl.perturb(other, genes, **asked, **options)
    pd.testing.assert_frame_equal(other.uns["perturbation"]["scores"], expected)


# -- what is not an AnnData -----------------------------------------------------------------------


class Spatial:
    """As spatialdata.SpatialData: elements, and tables that are AnnData."""

    def __init__(self, **tables):
        self.tables = tables

    def __getitem__(self, name):
        return self.tables[name]


@pytest.fixture
def mudata():
    package = pytest.importorskip("mudata")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if hasattr(package, "set_options"):  # before 0.4
            package.set_options(pull_on_update=False)
        yield package


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:mudata")
def test_a_modality_is_embedded_in_place(adata, tiny, mudata):
    proteins = ad.AnnData(np.ones((40, 3), np.float32), obs=adata.obs[[]])
    proteins.var_names = ["CD3", "CD4", "CD8"]
    both = mudata.MuData({"prot": proteins, "rna": adata.copy()})
    expected = (
        r"Found a MuData; expected an AnnData\. Pass mdata\['rna'\] \(its modalities: 'prot', "
        r"'rna'\)\. Results are written to it in place\."
    )
    for call in (
        lambda: tl.embed(both, tiny),
        lambda: scmix.pp.map_genes(both),
        lambda: scmix.pp.rank_encode(both),
        lambda: tl.gene_embeddings(both, tiny),
        lambda: tl.orthologue_pca(both),
        lambda: tl.fine_tune(both, "cell_type"),
        lambda: tl.evaluate(both, "cell_type"),
        lambda: tl.transfer_labels(both, adata, "cell_type"),
        lambda: tl.transfer_labels(adata, both, "cell_type"),
        lambda: tl.perturb(both, ["GAPDH"]),
    ):
        with pytest.raises(InputError, match=expected):
            call()
    tl.embed(both["rna"], tiny, **EXACT)
    tl.embed(adata, tiny, **EXACT)
    assert np.array_equal(both.mod["rna"].obsm["X_scmix"], adata.obsm["X_scmix"])


def test_a_table_of_spatial_data_is_embedded_in_place(adata, tiny):
    sdata = Spatial(table=adata.copy())
    with pytest.raises(InputError, match=r"Found a Spatial; .* Pass sdata\['table'\]\. Results"):
        tl.embed(sdata, tiny)
    tl.embed(sdata["table"], tiny, **EXACT)
    assert "X_scmix" in sdata.tables["table"].obsm
    with pytest.raises(InputError, match="no tables that are AnnData"):
        tl.embed(Spatial(), tiny)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda adata: "cells.h5ad", r"the path 'cells\.h5ad'; .* anndata\.read_h5ad\(path\)"),
        (lambda adata: "cells.zarr/", r"Read it first: anndata\.read_zarr\(path\)"),
        (lambda adata: with_raw(adata).raw, r"a Raw; .* Pass the AnnData and layer=\"raw\""),
        (lambda adata: adata.X, r"a csr_matrix; .* anndata\.AnnData\(counts, obs=.*var="),
        (lambda adata: adata.to_df(), "a DataFrame; expected an AnnData"),
        (lambda adata: None, "a NoneType; expected an AnnData"),
    ],
)
def test_the_message_says_how_to_make_an_anndata(make, expected, adata, tiny):
    with pytest.raises(InputError, match=expected):
        tl.embed(make(adata), tiny)


def test_logarithms_beside_raw_counts_name_the_call(adata, tiny):
    logged = with_raw(adata)
    with pytest.raises(InputError, match=r'adata\.raw holds counts: pass layer="raw"'):
        tl.embed(logged, tiny)
    logged.layers["raw"] = logged.X
    with pytest.raises(InputError, match="log-transformed"):  # a layer of that name comes first
        tl.embed(logged, tiny, layer="raw")
