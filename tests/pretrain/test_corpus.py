"""Counts beside tokens, what was measured, and the same corpus in another process."""

import pickle

import anndata as ad
import numpy as np
import pytest

from scmix._errors import InputError
from scmix.pp._match_adata import match_adata
from scmix.pretrain import Corpus, build_corpus


@pytest.fixture(scope="module")
def valued(files, vocabulary, tmp_path_factory) -> Corpus:
    out = tmp_path_factory.mktemp("valued") / "corpus"
    return build_corpus(files, out, vocabulary=vocabulary, min_genes=5, n_genes=None, values=True)


def test_counts_stand_beside_their_tokens(valued, files, vocabulary):
    start = 0
    for path in files:
        adata = ad.read_h5ad(path)
        genes, _ = match_adata(adata, vocabulary)
        rows = np.arange(start, start + adata.n_obs)
        cells, counts = valued.sequences(rows), valued.counts(rows)
        dense = np.zeros((adata.n_obs, vocabulary.n_tokens))
        dense[np.repeat(np.arange(adata.n_obs), cells.lengths), cells.tokens] = counts
        np.testing.assert_array_equal(dense[:, genes.tokens], adata.X.toarray())
        np.testing.assert_array_equal(valued.totals[rows], adata.X.toarray().sum(1))
        start += adata.n_obs
    assert valued.has_values
    assert valued.counts([3]).dtype == np.uint16


def test_counts_of_any_rows_cut(valued):
    rows = np.array([140, 3, 3, 77])
    cut, counts = valued.sequences(rows, max_genes=4), valued.counts(rows, max_genes=4)
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(counts[4 * i : 4 * i + 4], valued.counts(np.array([row]))[:4])
    assert counts.size == cut.tokens.size == 16
    assert valued.counts([]).size == 0


def test_without_counts_the_next_step_is_named(corpus):
    assert not corpus.has_values
    with pytest.raises(InputError, match="values=True"):
        corpus.counts(np.arange(3))
    assert corpus.totals.size == len(corpus)


def test_genes_that_were_not_measured(valued, files, vocabulary):
    assert valued.measured_genes.shape == (2, vocabulary.n_tokens)
    np.testing.assert_array_equal(valued.measured(0, 0), vocabulary.species_of_token[0])
    np.testing.assert_array_equal(valued.measured(1, 1), vocabulary.species_of_token[1])
    assert valued.group(np.array([0, 130, 119])).tolist() == [0, 1, 0]
    with pytest.raises(InputError, match="'blood' has no mouse cells"):
        valued.measured(0, 1)


def test_another_process_opens_the_folder(valued):
    sent = pickle.dumps(valued)
    assert len(sent) < 1000
    again = pickle.loads(sent)
    np.testing.assert_array_equal(again.counts([5, 2]), valued.counts([5, 2]))
