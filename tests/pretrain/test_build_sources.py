"""Files of either kind, however they hold their counts, give the same corpus."""

import errno

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scmix._errors import InputError, MissingKeyError, ResourceError
from scmix.pretrain import Source, build_corpus
from scmix.pretrain._building import arrays, parts, stages

from .conftest import counts_of, write_cells


def written(path, adata):
    (adata.write_zarr if path.suffix == ".zarr" else adata.write_h5ad)(path)
    return path


@pytest.mark.filterwarnings("ignore:Writing zarr v2", "ignore:The counts are stored by column")
@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
@pytest.mark.parametrize("place", ["X", "dense", "csc", "layer", "raw", "named raw"])
def test_counts_are_read_from_wherever_they_are(tmp_path, corpus, files, vocabulary, ending, place):
    adata = ad.read_h5ad(files[0])
    counts = adata.X
    if place in ("dense", "csc"):
        adata.X = counts.toarray() if place == "dense" else sp.csc_matrix(counts)
    elif place == "raw":
        adata.raw = adata.copy()
        adata = adata[:, :30].copy()
    elif place in ("layer", "named raw"):
        adata.layers["raw" if place == "named raw" else "counts"] = counts.copy()
    if place in ("layer", "raw", "named raw"):
        adata.X = sp.csr_matrix(np.log1p(adata.X.toarray()))
    path = written(tmp_path / f"blood.{ending}", adata)
    layer = {"layer": "counts", "raw": "raw", "named raw": "raw"}.get(place)
    built = build_corpus(
        [Source(path, layer=layer)], tmp_path / "out", vocabulary=vocabulary, min_genes=5
    )
    rows = np.arange(120)
    np.testing.assert_array_equal(built.sequences(rows).tokens, corpus.sequences(rows).tokens)
    assert built.datasets == ["blood"]


def test_the_way_out_of_a_file_with_raw_is_named(tmp_path, files, vocabulary):
    adata = ad.read_h5ad(files[0])
    adata.raw = adata.copy()
    adata.X = sp.csr_matrix(np.log1p(adata.X.toarray()))
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match=r'a.h5ad: Found log-transformed.*layer="raw"'):
        build_corpus([tmp_path / "a.h5ad"], tmp_path / "out", vocabulary=vocabulary)
    with pytest.raises(MissingKeyError, match="no layer 'raw'"):
        build_corpus([Source(files[0], layer="raw")], tmp_path / "out", vocabulary=vocabulary)


def test_files_that_are_none(tmp_path, vocabulary):
    (tmp_path / "text.h5ad").write_text("no HDF5")
    (tmp_path / "empty.zarr").mkdir()
    for name in ("text.h5ad", "empty.zarr"):
        with pytest.raises(InputError, match=name):
            build_corpus([tmp_path / name], tmp_path / "out", vocabulary=vocabulary)


def test_columns_are_kept_and_organs_balanced(tmp_path, files, vocabulary):
    one, two = (ad.read_h5ad(path) for path in files)
    one.obs["tissue"] = np.repeat(["lung", "liver"], 60)
    one.obs["author_type"] = pd.Categorical([None, "B", "T"] * 40)
    two.obs["cell_type"] = "B"
    paths = [written(tmp_path / "one.h5ad", one), written(tmp_path / "two.h5ad", two)]
    corpus = build_corpus(
        [
            Source(paths[0], organ_key="tissue", keep={"cell_type": "author_type"}),
            Source(paths[1], organ="lung", keep=["cell_type"]),
            Source(write_cells(tmp_path / "three.h5ad", counts_of(10, seed=20))),
        ],
        tmp_path / "out",
        vocabulary=vocabulary,
        min_genes=5,
    )
    obs = corpus.obs()
    assert (
        obs.organ.astype(str).tolist() == ["lung"] * 60 + ["liver"] * 60 + ["lung"] * 30 + [""] * 10
    )
    assert obs.cell_type[:3].tolist() == ["", "B", "T"]
    assert obs.cell_type[120:].tolist() == ["B"] * 30 + [""] * 10
    assert obs.dataset[[0, 130, 155]].tolist() == ["one", "two", "three"]
    assert obs.species[[0, 130]].tolist() == ["human", "mouse"]
    pd.testing.assert_frame_equal(corpus.obs([155, 3]), obs.iloc[[155, 3]].reset_index(drop=True))
    strata = pd.Series(corpus.stratum).value_counts()
    assert sorted(strata) == [10, 30, 60, 60]
    assert corpus.stratum[0] != corpus.stratum[60]


def test_without_organs_strata_are_data_sets(corpus):
    np.testing.assert_array_equal(corpus.stratum, corpus.dataset)


def test_contradictory_sources_are_refused(tmp_path):
    for options in (
        {"organ": "lung", "organ_key": "tissue"},
        {"organ": "lung", "keep": ["organ"]},
        {"keep": "cell_type"},
    ):
        with pytest.raises(InputError):
            Source(tmp_path / "a.h5ad", **options)


def test_columns_that_name_each_cell_are_not_kept(tmp_path, vocabulary, monkeypatch):
    monkeypatch.setattr(parts, "MOST_VALUES", 9)
    obs = pd.DataFrame({"barcode": [f"b{i}" for i in range(10)]})
    path = write_cells(tmp_path / "a.h5ad", counts_of(10, seed=4), obs=obs)
    with pytest.raises(InputError, match="'barcode' of obs has 10 different values"):
        build_corpus([Source(path, keep=["barcode"])], tmp_path / "out", vocabulary=vocabulary)


def test_gene_ids_from_a_column(tmp_path, files, corpus, vocabulary):
    adata = ad.read_h5ad(files[0])
    adata.var["mine"] = adata.var_names
    adata.var_names = [f"x{i}" for i in range(adata.n_vars)]
    adata.write_h5ad(tmp_path / "a.h5ad")
    built = build_corpus(
        [Source(tmp_path / "a.h5ad", gene_ids="mine")],
        tmp_path / "out",
        vocabulary=vocabulary,
        min_genes=5,
    )
    assert built.n_tokens == corpus.indptr[120]


def test_shards_hold_what_one_file_would(tmp_path, files, corpus, vocabulary):
    folder = tmp_path / "Übung mit Leerzeichen"
    many = build_corpus(files, folder / "out", vocabulary=vocabulary, min_genes=5, shard_tokens=100)
    assert len(many.shards) > 10
    rows = np.random.default_rng(0).permutation(150)
    for cut in (None, 3):
        one, two = corpus.sequences(rows, cut), many.sequences(rows, cut)
        np.testing.assert_array_equal(one.tokens, two.tokens)
        np.testing.assert_array_equal(one.indptr, two.indptr)


def test_a_file_that_changes_while_it_is_read(tmp_path, vocabulary, monkeypatch):
    path = write_cells(tmp_path / "a.h5ad", counts_of(10, seed=4))
    real = parts._write_cells

    def and_touch(*arguments):
        tally = real(*arguments)
        path.touch()
        return tally

    monkeypatch.setattr(parts, "_write_cells", and_touch)
    with pytest.raises(InputError, match="has changed while it was read"):
        build_corpus([path], tmp_path / "out", vocabulary=vocabulary, min_genes=5)


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "disk is full.*kept"), (errno.EROFS, "Cannot write")]
)
def test_a_full_disk_loses_nothing(tmp_path, files, vocabulary, monkeypatch, number, message):
    out = tmp_path / "out"
    old = build_corpus(files[:1], out, vocabulary=vocabulary, min_genes=5)
    before = old.manifest["files"]
    real = arrays.GrowingArray.append

    def full(self, values):
        if self.path.parent.parent.name == "shards":
            raise OSError(number, "no")
        real(self, values)

    options = {"vocabulary": vocabulary, "min_genes": 5, "overwrite": True}
    with monkeypatch.context() as patched:
        patched.setattr(arrays.GrowingArray, "append", full)
        with pytest.raises(ResourceError, match=message):
            build_corpus(files, out, **options)
    assert type(old).open(out, verify=True).manifest["files"] == before
    assert not list(tmp_path.rglob("*.partial"))
    monkeypatch.setattr(stages, "write_part", lambda *_: pytest.fail("a file was read again"))
    assert len(build_corpus(files, out, **options)) == 150
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_same_corpus_is_not_built_twice(corpus, files, vocabulary, monkeypatch):
    monkeypatch.setattr(stages, "write_part", lambda *_: pytest.fail("a file was read again"))
    again = build_corpus(files, corpus.path, vocabulary=vocabulary, min_genes=5)
    assert again.manifest == corpus.manifest
