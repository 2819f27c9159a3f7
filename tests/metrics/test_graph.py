import numpy as np
import pytest
import scipy.sparse as sp

from scmix import metrics
from scmix._errors import InputError


def test_a_label_in_pieces_counts_its_largest():
    edges = sp.csr_matrix(([1.0, 0.2], ([0, 2], [1, 3])), shape=(6, 6))
    labels = ["a", "a", "a", "a", "a", "b"]  # pieces of a: 0-1, 2-3, 4
    assert metrics.graph_connectivity(edges, labels) == pytest.approx((2 / 5 + 1) / 2)


def test_direction_order_and_names_do_not_matter():
    rng = np.random.default_rng(0)
    edges = sp.random(40, 40, 0.05, random_state=0, format="csr")
    labels = rng.choice(["a", "b", "c"], 40)
    score = metrics.graph_connectivity(edges, labels)
    order = rng.permutation(40)
    assert 0 < score < 1
    assert metrics.graph_connectivity(edges.T, labels) == score
    assert metrics.graph_connectivity(edges[order][:, order], labels[order]) == score
    renamed = np.char.add("z", labels)
    assert metrics.graph_connectivity(edges, renamed) == score


def test_full_graph_is_one_and_no_edges_the_mean_of_single_cells():
    labels = ["a"] * 4 + ["b"] * 2
    assert metrics.graph_connectivity(np.ones((6, 6)), labels) == 1.0
    assert metrics.graph_connectivity(sp.csr_matrix((6, 6)), labels) == (1 / 4 + 1 / 2) / 2


def test_bad_input_is_named():
    with pytest.raises(InputError, match="expected a square"):
        metrics.graph_connectivity(np.ones((2, 3)), ["a", "b"])
    with pytest.raises(InputError, match="1 labels for 2 cells"):
        metrics.graph_connectivity(np.ones((2, 2)), ["a"])
