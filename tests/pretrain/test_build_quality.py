"""Quality control drops exactly what its thresholds say, and the report adds up."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from scmix._errors import InputError, MissingKeyError
from scmix.genes import Vocabulary
from scmix.pretrain import Source, build_corpus
from scmix.pretrain._building import duplicates
from scmix.pretrain._building.quality import doublets, profile

from .conftest import N_GENES, counts_of, vocabulary_of, write_cells


@pytest.fixture(scope="module")
def mitochondrial() -> Vocabulary:
    """Genes 0 and 1 of either species are called MT-..."""
    genes = vocabulary_of("shared").genes.drop(columns="token")
    genes["symbol"] = genes.symbol.replace(
        {"GENE0": "MT-ND1", "GENE1": "MT-CO1", "Gene0": "mt-Nd1", "Gene1": "mt-Co1"}
    )
    return Vocabulary.from_table(genes)


def cells() -> np.ndarray:
    """20 genes with 5 counts each, but for the cell that each test is about."""
    counts = np.zeros((8, N_GENES), np.float32)
    for i in range(8):
        counts[i, 2 + i : 22 + i] = 5
    return counts


def build(tmp_path, counts, vocabulary, obs=None, source=None, **options):
    path = write_cells(tmp_path / "a.h5ad", counts, obs=obs)
    corpus = build_corpus(
        [Source(path, **(source or {}))],
        tmp_path / "out",
        vocabulary=vocabulary,
        **{"min_genes": 1, **options},
    )
    (report,) = corpus.manifest["sources"]
    dropped = {k[2:]: v for k, v in report.items() if k.startswith("n_") and v}
    assert dropped.pop("read") == dropped.pop("kept") + sum(
        n for name, n in dropped.items() if name != "tokens"
    )
    dropped.pop("tokens")
    return corpus, dropped


def test_each_threshold_keeps_a_cell_that_is_on_it(tmp_path, mitochondrial):
    counts = cells()
    counts[0, 2] -= 1  # 99 counts
    counts[1, 3] += 1  # 101 counts
    counts[2, 40] = 1
    counts[2, 4] -= 1  # 21 genes
    counts[3, 5] = 0
    counts[3, 6] = 10  # 19 genes
    counts[4, :2] = [5, 6]
    counts[4, [10, 24, 25]] = [4, 0, 0]  # 11 of 100 counts are mitochondrial
    counts[5, :2] = 5  # 10 of 100 counts are mitochondrial
    counts[5, 25:27] = 0
    corpus, dropped = build(
        tmp_path,
        counts,
        mitochondrial,
        min_counts=100,
        max_counts=100,
        min_genes=20,
        max_genes=20,
        max_mitochondrial=0.1,
    )
    assert dropped == {"few_counts": 1, "many_counts": 1, "few_genes": 1, "many_genes": 1,
                       "mitochondrial": 1}  # fmt: skip
    assert corpus.totals.tolist() == [100, 100, 100]


def test_the_first_reason_counts(tmp_path, mitochondrial):
    obs = pd.DataFrame({"call": ["doublet"] + ["singlet"] * 7})
    counts = cells()
    counts[0] = 0
    counts[0, 0] = 3
    counts[1] = 0
    counts[1, 0] = 2
    options = {"min_counts": 100, "min_genes": 20, "max_mitochondrial": 0.1}
    _, dropped = build(tmp_path, counts, mitochondrial, obs, {"doublet_key": "call"}, **options)
    assert dropped == {"doublet": 1, "few_counts": 1}


def test_totals_are_over_all_genes_of_the_file(tmp_path, mitochondrial):
    path = write_cells(tmp_path / "x.h5ad", cells())
    adata = ad.read_h5ad(path)
    other = ad.AnnData(np.full((8, 3), 7, np.float32), var=pd.DataFrame(index=list("abc")))
    other.obs_names = adata.obs_names
    ad.concat([adata, other], axis=1).write_h5ad(path)
    corpus = build_corpus(
        [path], tmp_path / "out", vocabulary=mitochondrial, min_genes=20, min_counts=121
    )
    assert corpus.totals.tolist() == [121] * 8


@pytest.mark.parametrize(
    "values",
    [
        [True, False, False],
        [1, 0, 0],
        [1.0, 0.0, np.nan],
        ["Doublet", "Singlet", "singlet"],
        ["True", "False", None],
        pd.Categorical(["doublet", None, "singlet"]),
    ],
)
def test_marks_of_doublets(values):
    assert doublets(pd.Series(values, name="d")).tolist() == [True, False, False]


def test_scores_are_no_marks(tmp_path, mitochondrial):
    obs = pd.DataFrame({"score": np.linspace(0.1, 0.9, 8)})
    with pytest.raises(InputError, match=r"a.h5ad: Column 'score' .* marks doublets with 0.1"):
        build(tmp_path, cells(), mitochondrial, obs, {"doublet_key": "score"})
    with pytest.raises(MissingKeyError, match="no column 'doublet' in obs; it has score"):
        build(tmp_path, cells(), mitochondrial, obs, {"doublet_key": "doublet"})


@pytest.mark.parametrize(
    "options",
    [
        {"min_counts": 5, "max_counts": 4},
        {"min_genes": -1},
        {"max_mitochondrial": 20},
        {"n_genes": 0},
        {"medians": "mean"},
        {"n_jobs": 0},
    ],
)
def test_impossible_options_are_refused(tmp_path, mitochondrial, options):
    with pytest.raises(InputError, match=r"Found .*expected"):
        build(tmp_path, cells(), mitochondrial, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5ad"]


def test_the_report_is_there_for_people_too(tmp_path, mitochondrial):
    counts = cells()
    counts[7] = 0
    counts[7, 9] = 3
    path = write_cells(tmp_path / "b.h5ad", counts)
    other = write_cells(tmp_path / "c.h5ad", cells()[:3])
    corpus = build_corpus(
        [path, other], tmp_path / "out", vocabulary=mitochondrial, min_genes=20, min_counts=10
    )
    text = corpus.report()
    assert (corpus.path / "report.txt").read_text() == text
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["Quality", "control:", "min_counts", "=", "10,", "min_genes", "=", "20"]
    titles = "data set species read kept few counts same counts genes known"
    assert lines[2] == titles.split()
    assert lines[3] == ["b", "human", "8", "7", "1", "0", "100.0%"]
    assert lines[4] == ["c", "human", "3", "0", "0", "3", "100.0%"]
    assert lines[5] == ["all", "11", "7", "1", "3"]


def test_profile_is_what_numpy_says(mitochondrial):
    rng = np.random.default_rng(0)
    dense = rng.poisson(0.7, (30, 12)).astype(np.float32)
    tokens = np.array([4, 5, 6, 7, 8, 9, -1, -1, 10, 11, 12, 13], np.int32)
    known = np.array([tokens >= 0, (tokens >= 0) & (tokens != 9)])
    species = rng.integers(0, 2, 30).astype(np.int8)
    found = profile(sp.csr_matrix(dense), tokens, known, tokens == 5, species)
    used = dense * known[species]
    np.testing.assert_array_equal(found.totals, dense.sum(1))
    np.testing.assert_array_equal(found.n_genes, (used > 0).sum(1))
    np.testing.assert_array_equal(found.mitochondrial, used[:, 1])
    order = rng.permutation(12)
    again = profile(
        sp.csr_matrix(dense[:, order].astype(np.float64)),
        tokens[order],
        known[:, order],
        tokens[order] == 5,
        species,
    )
    np.testing.assert_array_equal(again.content, found.content)
    for i in range(30):
        for j in range(i):
            same = (used[i] == used[j]).all()
            assert (found.content[i] == found.content[j]).all() == same


@given(
    st.lists(st.one_of(st.none(), st.lists(st.integers(0, 12), max_size=20)), max_size=6),
    st.integers(1, 40),
)
def test_met_before_is_what_a_set_says(arrays, bucket):
    hashes = [
        None if one is None else np.array([[x * 7, x % 3] for x in one], np.uint64).reshape(-1, 2)
        for one in arrays
    ]
    before, duplicates.BUCKET = duplicates.BUCKET, bucket
    try:
        found = duplicates.met_before(hashes) if hashes else []
    finally:
        duplicates.BUCKET = before
    seen: set[int] = set()
    for one, repeated in zip(arrays, found, strict=True):
        expected = []
        for x in one or []:
            expected.append(x in seen)
            seen.add(x)
        assert repeated.tolist() == expected


def test_equal_names_are_equal_in_a_family_only():
    one, two = (duplicates.name_hashes(family, ["x", "y", "x"]) for family in ("a", "b"))
    assert (one[0] == one[2]).all()
    assert not (one[0] == one[1]).all()
    assert not (one == two).all(axis=1).any()
    assert duplicates.name_hashes("a", []).shape == (0, 2)
    assert not (duplicates.name_hashes("a", ["bc"]) == duplicates.name_hashes("ab", ["c"])).any()


def test_counts_of_a_rich_and_a_poor_cell_differ(tmp_path, mitochondrial):
    counts = counts_of(6, seed=11)
    corpus, dropped = build(tmp_path, np.concatenate([counts, 2 * counts, counts]), mitochondrial)
    assert dropped == {"duplicated": 6}
    assert len(corpus) == 12
