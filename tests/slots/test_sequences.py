"""Cells as sequences of tokens: independent of blocks and types; stored ranks."""

import dataclasses
import logging

import anndata as ad
import dask.array as da
import numba
import numpy as np
import pytest
import scipy.sparse as sp

from scmix._errors import InputError
from scmix._slots import iter_sequences
from scmix.genes import Vocabulary
from scmix.pp._match_adata import match_adata


def _tokens(adata: ad.AnnData, **options) -> list[list[int]]:
    blocks = list(iter_sequences(adata, Vocabulary.bundled(), **options))
    assert sum(len(block.species) for block in blocks) == adata.n_obs
    return [cell.tolist() for block in blocks for cell in block.sequences]


def test_sequences_do_not_depend_on_blocks_types_or_order(human):
    expected = _tokens(human)
    assert len(expected) == human.n_obs
    assert _tokens(human, block_cells=1) == expected
    assert _tokens(human, block_cells=5) == expected
    order = np.random.default_rng(0).permutation(human.n_obs)
    assert _tokens(human[order]) == [expected[i] for i in order]
    assert _tokens(human[:, np.argsort(human.var_names[::-1])]) == expected
    assert _tokens(human[3]) == expected[3:4]
    for make in (sp.csc_matrix, lambda x: x.toarray(), lambda x: da.from_array(x.toarray(), 5)):
        other = human.copy()
        other.X = make(human.X)
        assert _tokens(other) == expected
    assert _tokens(human, n_genes=10) == [cell[:10] for cell in expected]


def test_two_species_in_one_object(both, human, mouse):
    assert _tokens(both, species_key="species") == _tokens(human) + _tokens(mouse)
    codes = np.concatenate(
        [b.species for b in iter_sequences(both, Vocabulary.bundled(), species_key="species")]
    )
    assert codes.tolist() == [0] * human.n_obs + [1] * mouse.n_obs


def test_genes_matched_before_are_not_matched_again(human, caplog):
    found, codes = match_adata(human, Vocabulary.bundled())
    expected = _tokens(human)
    caplog.clear()
    caplog.set_level(logging.INFO, logger="scmix")
    assert _tokens(human, match=(found, codes)) == expected
    assert caplog.messages == []
    other = dataclasses.replace(found, tokens=np.where(np.arange(200) == 3, -1, found.tokens))
    shorter = [[t for t in cell if t != found.tokens[3]] for cell in expected]
    assert _tokens(human, match=(other, codes)) == shorter


def test_backed_sequences_are_as_in_memory(human, tmp_path):
    human.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    assert _tokens(backed, block_cells=5) == _tokens(human)
    backed.file.close()


def test_threads_do_not_matter(human, tmp_path, monkeypatch):
    expected = _tokens(human)
    human.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    for n in (1, 3, 40):
        monkeypatch.setattr(numba, "get_num_threads", lambda n=n: n)
        assert _tokens(human, block_cells=1) == expected
        assert _tokens(backed, block_cells=1) == expected
    backed.file.close()


def test_stored_ranks_are_used_when_they_fit(human):
    from scmix.pp import rank_encode

    expected = _tokens(human)
    rank_encode(human, n_genes=50)
    human.X = human.X * 0  # only the layer can give sequences now
    top = [cell[:50] for cell in expected]
    assert _tokens(human, n_genes=50) == top
    assert _tokens(human, n_genes=20, block_cells=5) == [cell[:20] for cell in expected]
    subset = human[[4, 2]]
    assert _tokens(subset, n_genes=50) == [top[4], top[2]]
    for options in ({"n_genes": 51}, {"rank_layer": None}):
        with pytest.raises(InputError, match="zero"):
            _tokens(human, **options)
    human.layers["counts"] = human.X
    with pytest.raises(InputError, match="zero"):
        _tokens(human, n_genes=50, layer="counts")
    with pytest.raises(InputError, match="zero"):
        list(iter_sequences(human, Vocabulary.bundled("separate"), n_genes=50))


def test_stored_ranks_of_another_species_are_not_used(human, caplog):
    from scmix.pp import rank_encode

    rank_encode(human)
    human.uns["rank"]["params"]["species"] = ["mouse"]
    human.X = human.X * 0
    with caplog.at_level(logging.INFO, "scmix"), pytest.raises(InputError, match="zero"):
        _tokens(human)
    assert 'layers["rank"] was made with other settings' in caplog.text


def test_no_known_gene_counted_is_refused(human):
    human.X = human.X * 0
    human.X[:, 0] = 1
    names = human.var_names.to_series()
    names.iloc[0] = "nothing"
    human.var_names = names
    with pytest.raises(InputError, match="No cell has a count of a gene"):
        _tokens(human)
