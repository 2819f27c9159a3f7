import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp

from scmix import datasets, metrics, tl
from scmix._errors import InputError
from scmix.genes import Vocabulary
from scmix.tl._orthologue_pca import _columns

KEY = "X_pca_orthologues"


@pytest.fixture(scope="module")
def pancreas():
    adata = datasets.pancreas()
    rows = np.random.default_rng(0).choice(adata.n_obs, 300, replace=False)
    return adata[np.sort(rows)].copy()


def test_one_species_is_scanpys_pca_of_the_matched_genes(make_adata):
    adata = make_adata("human", n_obs=40, n_vars=120)
    tl.orthologue_pca(adata, n_comps=10, n_top_genes=120)
    expected = adata.copy()
    sc.pp.normalize_total(expected, target_sum=1e4)
    sc.pp.log1p(expected)
    sc.pp.pca(expected, n_comps=10, svd_solver="arpack")
    np.testing.assert_allclose(np.abs(adata.obsm[KEY]), np.abs(expected.obsm["X_pca"]), atol=2e-3)
    made = adata.uns[KEY]
    assert made["n_genes"] == 120
    np.testing.assert_allclose(
        made["variance_ratio"], expected.uns["pca"]["variance_ratio"], rtol=1e-4
    )


def test_orthologues_fall_on_one_column():
    vocabulary = Vocabulary.bundled()
    genes = vocabulary.genes
    token = genes.set_index("symbol")["token"]
    tokens = np.array([token["GAPDH"], token["Gapdh"], -1, token["INS"], token["ALB"]])
    columns = _columns(tokens, vocabulary, np.array([0, 1])).toarray()
    assert columns[2].sum() == 0
    np.testing.assert_array_equal(columns[0], columns[1])
    own = genes[(genes["species"] == "human") & (genes["group"] == "")]["token"].iloc[0]
    assert _columns(np.array([own]), vocabulary, np.array([0, 1])).shape == (1, 0)
    assert _columns(np.array([own]), vocabulary, np.array([0])).sum() == 1


def test_it_carries_cell_types_between_species(pancreas):
    adata = tl.orthologue_pca(pancreas, species_key="species", copy=True)
    vectors, labels = adata.obsm[KEY], adata.obs["cell_type"].to_numpy(dtype=str)
    human = (adata.obs["species"] == "human").to_numpy()
    shared = np.isin(labels, np.intersect1d(labels[human], labels[~human]))
    predicted = metrics.knn_transfer(
        vectors[human & shared], labels[human & shared], vectors[~human & shared]
    )
    scores = metrics.classification_scores(labels[~human & shared], predicted)
    assert scores["accuracy"] > max(0.85, scores["majority_rate"])


def test_same_seed_same_result_whatever_the_matrix(pancreas):
    one = tl.orthologue_pca(pancreas, species_key="species", n_comps=20, copy=True)
    other = pancreas.copy()
    other.X = sp.csc_matrix(other.X)
    tl.orthologue_pca(other, species_key="species", n_comps=20)
    np.testing.assert_allclose(one.obsm[KEY], other.obsm[KEY], atol=1e-3)


def test_empty_cells_are_nan_and_sizes_are_cut(make_adata, clear):
    adata = make_adata("mouse", n_obs=12)
    clear(adata, cells=[4])
    with pytest.warns(UserWarning, match="1 of 12 cells"):
        tl.orthologue_pca(adata)
    vectors = adata.obsm[KEY]
    assert vectors.shape == (12, 10)
    np.testing.assert_array_equal(np.isnan(vectors).all(axis=1), np.arange(12) == 4)
    assert adata.uns[KEY]["n_empty_cells"] == 1


@pytest.mark.parametrize("file", ["h5ad", "zarr"])
def test_result_survives_writing_and_reading(file, human, tmp_path):
    tl.orthologue_pca(human, n_comps=5)
    getattr(human, f"write_{file}")(tmp_path / "cells")
    read = getattr(ad, f"read_{file}")(tmp_path / "cells")
    np.testing.assert_array_equal(read.obsm[KEY], human.obsm[KEY])
    np.testing.assert_array_equal(read.uns[KEY]["variance_ratio"], human.uns[KEY]["variance_ratio"])
    assert dict(read.uns[KEY]["params"]) == human.uns[KEY]["params"]


def test_backed_equals_in_memory(human, tmp_path):
    human.write_h5ad(tmp_path / "cells.h5ad")
    lazy = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    tl.orthologue_pca(lazy, n_comps=5)
    tl.orthologue_pca(human, n_comps=5)
    np.testing.assert_array_equal(lazy.obsm[KEY], human.obsm[KEY])


def test_faults_leave_adata_as_it_was(human, unchanged):
    with unchanged(human), pytest.raises(InputError, match="n_comps=0"):
        tl.orthologue_pca(human, n_comps=0)
    with unchanged(human), pytest.raises(InputError, match="at least three"):
        tl.orthologue_pca(human[:2].copy())
    human.obsm[KEY] = np.zeros((human.n_obs, 2))
    with unchanged(human), pytest.raises(InputError, match="exists already"):
        tl.orthologue_pca(human)
    tl.orthologue_pca(human, overwrite=True)
    tl.orthologue_pca(human)  # a notebook cell that is run again
