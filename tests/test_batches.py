from dataclasses import dataclass, field
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmix._errors import InputError
from scmix.batches import Sequences, add_special, concat, pack, positions, ranges

rows_of_tokens = st.lists(st.lists(st.integers(10, 99), max_size=6), max_size=8)
lengths = st.lists(st.integers(0, 30), max_size=40).map(lambda x: np.array(x, dtype=np.int64))


@dataclass
class Words:
    """Stands in for a vocabulary: what is put around the genes."""

    front: tuple[list[int], list[int]] = ([2], [3])
    back: list[int] = field(default_factory=list)
    special: dict[str, int] = field(
        default_factory=lambda: {"<pad>": 0, "<mask>": 1, "<human>": 2, "<mouse>": 3}
    )

    def prefix(self, code: int) -> list[int]:
        return self.front[code]

    def suffix(self) -> list[int]:
        return self.back


SHARED = Words()
SEPARATE = Words(([], []), [], {"<pad>": 0, "<mask>": 1})
GENEFORMER_V2 = Words(([2], [2]), [3], {"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3})


def as_lists(sequences: Sequences) -> list[list[int]]:
    return [row.tolist() for row in sequences]


@given(rows_of_tokens)
def test_sequences_keep_rows(rows):
    cells = Sequences.from_list(rows)
    assert as_lists(cells) == rows
    assert cells.lengths.tolist() == [len(row) for row in rows]
    assert cells.tokens.dtype == np.int32
    assert cells.indptr.dtype == np.int64


@given(rows_of_tokens, st.data())
def test_rows_are_taken_as_from_a_list(rows, data):
    cells = Sequences.from_list(rows)
    take = data.draw(st.lists(st.integers(0, len(rows) - 1)) if rows else st.just([]))
    assert as_lists(cells[np.array(take, dtype=int)]) == [rows[i] for i in take]
    mask = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), bool
    )
    assert as_lists(cells[mask]) == [row for row, kept in zip(rows, mask, strict=True) if kept]
    assert as_lists(cells[::-2]) == rows[::-2]


@given(st.lists(rows_of_tokens, max_size=4))
def test_concat_is_list_addition(parts):
    joined = concat([Sequences.from_list(part) for part in parts])
    assert as_lists(joined) == list(chain.from_iterable(parts))


@pytest.mark.parametrize("indptr", [[0, 2], [1, 3], [0, 3, 2, 3], []])
def test_wrong_indptr_is_refused(indptr):
    with pytest.raises(InputError, match="indptr"):
        Sequences(np.array([1, 2, 3]), np.array(indptr, dtype=np.int64))


def test_row_beyond_the_end():
    with pytest.raises(IndexError):
        Sequences.from_list([[1]])[1]


@given(lengths)
def test_positions_restart(lengths):
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    assert positions(indptr).tolist() == [i for length in lengths for i in range(length)]


@given(lengths, st.data())
def test_ranges(lengths, data):
    n = len(lengths)
    starts = np.array(data.draw(st.lists(st.integers(0, 50), min_size=n, max_size=n)), dtype=int)
    expected = [i for s, n in zip(starts, lengths, strict=True) for i in range(s, s + n)]
    assert ranges(starts, lengths).tolist() == expected


@given(lengths, st.integers(1, 60))
def test_pack_uses_every_row_once_and_keeps_the_budget(lengths, budget):
    batches = pack(lengths, budget)
    order = np.concatenate([*batches, np.empty(0, int)]).astype(int)
    assert np.sort(order).tolist() == list(range(len(lengths)))
    assert (np.diff(lengths[order]) <= 0).all()
    for batch in batches:
        assert batch.size == 1 or lengths[batch].sum() <= budget
    for batch, following in pairwise(batches):  # none could take one more
        assert lengths[batch].sum() + lengths[following[0]] > budget


def test_pack_without_budget():
    with pytest.raises(InputError, match="at least 1"):
        pack(np.array([3]), 0)


def around(rows, words, species, use_species, max_length):
    """add_special, written with lists."""
    out = []
    for row, code, use in zip(rows, species, use_species, strict=True):
        dropped = set() if use else {words.special.get("<human>"), words.special.get("<mouse>")}
        front = [t for t in words.prefix(code) if t not in dropped]
        genes = row[: max_length - len(front) - len(words.suffix())]
        out.append([*front, *genes, *words.suffix()] if row else [])
    return out


@pytest.mark.parametrize("words", [SHARED, SEPARATE, GENEFORMER_V2])
@given(rows=rows_of_tokens, data=st.data())
def test_special_tokens_around_the_genes(words, rows, data):
    n = len(rows)
    species = data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    use = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    max_length = data.draw(st.integers(3, 9))
    found = add_special(
        Sequences.from_list(rows),
        words,
        np.array(species, dtype=np.int8),
        use_species=np.array(use, dtype=bool),
        max_length=max_length,
    )
    assert as_lists(found) == around(rows, words, species, use, max_length)


def test_one_species_for_all():
    cells = Sequences.from_list([[7, 8], [], [9]])
    assert as_lists(add_special(cells, SHARED, 1, max_length=2)) == [[3, 7], [], [3, 9]]
    bare = add_special(cells, SHARED, 1, use_species=False, max_length=2)
    assert as_lists(bare) == as_lists(cells)


def test_no_room_for_genes():
    with pytest.raises(InputError, match="no room"):
        add_special(Sequences.from_list([[7]]), GENEFORMER_V2, 0, max_length=2)
