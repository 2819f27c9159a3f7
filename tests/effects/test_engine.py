import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from scmix._errors import InputError, ModelFileError
from scmix.batches import Sequences
from scmix.effects import Engine, Measure, PairTotals, Plan, Screen, Totals
from scmix.encoder import Config, Encoder
from scmix.perturbations import Edit, pairs

N_TOKENS, ROOM = 40, 13


class Words:
    """Stands in for a vocabulary with a token per species in front and one behind."""

    special = {"<pad>": 0, "<mask>": 1, "<human>": 2, "<mouse>": 3, "<cls>": 4}  # noqa: RUF012
    special_ids = np.arange(5)

    def prefix(self, code):
        return [2 + code]

    def suffix(self):
        return [4]


def make_encoder(scale=0.3):
    config = Config(
        vocab_size=N_TOKENS,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=ROOM + 2,
        initializer_range=scale,
    )
    torch.manual_seed(0)
    return Encoder(config).eval()


ENCODER, VOCABULARY = make_encoder(), Words()
cells_of_genes = st.lists(
    st.lists(st.integers(5, N_TOKENS - 1), min_size=1, max_size=ROOM + 2, unique=True),
    min_size=1,
    max_size=4,
)
edits = st.sampled_from(["delete", "overexpress", "inhibit", "activate"]).map(
    lambda kind: Edit(kind, ROOM)
)


def run(cells, edit, sets=None, encoder=ENCODER, species=None, **options):
    engine = Engine(encoder, VOCABULARY, Plan(edit, N_TOKENS, sets), **options)
    species = np.zeros(len(cells), int) if species is None else species
    found = list(engine.run(cells, species))
    fields = ("cell", "number", "changed", "rank", "original", "perturbed")
    return {name: np.concatenate([getattr(part, name) for part in found]) for name in fields}


@torch.no_grad()
def by_hand(genes, edited, genes_of_set, pool, code=0):
    """Both vectors, cell by cell: means over the genes that are in both, without those edited."""
    vectors = []
    both = [g for g in genes if g in edited and g not in genes_of_set]
    for tokens in (genes, edited):
        hidden = ENCODER(torch.tensor([2 + code, *tokens, 4]), [0, len(tokens) + 2], layer=-1)
        if pool == "cls":
            vectors.append(hidden[0])
            continue
        order = [g for g in tokens if g in both]
        vectors.append(hidden[[1 + list(tokens).index(g) for g in order]].mean(0))
    return np.stack(vectors)


@settings(max_examples=25)
@given(cells_of_genes, edits, st.sampled_from(["mean", "cls"]))
def test_every_gene_against_one_cell_at_a_time(rows, edit, pool):
    cells = Sequences.from_list(rows)
    species = np.arange(len(rows)) % 2
    found = run(cells, edit, species=species, pool=pool)
    for i in range(len(found["cell"])):
        row, gene = rows[found["cell"][i]], found["number"][i]
        read = row[:ROOM]
        edited = edit.after(Sequences.from_list([row]), np.array([gene])).sequences[0].tolist()
        others = [g for g in edited if g in read and g != gene]
        assert found["changed"][i] == (edited != read and bool(others))
        assert found["rank"][i] == read.index(gene) + 1
        if found["changed"][i]:
            pair = by_hand(read, edited, [gene], pool, species[found["cell"][i]])
            np.testing.assert_allclose(found["original"][i], pair[0], atol=1e-5)
            np.testing.assert_allclose(found["perturbed"][i], pair[1], atol=1e-5)
    expected = [(c, g) for c, row in enumerate(rows) for g in row[:ROOM]]
    assert list(zip(found["cell"], found["number"], strict=True)) == expected


@settings(max_examples=15)
@given(cells_of_genes, edits, st.integers(1, 60), st.data())
def test_batch_size_order_and_company_do_not_matter(rows, edit, budget, data):
    whole = run(Sequences.from_list(rows), edit)
    order = data.draw(st.permutations(range(len(rows))))
    part = run(Sequences.from_list([rows[i] for i in order]), edit, batch_tokens=budget)
    for cell, original in enumerate(order):
        for name in ("changed", "original", "perturbed"):
            mine, theirs = part[name][part["cell"] == cell], whole[name][whole["cell"] == original]
            np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_sets_are_edited_where_they_are_complete():
    cells = Sequences.from_list([[5, 6, 7, 8], [6, 5, 9], [5, 7, 8]])
    sets = np.array([[5, 6], [7, 8], [9, -1]])
    found = run(cells, Edit("delete", ROOM), sets)
    expected = [(0, 0), (0, 1), (1, 0), (1, 2), (2, 1)]
    assert list(zip(found["cell"], found["number"], strict=True)) == expected
    assert found["changed"].tolist() == [True] * 5
    assert found["rank"].tolist() == [1.5, 3.5, 1.5, 3, 2.5]
    np.testing.assert_allclose(
        found["perturbed"][1], by_hand([5, 6, 7, 8], [5, 6], [7, 8], "mean")[1], atol=1e-5
    )
    found = run(cells, Edit("overexpress", ROOM), sets)
    assert list(zip(found["cell"], found["number"], strict=True)) == [
        (cell, number) for cell in range(3) for number in range(3)
    ]
    assert np.isnan(found["rank"][2])  # 9 is not in the first cell, and is put in
    expected = by_hand([5, 6, 7, 8], [9, 5, 6, 7, 8], [9], "mean")
    np.testing.assert_allclose(found["perturbed"][2], expected[1], atol=1e-5)


def test_an_anchor_goes_with_every_other_gene():
    cells = Sequences.from_list([[5, 6, 7], [6, 7]])
    plan = Plan(Edit("delete", ROOM), N_TOKENS, anchor=5)
    rows, numbers, sets = plan.of(cells)
    assert (rows.tolist(), numbers.tolist()) == ([0, 0], [6, 7])
    assert sets.tolist() == [[5, 6], [5, 7]]
    assert plan.largest == 2


def test_edits_that_change_nothing_are_exactly_zero():
    cells = Sequences.from_list([[5, 6, 7], [9]])
    found = run(cells, Edit("overexpress", ROOM))
    assert found["changed"].tolist() == [False, True, True, False]  # first already; the only gene
    totals = Totals(1, N_TOKENS, 2)
    none = ~found["changed"]
    zero = np.zeros((none.sum(), 2))
    totals.add(
        np.zeros(none.sum(), int), found["number"][none], found["changed"][none],
        found["rank"][none], np.ones(none.sum()), zero,
    )  # fmt: skip
    assert totals.n.sum() == 0
    assert totals.n_unchanged[0, [5, 9]].tolist() == [1, 1]
    assert np.isnan(found["original"][none]).all()


def test_the_same_cell_twice_does_not_move():
    measure = Measure(np.ones(3), np.eye(3))
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    similarity, shift = measure(vectors, vectors)
    np.testing.assert_allclose(similarity, 1, atol=1e-12)
    assert (shift == 0).all()


def test_an_edit_undone_is_exactly_zero():
    """Deleting a gene that was put in front gives the cell as it was, to the last bit."""
    genes = np.arange(5, 5 + ROOM)
    moved = Edit("overexpress", ROOM).after(Sequences.from_list([genes]), np.array([9])).sequences
    back = Edit("inhibit", ROOM, 4, "positions").after(moved, np.array([9])).sequences
    assert back[0].tolist() == genes.tolist()
    never = Sequences.from_list([genes])
    one, two = (run(cells, Edit("delete", ROOM), np.array([[7]])) for cells in (back, never))
    assert (one["perturbed"] == two["perturbed"]).all()
    assert (one["original"] == two["original"]).all()


def test_totals_and_pairs():
    totals = Totals(2, 3, 1)
    group, number = np.array([0, 0, 1]), np.array([2, 2, 0])
    changed = np.array([True, True, True])
    values = np.array([0.5, 1.0, 0.25])
    totals.add(group, number, changed, np.array([1, 3, 5]), values, values[:, None])
    rank, similarity, shift = totals.means()
    assert (rank[0, 2], similarity[0, 2], shift[1, 0, 0]) == (2, 0.75, 0.25)
    assert np.isnan(rank[1, 2])
    table = PairTotals(np.array([2]), np.array([1, 4]), 3, 6)
    table.add(np.array([2, 2, 0, 2]), np.array([4, 4, 4, 3]), np.array([0.5, 1, 9, 9]))
    assert table.n.tolist() == [[0, 2]]
    assert (table.similarity[0, 1], table.squared[0, 1]) == (1.5, 1.25)


@pytest.mark.parametrize("leave_out", [True, False])
@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_estimates_are_the_first_order_of_the_effect(pool, leave_out):
    """With small embeddings of positions and small values, second orders vanish."""
    encoder = make_encoder()
    with torch.no_grad():
        encoder.bert.embeddings.position_embeddings.weight *= 0.01
        for layer in encoder.bert.encoder.layer:
            layer.attention.self.value.weight *= 0.02
    rng = np.random.default_rng(0)
    lengths = (ROOM - 2, ROOM, ROOM + 1)  # into the last a gene is let back in
    cells = Sequences.from_list([rng.permutation(np.arange(5, 40))[:n] for n in lengths])
    centre, direction = rng.normal(size=(2, 16))
    found = run(cells, Edit("delete", ROOM), encoder=encoder, pool=pool, leave_out=leave_out)
    exact = Measure(centre, direction[None])(found["original"], found["perturbed"])[1][:, 0]
    for budget in (None, ROOM):
        screen = Screen(
            encoder,
            VOCABULARY,
            ROOM,
            centre,
            direction,
            pool=pool,
            leave_out=leave_out,
            batch_tokens=budget,
        )
        estimate = np.concatenate([x for _, x in screen.run(cells, np.zeros(3, int))])
        at = found["changed"]
        assert spearmanr(estimate[at], exact[at])[0] > 0.97
        assert 0.8 < (estimate[at] @ exact[at]) / (estimate[at] @ estimate[at]) < 1.5


def test_options_that_do_not_exist():
    plan = Plan(Edit("delete", ROOM), N_TOKENS)
    with pytest.raises(InputError, match="pool='first'"):
        Engine(ENCODER, VOCABULARY, plan, pool="first")
    with pytest.raises(InputError, match="layer=7"):
        Engine(ENCODER, VOCABULARY, plan, layer=7)


def test_values_that_are_not_finite():
    broken = make_encoder()
    broken.bert.embeddings.LayerNorm.bias.data[3] = torch.nan
    with pytest.raises(ModelFileError, match="not finite"):
        run(Sequences.from_list([[5, 6, 7]]), Edit("delete", ROOM), encoder=broken)


def test_pairs_of_a_list_as_sets():
    found = run(
        Sequences.from_list([[5, 6, 7, 8]]), Edit("delete", ROOM), np.array(pairs([5, 6, 7]))
    )
    assert found["number"].tolist() == [0, 1, 2]
    assert found["changed"].all()
