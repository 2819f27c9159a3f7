import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scmix.batches import Sequences
from scmix.classifiers._seen import fingerprints

cells = st.lists(st.lists(st.integers(2, 9), max_size=30), min_size=1, max_size=6)


@given(cells, st.randoms())
def test_marks_belong_to_the_order_of_genes_not_to_the_place(rows, random):
    marks = dict(zip(map(tuple, rows), fingerprints(Sequences.from_list(rows))[0], strict=True))
    random.shuffle(rows)
    again = fingerprints(Sequences.from_list(rows))[0]
    assert [marks[tuple(row)] for row in rows] == again.tolist()
    assert len(set(marks.values())) == len(marks)


def test_cells_that_differ_only_far_down_are_the_same():
    row = np.arange(2, 400)
    marks, _ = fingerprints(Sequences.from_list([row, row[:300], row[::-1]]))
    assert marks[0] == marks[1] != marks[2]


def test_short_cells_are_not_compared():
    assert fingerprints(Sequences.from_list([range(9), range(10)]))[1].tolist() == [False, True]
