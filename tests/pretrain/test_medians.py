"""The sketch finds the medians that sorting all values finds, and can be merged."""

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from scmix._errors import InputError
from scmix.batches import Sequences
from scmix.pretrain import Corpus, MedianSketch, build_corpus, corpus_medians
from scmix.ranks import rank_encode_numpy

from .conftest import N_GENES, counts_of, write_cells

WIDTH = 2 ** (1 / 32)  # of a bin


def dense_of(corpus: Corpus) -> np.ndarray:
    """Counts per 10,000 by cell and token."""
    rows = np.arange(len(corpus))
    cells = corpus.sequences(rows)
    dense = np.zeros((len(corpus), corpus.vocabulary.n_tokens))
    dense[np.repeat(rows, cells.lengths), cells.tokens] = corpus.counts(rows)
    return dense * 10_000 / corpus.totals[:, None]


def exact(dense: np.ndarray, method: str) -> np.ndarray:
    values = [column[column > 0] for column in dense.T]
    return np.array([np.quantile(v, 0.5, method=method) if v.size else np.nan for v in values])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, vocabulary) -> Corpus:
    folder = tmp_path_factory.mktemp("whole")
    rng = np.random.default_rng(0)
    files = []
    for species, n in (("human", 900), ("mouse", 400)):
        rates = rng.lognormal(0, 2, N_GENES) * rng.lognormal(0, 1, (n, 1))
        counts = rng.poisson(rates).astype(np.float32)
        files.append(write_cells(folder / f"{species}.h5ad", counts, species))
    return build_corpus(
        files, folder / "out", vocabulary=vocabulary, min_genes=1, n_genes=None, values=True
    )


def test_medians_are_those_of_sorting_within_a_bin(whole):
    found = corpus_medians(whole).medians()
    dense = dense_of(whole)
    for code in range(2):
        mine = dense[whole.species == code]
        low, high = exact(mine, "lower"), exact(mine, "higher")
        seen = np.isfinite(low)
        assert seen.sum() >= N_GENES - 2
        np.testing.assert_array_equal(np.isfinite(found[code]), seen)
        assert (found[code, seen] >= low[seen] / WIDTH).all()
        assert (found[code, seen] <= high[seen] * WIDTH).all()
        often = seen & ((mine > 0).sum(0) > 200)
        error = np.abs(np.log(found[code, often] / exact(mine, "linear")[often]))
        assert np.median(error) < 0.005


def test_merged_sketches_are_the_sketch_of_all(whole, vocabulary, tmp_path):
    sketches = [MedianSketch(vocabulary) for _ in range(3)]
    rng = np.random.default_rng(1)
    for rows in np.array_split(rng.permutation(len(whole)), 7):
        sketches[rng.integers(3)].add(
            whole.sequences(rows), whole.counts(rows), whole.totals[rows], whole.species[rows]
        )
    sketches[1].save(tmp_path / "one.npz")
    merged = MedianSketch.load(tmp_path / "one.npz", vocabulary)
    merged.merge(sketches[0])
    merged.merge(sketches[2])
    at_once = corpus_medians(whole)
    np.testing.assert_array_equal(merged.medians(), at_once.medians())
    np.testing.assert_array_equal(merged.n_cells(), at_once.n_cells())
    expected = [(dense_of(whole)[whole.species == code] > 0).sum(0) for code in range(2)]
    np.testing.assert_array_equal(merged.n_cells(), expected)


def test_other_vocabularies_are_refused(vocabulary, separate, tmp_path):
    MedianSketch(vocabulary).save(tmp_path / "one.npz")
    with pytest.raises(InputError, match="another vocabulary"):
        MedianSketch.load(tmp_path / "one.npz", separate)
    with pytest.raises(InputError, match="different vocabularies"):
        MedianSketch(vocabulary).merge(MedianSketch(separate))


def test_extreme_values_are_counted_in_the_end_bins(vocabulary):
    sketch = MedianSketch(vocabulary)
    cells = Sequences(np.array([4, 5, 6]), np.array([0, 3]))
    sketch.add(cells, np.array([1e-9, 1.0, 0.0]), np.array([0.5]), np.array([0]))
    assert sketch.n_cells()[0, 4:7].tolist() == [1, 1, 0]
    low, high, none = sketch.medians()[0, 4:7]
    assert 0 < low < 0.005
    assert high > 16_000
    assert np.isnan(none)
    with pytest.raises(InputError, match="2 counts and 3 tokens"):
        sketch.add(cells, np.ones(2), np.ones(1), np.zeros(1, np.int8))


def test_vocabulary_with_the_medians(whole, vocabulary):
    sketch = corpus_medians(whole)
    made = sketch.to_vocabulary(min_cells=100)
    often = sketch.n_cells() >= 100
    np.testing.assert_array_equal(made.medians[often], sketch.medians()[often])
    rare = vocabulary.species_of_token & ~often
    assert rare.any()
    np.testing.assert_array_equal(made.medians[rare], vocabulary.medians[rare])
    assert made.sha256 != vocabulary.sha256
    np.testing.assert_array_equal(made.genes.token, vocabulary.genes.token)


def test_a_corpus_without_all_counts_has_no_medians(corpus):
    with pytest.raises(InputError, match="n_genes=None, values=True"):
        corpus_medians(corpus)


def test_a_corpus_ranked_by_its_own_medians(whole, tmp_path, vocabulary):
    """Cells that two files share count once."""
    files = [whole.path.parent / f"{name}.h5ad" for name in ("human", "mouse")]
    copy = tmp_path / "copy.h5ad"
    ad.read_h5ad(files[0])[:300].write_h5ad(copy)
    own = build_corpus(
        [*files, copy, write_cells(tmp_path / "x.h5ad", counts_of(5, seed=3))],
        tmp_path / "own",
        vocabulary=vocabulary,
        min_genes=1,
        n_genes=20,
        medians="corpus",
    )
    assert len(own) == len(whole) + 5
    assert not own.has_values
    rows = np.arange(len(whole))
    cells = whole.sequences(rows)
    counts = sp.csr_matrix(
        (whole.counts(rows).astype(np.float64), cells.tokens, cells.indptr),
        shape=(len(rows), vocabulary.n_tokens),
    )
    ranked = rank_encode_numpy(
        counts,
        np.arange(vocabulary.n_tokens),
        own.vocabulary.medians,
        whole.species,
        n_genes=20,
    )
    np.testing.assert_array_equal(own.sequences(rows).tokens, ranked.tokens)
    n = corpus_medians(whole).n_cells()
    close = n >= 200
    ratio = own.vocabulary.medians[close] / corpus_medians(whole).medians()[close]
    assert np.abs(np.log(ratio)).max() < 0.1
    assert own.vocabulary.sha256 == own.manifest["vocabulary_sha256"] != vocabulary.sha256
