import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scmix.batches import Sequences, add_special
from scmix.classifiers._expression import expression, gene_matrix
from scmix.genes import Vocabulary
from scmix.ranks import rank_encode


def make(medians, species="human", mode="shared", group=""):
    """A vocabulary with a gene for each median; `species` names that of each gene."""
    n = len(medians)
    kinds = [species] * n if isinstance(species, str) else species
    table = pd.DataFrame(
        {
            "ensembl_id": [
                f"ENS{'MUS' if kind == 'mouse' else ''}G{i:011d}" for i, kind in enumerate(kinds)
            ],
            "symbol": [f"G{i}" for i in range(n)],
            "aliases": "",
            "species": kinds,
            "biotype": "protein_coding",
            "group": group,
            "median": np.asarray(medians, np.float32),
        }
    )
    return Vocabulary.from_table(table, mode=mode)


def tokens_of(vocabulary):
    """Token of each gene, in the order of the table."""
    return np.flatnonzero(np.isfinite(vocabulary.medians).any(axis=0))


def test_smallest_counts_that_give_the_order():
    vocabulary = make([1.0, 2.0, 4.0, 0.8])
    a, b, c, d = tokens_of(vocabulary)
    cells = add_special(Sequences.from_list([[a, b, c, d]]), vocabulary, 0, max_length=9)
    counts = np.array([2, 3, 5, 1])  # from the last: 1 / 0.8, 5 / 4 (equal), 3 / 2, 2 / 1
    expected = [0, *np.log1p(counts / counts.sum() * 10_000)]
    assert expression(cells, vocabulary) == pytest.approx(expected, rel=1e-6)
    cells = Sequences.from_list([[b, a, d]])
    expected = np.log1p(np.array([4, 2, 1]) / 7 * 10_000)  # 1 / 0.8, 2 / 1, 4 / 2 (equal)
    assert expression(cells, vocabulary) == pytest.approx(expected, rel=1e-6)


def test_counts_come_back_from_the_order_of_many_genes():
    rng = np.random.default_rng(0)
    medians = np.exp(rng.normal(0.5, 0.7, 3000))
    vocabulary = make(medians)
    level = np.exp(rng.normal(-1, 1.2, 3000))
    counts = sp.csr_matrix(rng.poisson(level, (20, 3000)).astype(np.float32))
    cells = rank_encode(counts, tokens_of(vocabulary), vocabulary.medians, 0, n_genes=3000)
    found = gene_matrix(cells, vocabulary)[:, tokens_of(vocabulary)].toarray()
    per_cell = np.expm1(found.astype(np.float64))
    one = per_cell.min(axis=1, where=per_cell > 0, initial=np.inf)  # the last gene has a count of 1
    assert (per_cell / one[:, None] <= counts.toarray() * 1.001).all()
    share = counts.toarray() / counts.sum(axis=1).A1[:, None] * 10_000
    assert np.array_equal(found > 0, share > 0)
    assert np.corrcoef(found[share > 0], np.log1p(share[share > 0]))[0, 1] > 0.99


def test_special_tokens_and_cells_without_genes_have_none():
    vocabulary = make([1.0, 2.0])
    a, _ = tokens_of(vocabulary)
    cells = Sequences.from_list([[], vocabulary.prefix(0), [*vocabulary.prefix(0), a]])
    assert expression(cells, vocabulary).tolist() == [0, 0, pytest.approx(np.log1p(10_000))]
    kept, genes = cells.tokens.copy(), gene_matrix(cells, vocabulary)
    assert genes.shape == (3, vocabulary.n_tokens)
    assert genes.nnz == 1
    assert np.array_equal(cells.tokens, kept)


@pytest.mark.parametrize("mode", ["shared", "separate"])
def test_the_medians_are_those_of_the_cell_s_species(mode):
    """Two orthologues; the first has a median of 1 in human and of 5 in mouse."""
    kinds = ["human", "human", "mouse", "mouse"]
    vocabulary = make([1.0, 1.0, 5.0, 1.0], kinds, mode, group=["x", "y", "x", "y"])
    for code, counts in ((0, [1, 1]), (1, [5, 1])):
        own = np.flatnonzero(np.isfinite(vocabulary.medians[code]))
        own = own[np.argsort(-vocabulary.medians[code, own], kind="stable")]
        cells = add_special(Sequences.from_list([own]), vocabulary, code, max_length=9)
        found = expression(cells, vocabulary)[-2:]
        assert found == pytest.approx(np.log1p(np.array(counts) / sum(counts) * 1e4), rel=1e-6)
