"""What of the layer is measured and what is predicted, on data that scmix ships."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import scmix
from scmix import checkpoints
from scmix._errors import InputError, MissingKeyError
from scmix.decoders import Settings, ValueDecoder
from scmix.tl import _impute

SIZES = {"width": 8, "num_layers": 1, "num_heads": 2, "intermediate_size": 12, "n_bins": 6}
FAST = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(params=["value_autoencoder", "restore"], scope="module")
def model(request, tiny):
    decoder = ValueDecoder(Settings(request.param, **SIZES), tiny.config)
    generator = torch.Generator().manual_seed(0)
    for tensor in decoder.state_dict().values():
        tensor.normal_(0.3, 0.4, generator=generator)
    return replace(tiny, decoder=decoder.eval())


@pytest.fixture
def pbmc():
    """Twelve cells with 300 genes that the model knows and 3 that it does not."""
    adata = scmix.datasets.pbmc3k()
    scmix.pp.map_genes(adata)
    genes = np.flatnonzero(adata.var["scmix_token"] >= 0)
    most = np.argsort(-np.asarray(adata.X[:, genes].sum(0)).ravel())[:300]
    unknown = np.flatnonzero(adata.var["scmix_token"] < 0)[:3]
    out = adata[:12, np.concatenate([np.sort(genes[most]), unknown])].copy()
    out.var = out.var[[]]
    return out


def log_counts(adata):
    counts = adata.X.toarray()
    return np.log1p(1e4 * counts / counts.sum(1, keepdims=True))


def test_counts_stay_and_zeros_are_predicted(pbmc, model):
    scmix.tl.impute(pbmc, model, **FAST)
    layer, measured = pbmc.layers["scmix_imputed"], log_counts(pbmc)
    assert layer.dtype == np.float32
    seen = measured > 0
    np.testing.assert_allclose(layer[seen], measured[seen], rtol=1e-5)
    assert (layer >= 0).all()
    assert (layer[:, :300][~seen[:, :300]] > 0).mean() > 0.3
    assert (layer[:, 300:][~seen[:, 300:]] == 0).all(), "unknown genes are as measured"
    about = pbmc.uns["scmix_imputed"]
    assert about["n_genes_predicted"] == 300
    assert about["params"]["kind"] == model.decoder.settings.kind
    assert about["params"]["total"] == 1e4


def test_observed_values_can_be_predicted_too(pbmc, model):
    scmix.tl.impute(pbmc, model, observed="predict", **FAST)
    scmix.tl.impute(pbmc, model, key_added="kept", **FAST)
    predicted, kept = pbmc.layers["scmix_imputed"], pbmc.layers["kept"]
    zero = pbmc.X.toarray() == 0
    np.testing.assert_allclose(predicted[zero], kept[zero], atol=1e-5)
    assert not np.allclose(predicted[~zero], kept[~zero])


def test_small_predictions_are_zero_and_the_layer_is_sparse(pbmc, model):
    scmix.tl.impute(pbmc, model, **FAST)
    scmix.tl.impute(pbmc, model, min_value=0.5, key_added="sparse", **FAST)
    dense, layer = pbmc.layers["scmix_imputed"], pbmc.layers["sparse"]
    assert sp.issparse(layer)
    small = (dense < 0.5) & (pbmc.X.toarray() == 0)
    assert small.any()
    np.testing.assert_allclose(layer.toarray(), np.where(small, 0, dense), atol=1e-6)


def test_only_named_genes(pbmc, model):
    names = pbmc.var_names[[5, 17]].tolist()
    scmix.tl.impute(pbmc, model, **FAST)
    scmix.tl.impute(pbmc, model, genes=names, key_added="few", **FAST)
    expected = log_counts(pbmc)
    expected[:, [5, 17]] = pbmc.layers["scmix_imputed"][:, [5, 17]]
    np.testing.assert_allclose(pbmc.layers["few"], expected, atol=1e-5)
    for bad in (["NOGENE"], [pbmc.var_names[301]], []):
        with pytest.raises(MissingKeyError, match="names of genes that both have"):
            scmix.tl.impute(pbmc, model, genes=bad, **FAST)


def test_blocks_of_cells_do_not_matter(pbmc, model, monkeypatch):
    scmix.tl.impute(pbmc, model, **FAST)
    monkeypatch.setattr(_impute, "_BLOCK_ENTRIES", 5 * pbmc.n_vars)
    part = pbmc[[7, 2]].copy()
    scmix.tl.impute(part, model, key_added="part", **FAST)
    scmix.tl.impute(pbmc, model, key_added="blocks", **FAST)
    whole = pbmc.layers["scmix_imputed"]
    np.testing.assert_allclose(pbmc.layers["blocks"], whole, atol=1e-5)
    np.testing.assert_allclose(part.layers["part"], whole[[7, 2]], atol=1e-5)


def test_genes_that_were_not_measured(pbmc, model):
    """They are predicted in every cell, and what stands there is not read."""
    pbmc.var["measured"] = np.arange(pbmc.n_vars) % 3 > 0
    without = pbmc[:, pbmc.var["measured"]].copy()
    scmix.tl.impute(pbmc, model, measured_key="measured", **FAST)
    scmix.tl.impute(without, model, **FAST)
    layer = pbmc.layers["scmix_imputed"]
    inside = pbmc.var["measured"].to_numpy()
    np.testing.assert_allclose(layer[:, inside], without.layers["scmix_imputed"], atol=1e-5)
    filled = pbmc.copy()
    filled.X = filled.X.toarray()
    filled.X[:, ~inside] = 9
    scmix.tl.impute(filled, model, measured_key="measured", key_added="filled", **FAST)
    known = np.arange(pbmc.n_vars) < 300
    np.testing.assert_allclose(filled.layers["filled"][:, known], layer[:, known], atol=1e-5)
    pbmc.var["measured"] = "yes"
    with pytest.raises(InputError, match="True for measured genes"):
        scmix.tl.impute(pbmc, model, measured_key="measured", **FAST)
    with pytest.raises(MissingKeyError, match="no column 'nothing'"):
        scmix.tl.impute(pbmc, model, measured_key="nothing", **FAST)


def test_two_species(model):
    """A cell has values in the columns of its own species only."""
    adata = scmix.datasets.pancreas()[::250].copy()
    scmix.tl.impute(adata, model, species_key="species", **FAST)
    layer = adata.layers["scmix_imputed"]
    mouse_cell = (adata.obs["species"] == "mouse").to_numpy()
    mouse_gene = np.asarray(adata.var_names.str.startswith("ENSMUSG"))
    for cell, gene in ((mouse_cell, ~mouse_gene), (~mouse_cell, mouse_gene)):
        np.testing.assert_allclose(
            layer[np.ix_(cell, gene)], log_counts(adata)[np.ix_(cell, gene)], atol=1e-5
        )
    assert (layer[np.ix_(mouse_cell, mouse_gene)] > 0).mean() > 0.3
    assert (layer[np.ix_(~mouse_cell, ~mouse_gene)] > 0).mean() > 0.3


def test_empty_cells_stay_empty(pbmc, model):
    pbmc.X[3] = 0
    with pytest.warns(UserWarning, match=r"1 of 12 cells have no count"):
        scmix.tl.impute(pbmc, model, **FAST)
    assert (pbmc.layers["scmix_imputed"][3] == 0).all()
    assert pbmc.uns["scmix_imputed"]["n_empty_cells"] == 1


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.parametrize("min_value", [0.0, 0.5])
def test_survives_files(pbmc, model, tmp_path, kind, min_value):
    scmix.tl.impute(pbmc, model, min_value=min_value, **FAST)
    getattr(pbmc, f"write_{kind}")(tmp_path / "cells")
    back = getattr(ad, f"read_{kind}")(tmp_path / "cells")
    one, other = (x.layers["scmix_imputed"] for x in (pbmc, back))
    one, other = (x.toarray() if sp.issparse(x) else x for x in (one, other))
    np.testing.assert_array_equal(one, other)
    assert back.uns["scmix_imputed"]["params"]["observed"] == "keep"
    scmix.tl.impute(back, model, min_value=min_value, **FAST)  # again, without overwrite


def test_backed_and_copy(pbmc, model, tmp_path, unchanged):
    with unchanged(pbmc):
        made = scmix.tl.impute(pbmc, model, copy=True, **FAST)
    pbmc.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    scmix.tl.impute(backed, model, **FAST)
    np.testing.assert_allclose(
        backed.layers["scmix_imputed"], made.layers["scmix_imputed"], atol=1e-6
    )
    backed.file.close()


def test_a_model_from_a_folder(pbmc, model, tmp_path):
    checkpoints.save(
        tmp_path / "model", model.encoder, model.vocabulary,
        recipe={}, training_data=[], licence="CC0-1.0", decoder=model.decoder,
    )  # fmt: skip
    scmix.tl.impute(pbmc, model, **FAST)
    scmix.tl.impute(pbmc, tmp_path / "model", key_added="loaded", **FAST)
    np.testing.assert_allclose(pbmc.layers["loaded"], pbmc.layers["scmix_imputed"], atol=1e-5)
    assert len(pbmc.uns["loaded"]["params"]["decoder_sha256"]) == 64


def test_a_model_without_a_decoder(pbmc, tiny, unchanged):
    with (
        unchanged(pbmc),
        pytest.raises(InputError, match=r"has no value decoder.*value_autoencoder.*restore"),
    ):
        scmix.tl.impute(pbmc, tiny)
    with pytest.raises(InputError, match="'scmix-mini' has no value decoder"):
        scmix.tl.impute(pbmc, "scmix-mini")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observed": "drop"}, "'keep' or 'predict'"),
        ({"min_value": -1.0}, "not negative"),
        ({"min_value": np.nan}, "not negative"),
        ({"depth": 3.0}, "thinned"),
        ({"layer": "nothing"}, "no layer"),
    ],
)
def test_options_are_checked(pbmc, model, unchanged, options, message):
    with unchanged(pbmc), pytest.raises(InputError, match=message):
        scmix.tl.impute(pbmc, model, **options)


def test_a_layer_of_somebody_else_is_not_replaced(pbmc, model):
    pbmc.layers["scmix_imputed"] = pbmc.X.copy()
    with pytest.raises(InputError, match="exists already"):
        scmix.tl.impute(pbmc, model, **FAST)
    scmix.tl.impute(pbmc, model, overwrite=True, **FAST)


def test_ctrl_c_leaves_the_data_as_they_were(pbmc, model, unchanged, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(ValueDecoder, "decode", interrupted)
    with unchanged(pbmc), pytest.raises(KeyboardInterrupt):
        scmix.tl.impute(pbmc, model, **FAST)
