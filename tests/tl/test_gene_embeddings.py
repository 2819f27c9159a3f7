import anndata as ad
import numpy as np
import pytest

import scmix
from scmix import inference, tl
from scmix._errors import InputError
from scmix.batches import add_special
from scmix.genes import match
from scmix.ranks import rank_encode_numpy

EXACT = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(autouse=True)
def _no_bars():
    scmix.settings.progress = False


@pytest.fixture
def with_strangers(human):
    """The first two columns are no genes."""
    names = human.var_names.to_numpy(dtype=str).astype(object)
    names[:2] = ["ERCC-1", "ERCC-2"]
    human.var_names = names.astype(str)
    return human


def tokens_of(adata, model):
    return match(adata.var_names, model.vocabulary, species="human", on_duplicate="error").tokens


def test_input_is_the_row_of_the_embedding_table(with_strangers, tiny):
    tl.gene_embeddings(with_strangers, tiny, **EXACT)
    result = with_strangers.varm["scmix_gene"]
    weight = tiny.encoder.bert.embeddings.word_embeddings.weight.detach().numpy()
    assert result.dtype == np.float32
    assert np.isnan(result[:2]).all()
    np.testing.assert_array_equal(result[2:], weight[tokens_of(with_strangers, tiny)[2:]])
    made = with_strangers.uns["scmix_gene"]
    assert made["n_without_vector"] == 2
    assert (made["coverage"], made["n_genes_matched"]) == (198 / 200, 198)
    assert made["params"]["source"] == "input"


def test_context_is_the_mean_hidden_state_over_cells(with_strangers, tiny, clear):
    clear(with_strangers, genes=[5])
    tl.gene_embeddings(with_strangers, tiny, source="context", hidden_layer=1, **EXACT)
    result = with_strangers.varm["scmix_gene"]
    tokens = tokens_of(with_strangers, tiny)
    species = np.zeros(with_strangers.n_obs, dtype=np.int8)
    ranks = rank_encode_numpy(
        with_strangers.X, tokens, tiny.vocabulary.medians, species, n_genes=255
    )
    sequences = add_special(ranks, tiny.vocabulary, 0, max_length=256)
    states = inference.run(tiny.encoder, sequences, special_ids=[], pool="tokens", layer=1, **EXACT)
    for column in range(with_strangers.n_vars):
        rows = states[sequences.tokens == tokens[column]]
        if column in (0, 1, 5):
            assert np.isnan(result[column]).all()
        else:
            np.testing.assert_allclose(result[column], rows.mean(axis=0), atol=1e-5)


def test_context_does_not_depend_on_batches(human, tiny):
    whole = tl.gene_embeddings(human, tiny, source="context", copy=True, **EXACT)
    parts = tl.gene_embeddings(human, tiny, source="context", batch_tokens=50, copy=True, **EXACT)
    np.testing.assert_allclose(
        whole.varm["scmix_gene"], parts.varm["scmix_gene"], atol=1e-5, equal_nan=True
    )


def test_orthologues_share_a_vector(both, tiny):
    tl.gene_embeddings(both, tiny, species_key="species", **EXACT)
    known = both.varm["scmix_gene"]
    genes = tiny.vocabulary.genes.set_index("ensembl_id")
    token = genes["token"].reindex(both.var_names).to_numpy()
    for value in np.unique(token):
        rows = known[token == value]
        np.testing.assert_array_equal(rows, np.broadcast_to(rows[0], rows.shape))


@pytest.mark.parametrize("file", ["h5ad", "zarr"])
def test_result_survives_writing_and_reading(file, human, tiny, tmp_path):
    tl.gene_embeddings(human, tiny, source="context", **EXACT)
    getattr(human, f"write_{file}")(tmp_path / "cells")
    read = getattr(ad, f"read_{file}")(tmp_path / "cells")
    np.testing.assert_array_equal(read.varm["scmix_gene"], human.varm["scmix_gene"])
    assert dict(read.uns["scmix_gene"]["params"]) == human.uns["scmix_gene"]["params"]


def test_input_does_not_read_counts(human, tiny):
    human.X.data[:] = -1.5
    tl.gene_embeddings(human, tiny, **EXACT)
    assert np.isfinite(human.varm["scmix_gene"]).all()


def test_faults_leave_adata_as_it_was(human, tiny, unchanged, monkeypatch):
    with unchanged(human), pytest.raises(InputError, match="source='output'"):
        tl.gene_embeddings(human, tiny, source="output")
    human.varm["scmix_gene"] = np.zeros((human.n_vars, 2))
    with unchanged(human), pytest.raises(InputError, match=r'varm\["scmix_gene"\] exists'):
        tl.gene_embeddings(human, tiny)
    del human.varm["scmix_gene"]
    monkeypatch.setattr("scmix.tl._gene_embeddings._mean_by_token", interrupt)
    with unchanged(human), pytest.raises(KeyboardInterrupt):
        tl.gene_embeddings(human, tiny, source="context", **EXACT)


def interrupt(*_):
    raise KeyboardInterrupt
