import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmix import perturbations as pt
from scmix._errors import InputError
from scmix.batches import Sequences, add_special, positions
from scmix.genes import Vocabulary

cells_of_genes = st.lists(
    st.lists(st.integers(10, 40), max_size=12, unique=True), min_size=1, max_size=8
)
sets = st.lists(st.integers(10, 40), min_size=1, max_size=4, unique=True)
shifts = st.one_of(
    st.tuples(st.integers(1, 15), st.just("positions")),
    st.tuples(st.floats(0.01, 1), st.just("fraction")),
    st.tuples(st.integers(1, 3), st.just("quartiles")),
)


def as_lists(sequences):
    return [row.tolist() for row in sequences]


def packed(rows):
    return Sequences.from_list(rows)


@given(cells_of_genes, sets)
def test_delete_against_lists(rows, genes):
    edited = pt.delete(packed(rows), np.array(genes))
    assert as_lists(edited.sequences) == [[g for g in row if g not in genes] for row in rows]
    np.testing.assert_array_equal(packed(rows).tokens[edited.source], edited.sequences.tokens)


@given(cells_of_genes, sets)
def test_overexpress_against_lists(rows, genes):
    edited = pt.overexpress(packed(rows), np.array(genes))
    expected = [genes + [g for g in row if g not in genes] for row in rows]
    assert as_lists(edited.sequences) == expected
    there = edited.source >= 0
    tokens = packed(rows).tokens[edited.source[there]]
    np.testing.assert_array_equal(tokens, edited.sequences.tokens[there])
    absent = [g for row in rows for g in genes if g not in row]
    assert edited.sequences.tokens[~there].tolist() == absent


def target_by_hand(place, length, by, unit, sign):
    if unit == "positions":
        goal = place + sign * by
    elif unit == "fraction":
        goal = place + sign * max(round(by * length), 1)
    else:
        quartile = int(place / length * 4) + sign * by
        middle = int((quartile + 0.5) * length / 4)
        goal = 0 if quartile < 0 else length - 1 if quartile > 3 else middle
    goal = min(max(goal, 0), length - 1)
    return max(goal, place) if sign > 0 else min(goal, place)


@given(cells_of_genes, st.integers(10, 40), shifts)
def test_shift_of_one_gene_against_lists(rows, gene, shift):
    for move, sign in ((pt.inhibit, 1), (pt.activate, -1)):
        expected = []
        for row in rows:
            new = list(row)
            if gene in row:
                goal = target_by_hand(row.index(gene), len(row), *shift, sign)
                new.remove(gene)
                new.insert(goal, gene)
            expected.append(new)
        assert as_lists(move(packed(rows), np.array([gene]), *shift).sequences) == expected


@given(cells_of_genes, sets, shifts)
def test_shifts_keep_the_genes_and_the_order_of_the_others(rows, genes, shift):
    cells = packed(rows)
    for move in (pt.inhibit, pt.activate):
        edited = move(cells, np.array(genes), *shift)
        for old, new in zip(rows, as_lists(edited.sequences), strict=True):
            assert sorted(old) == sorted(new)
            assert [g for g in old if g not in genes] == [g for g in new if g not in genes]
        np.testing.assert_array_equal(cells.tokens[edited.source], edited.sequences.tokens)
        moved = positions(cells.indptr) - positions(cells.indptr)[edited.source]
        alone = np.isin(edited.sequences.tokens, genes[:1])
        sign = 1 if move is pt.inhibit else -1
        assert len(genes) > 1 or (sign * moved[alone] >= 0).all()


@given(cells_of_genes, sets)
def test_deletion_and_reinsertion_cancel(rows, genes):
    cells = packed(rows)
    present = pt.has_all(cells, np.array(genes))
    front = pt.overexpress(cells[present], np.array(genes)).sequences
    again = pt.overexpress(pt.delete(front, np.array(genes)).sequences, np.array(genes))
    assert as_lists(again.sequences) == as_lists(front)
    without = pt.delete(cells, np.array(genes)).sequences
    put_in = pt.overexpress(without, np.array(genes)).sequences
    assert as_lists(pt.delete(put_in, np.array(genes)).sequences) == as_lists(without)


@given(cells_of_genes, st.data())
def test_every_row_has_its_own_set(rows, data):
    own = [data.draw(sets) for _ in rows]
    width = max(map(len, own))
    table = np.array([genes + [pt.NONE] * (width - len(genes)) for genes in own])
    cells = packed(rows)
    for edit in (pt.delete, pt.overexpress, pt.inhibit, pt.activate):
        together = as_lists(edit(cells, table).sequences)
        alone = [
            as_lists(edit(packed([row]), np.array(genes)).sequences)[0]
            for row, genes in zip(rows, own, strict=True)
        ]
        assert together == alone
    expected = [set(genes) <= set(row) for row, genes in zip(rows, own, strict=True)]
    assert pt.has_all(cells, table).tolist() == expected


@given(cells_of_genes, sets, st.sampled_from(pt.KINDS), st.integers(1, 12), st.booleans())
def test_what_is_read_of_truncated_cells(rows, genes, kind, n_genes, readmit):
    cells, edit = packed(rows), pt.Edit(kind, n_genes, readmit=readmit)
    before, after = edit.before(cells), edit.after(cells, np.array(genes))
    assert as_lists(before) == [row[:n_genes] for row in rows]
    assert after.sequences.lengths.max() <= n_genes
    there = after.source >= 0
    np.testing.assert_array_equal(cells.tokens[after.source[there]], after.sequences.tokens[there])
    for row, new in zip(rows, as_lists(after.sequences), strict=True):
        kept = [g for g in (row if readmit else row[:n_genes]) if g not in genes]
        if kind == "delete":
            assert new == kept[:n_genes]
        elif kind == "overexpress":
            kept = [g for g in row[:n_genes] if g not in genes]
            assert new == (genes + kept)[:n_genes]
        else:
            assert sorted(new) == sorted(row[:n_genes])
    expected = [
        row[:n_genes] != new for row, new in zip(rows, as_lists(after.sequences), strict=True)
    ]
    assert pt.is_changed(before, after.sequences).tolist() == expected


def test_quartiles_as_documented_upstream():
    cell = packed([list(range(10, 26))])
    place = lambda move, gene, by: as_lists(  # noqa: E731
        move(cell, np.array([gene]), by, "quartiles").sequences
    )[0].index(gene)
    assert [place(pt.activate, 10 + i, 1) for i in (0, 3, 4, 8, 15)] == [0, 0, 2, 6, 10]
    assert [place(pt.inhibit, 10 + i, 1) for i in (0, 4, 11, 12, 15)] == [6, 10, 14, 15, 15]
    assert [place(pt.activate, 10 + i, 3) for i in (15, 11, 0)] == [2, 0, 0]


@pytest.mark.parametrize("mode", ["shared", "separate"])
def test_special_tokens_stay(mode):
    vocabulary = Vocabulary.bundled(mode)
    genes = vocabulary.genes.token.to_numpy()[:6]
    cells = packed([genes, genes[::-1]])
    for kind in pt.KINDS:
        after = pt.Edit(kind, 6).after(cells, genes[2:3]).sequences
        read = add_special(after, vocabulary, np.array([0, 1]), max_length=8)
        for code in (0, 1):
            front = vocabulary.prefix(code)
            assert read[code].tolist() == front + after[code].tolist()
        assert not np.isin(after.tokens, vocabulary.special_ids).any()


def test_every_gene():
    rows, genes = pt.every_gene(packed([[7, 8], [], [9]]))
    assert rows.tolist() == [0, 0, 2]
    assert genes.tolist() == [[7], [8], [9]]


def test_pairs_and_anchor():
    assert pt.pairs([3, 1, 2]) == [(3, 1), (3, 2), (1, 2)]
    assert pt.with_anchor("b", ["a", "b", "c"]) == [("b", "a"), ("b", "c")]
    for repeated in (lambda: pt.pairs(["a", "b", "a"]), lambda: pt.with_anchor("b", ["a", "a"])):
        with pytest.raises(InputError, match="Found a twice"):
            repeated()


@pytest.mark.parametrize(
    ("by", "unit", "message"),
    [
        (0, "positions", "whole number from 1"),
        (1.5, "positions", "whole number from 1"),
        (0, "fraction", "more than 0"),
        (1.1, "fraction", "at most 1"),
        (4, "quartiles", "1, 2 or 3"),
        (1, "ranks", "unit='ranks'"),
    ],
)
def test_shifts_that_do_not_exist(by, unit, message):
    with pytest.raises(InputError, match=message):
        pt.Edit("inhibit", 10, by, unit)
    with pytest.raises(InputError, match=message):
        pt.activate(packed([[7, 8]]), np.array([7]), by, unit)


def test_kinds_that_do_not_exist():
    with pytest.raises(InputError, match="kind='active'; expected one of delete"):
        pt.Edit("active", 10)
    with pytest.raises(InputError, match="n_genes=0"):
        pt.Edit("delete", 0)


def test_a_gene_twice_in_a_set():
    with pytest.raises(InputError, match="token 7 twice"):
        pt.delete(packed([[7, 8]]), np.array([7, 8, 7]))
    with pytest.raises(InputError, match=r"shape \(2, 1\); expected \(k,\) or \(1, k\)"):
        pt.delete(packed([[7, 8]]), np.array([[7], [8]]))
