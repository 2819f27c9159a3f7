"""A corpus holds exactly the ranks of the cells that belong in it, whole or not at all."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scmix import _row_blocks
from scmix._errors import InputError, MissingKeyError
from scmix.pp._match_adata import match_adata
from scmix.pretrain import Corpus, Source, build_corpus
from scmix.pretrain._building import stages
from scmix.pretrain._building.plan import token_dtype
from scmix.ranks import rank_encode_numpy

from .conftest import N_GENES, counts_of, write_cells


def test_tokens_are_those_of_rank_encode(corpus, files, vocabulary):
    start = 0
    for code, path in enumerate(files):
        adata = ad.read_h5ad(path)
        genes, species = match_adata(adata, vocabulary)
        expected = rank_encode_numpy(adata.X, genes.tokens, vocabulary.medians, species)
        rows = np.arange(start, start + adata.n_obs)
        found = corpus.sequences(rows)
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        np.testing.assert_array_equal(found.indptr, expected.indptr)
        assert (corpus.species[rows] == species).all()
        assert (corpus.dataset[rows] == code).all()
        start += adata.n_obs
    assert start == len(corpus)
    assert corpus.datasets == ["blood", "spleen"]


def test_round_trip_is_mapped_and_verified(corpus):
    again = Corpus.open(corpus.path, verify=True)
    assert not again.shards[0].tokens.flags.owndata
    assert again.shards[0].tokens.dtype == np.uint16
    np.testing.assert_array_equal(again.shards[0].tokens, corpus.shards[0].tokens)
    assert again.vocabulary.sha256 == corpus.vocabulary.sha256
    assert again.manifest == corpus.manifest
    assert "150 cells (120 human, 30 mouse)" in repr(again)


def test_rows_in_any_order_and_cut(corpus):
    rows = np.array([140, 3, 3, 77])
    cut = corpus.sequences(rows, max_genes=5)
    for row, tokens in zip(rows, cut, strict=True):
        start = corpus.indptr[row]
        np.testing.assert_array_equal(tokens, corpus.shards[0].tokens[start : start + 5])


def test_equal_counts_are_kept_once_whatever_the_order_of_genes(tmp_path, vocabulary):
    counts = counts_of(20, seed=3)
    write_cells(tmp_path / "a.h5ad", np.concatenate([counts, counts[:4]]))
    reordered = ad.read_h5ad(write_cells(tmp_path / "x.h5ad", counts))[:, ::-1].copy()
    reordered.X = reordered.X.astype(np.int32)
    reordered.write_h5ad(tmp_path / "b.h5ad")
    files = [tmp_path / "a.h5ad", tmp_path / "b.h5ad"]
    corpus = build_corpus(files, tmp_path / "out", vocabulary=vocabulary, min_genes=5)
    one, two = corpus.manifest["sources"]
    assert (one["n_kept"], one["n_duplicated"]) == (20, 4)
    assert (two["n_read"], two["n_kept"], two["n_duplicated"]) == (20, 0, 20)


def test_a_named_cell_is_kept_once_whatever_its_genes(tmp_path, vocabulary):
    obs = pd.DataFrame({"barcode": [f"b{i}" for i in range(10)]})
    write_cells(tmp_path / "a.h5ad", counts_of(10, seed=4), obs=obs)
    write_cells(tmp_path / "b.h5ad", counts_of(10, seed=5), obs=obs.replace("b9", "new"))
    a, b = (Source(tmp_path / f"{name}.h5ad", cell_key="barcode", family="same") for name in "ab")
    corpus = build_corpus([a, b], tmp_path / "out", vocabulary=vocabulary, min_genes=5)
    assert [s["n_kept"] for s in corpus.manifest["sources"]] == [10, 1]
    other = Source(b.path, cell_key="barcode", family="other")
    both = build_corpus([a, other], tmp_path / "both", vocabulary=vocabulary, min_genes=5)
    assert len(both) == 20
    with pytest.raises(MissingKeyError, match="it has barcode"):
        build_corpus(
            [Source(a.path, cell_key="cell")], tmp_path / "no", vocabulary=vocabulary, min_genes=5
        )


def test_cells_with_few_genes_are_left_out_and_counted(tmp_path, vocabulary):
    counts = counts_of(6, seed=6)
    counts[2] = 0
    counts[4, 3:] = 0
    path = write_cells(tmp_path / "a.h5ad", counts)
    corpus = build_corpus([path], tmp_path / "out", vocabulary=vocabulary, min_genes=5)
    (report,) = corpus.manifest["sources"]
    assert (report["n_read"], report["n_kept"], report["n_few_genes"]) == (6, 4, 2)
    assert report["species"] == "human"
    assert report["coverage"] == 1.0
    assert report["n_tokens"] == corpus.n_tokens
    with pytest.raises(InputError, match="No cell"):
        build_corpus([path], tmp_path / "none", vocabulary=vocabulary, min_genes=N_GENES + 1)


def test_a_file_of_which_nothing_is_kept(tmp_path, files, vocabulary):
    poor = counts_of(6, seed=6)
    poor[:, 3:] = 0
    empty = write_cells(tmp_path / "a.h5ad", poor + np.eye(6, N_GENES, dtype=np.float32))
    corpus = build_corpus([empty, *files], tmp_path / "out", vocabulary=vocabulary, min_genes=5)
    assert [source["n_kept"] for source in corpus.manifest["sources"]] == [0, 120, 30]
    assert corpus.manifest["groups"] == [[1, 0], [2, 1]]


def test_species_from_a_column(tmp_path, vocabulary):
    human = ad.read_h5ad(write_cells(tmp_path / "h.h5ad", counts_of(5, seed=7)))
    mouse = ad.read_h5ad(write_cells(tmp_path / "m.h5ad", counts_of(5, seed=8), "mouse"))
    both = ad.concat({"human": human, "mouse": mouse}, join="outer", label="organism", fill_value=0)
    both.obs_names = [f"c{i}" for i in range(10)]
    both.write_h5ad(tmp_path / "both.h5ad")
    corpus = build_corpus(
        [Source(tmp_path / "both.h5ad", species_key="organism")],
        tmp_path / "out",
        vocabulary=vocabulary,
        min_genes=5,
    )
    assert corpus.species.tolist() == [0] * 5 + [1] * 5
    assert corpus.manifest["sources"][0]["species"] == "human+mouse"


def test_bad_sources_and_targets_are_refused(tmp_path, files, corpus, vocabulary):
    with pytest.raises(InputError, match="no files"):
        build_corpus([], tmp_path / "out", vocabulary=vocabulary)
    with pytest.raises(InputError, match="do not exist"):
        build_corpus([tmp_path / "nothing.h5ad"], tmp_path / "out", vocabulary=vocabulary)
    with pytest.raises(InputError, match="more than once: blood"):
        build_corpus([files[0], files[0]], tmp_path / "out", vocabulary=vocabulary)
    with pytest.raises(InputError, match="overwrite=True"):
        build_corpus(files, corpus.path, vocabulary=vocabulary)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not a corpus"):
        build_corpus(files, tmp_path / "mine", vocabulary=vocabulary, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_overwrite_replaces(tmp_path, files, vocabulary):
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is no reason to refuse
    build_corpus(files, out, vocabulary=vocabulary, min_genes=5)
    again = build_corpus(files[:1], out, vocabulary=vocabulary, min_genes=5, overwrite=True)
    assert again.datasets == ["blood"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_error_at_a_file_keeps_what_was_read_of_the_others(tmp_path, files, vocabulary):
    out = tmp_path / "out" / "corpus"
    bad = write_cells(tmp_path / "scaled.h5ad", counts_of(5, seed=9) + 0.5)
    with pytest.raises(InputError, match=r"scaled.h5ad: Found (?s:.*)2 of 3 files were read"):
        build_corpus([*files, bad], out, vocabulary=vocabulary, min_genes=5)
    assert not out.exists()
    mended = Source(bad, allow_noninteger=True)
    corpus = build_corpus([*files, mended], out, vocabulary=vocabulary, min_genes=5)
    assert len(corpus) == 155
    assert [path.name for path in out.parent.iterdir()] == ["corpus"]


def test_an_error_before_anything_was_read_leaves_nothing(tmp_path, vocabulary):
    bad = write_cells(tmp_path / "scaled.h5ad", counts_of(5, seed=9) + 0.5)
    other = write_cells(tmp_path / "other.h5ad", counts_of(5, seed=9) - 1)
    with pytest.raises(InputError, match=r"2 files cannot be used:(?s:.*)scaled(?s:.*)other"):
        build_corpus([bad, other], tmp_path / "out" / "corpus", vocabulary=vocabulary)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["shards/00000/tokens.npy", "cells/indptr.npy", "vocabulary.csv.gz"]
)
def test_a_damaged_corpus_is_refused(tmp_path, files, vocabulary, name):
    out = build_corpus(files, tmp_path / "out", vocabulary=vocabulary, min_genes=5).path
    content = bytearray((out / name).read_bytes())
    content[-9] ^= 1
    (out / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}.*changed"):
        Corpus.open(out, verify=True)
    (out / name).write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"{name}.*bytes"):
        Corpus.open(out)
    Path(out / name).unlink()
    with pytest.raises(InputError, match="missing"):
        Corpus.open(out)


def test_an_interrupted_build_goes_on(tmp_path, files, vocabulary, monkeypatch):
    out = tmp_path / "out" / "corpus"
    with monkeypatch.context() as patched:
        patched.setattr(stages, "write_shard", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_corpus(files, out, vocabulary=vocabulary, min_genes=5)
    assert not out.exists()
    assert not list(out.parent.rglob("*.partial"))
    monkeypatch.setattr(stages, "write_part", lambda *_: pytest.fail("a file was read again"))
    assert len(build_corpus(files, out, vocabulary=vocabulary, min_genes=5)) == 150


def test_blocks_of_any_size_give_the_same_corpus(tmp_path, files, corpus, vocabulary, monkeypatch):
    monkeypatch.setattr(_row_blocks, "BLOCK_ENTRIES", 100)
    again = build_corpus(files, tmp_path / "out", vocabulary=vocabulary, min_genes=5)
    assert again.manifest["files"] == corpus.manifest["files"]


def test_a_corpus_of_another_format_is_refused(tmp_path, files, vocabulary):
    out = build_corpus(files, tmp_path / "out", vocabulary=vocabulary, min_genes=5).path
    manifest = (out / "manifest.json").read_text()
    (out / "manifest.json").write_text(manifest.replace('"format": 2', '"format": 1'))
    with pytest.raises(InputError, match=r"corpus format 1 .* expected 2\. Build the corpus again"):
        Corpus.open(out)
    (out / "manifest.json").write_text(manifest[:-9])
    with pytest.raises(InputError, match="damaged"):
        Corpus.open(out)


def test_tokens_take_as_few_bytes_as_they_can():
    assert token_dtype(2**16) == np.uint16
    assert token_dtype(2**16 + 1) == np.uint32
