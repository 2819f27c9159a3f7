"""Views hold the genes they say, in rank order, with the right species token."""

import shutil
from multiprocessing import get_all_start_methods

import numpy as np
import pytest
from torch.utils.data import DataLoader

from scmix.batches import Sequences
from scmix.pretrain import Corpus, build_corpus, recipe
from scmix.pretrain._cells import Cells, swap_species
from scmix.pretrain.stream import Stream
from scmix.pretrain.views import Views

ALL = ("masked", "again", "subset", "full", "swapped")


def settings(**changes):
    return recipe("mix-geneformer-x", max_length=40, tokens_per_step=600, **changes)


def cells_of(view) -> list[np.ndarray]:
    """Tokens of each cell, in the order of the batch."""
    parts = np.split(view["tokens"].numpy(), view["indptr"][1:-1])
    return [parts[place] for place in view["place"].tolist()]


@pytest.mark.parametrize("mode", ["shared", "separate"])
def test_swapping_names_the_one_to_one_orthologues(mode, vocabulary, separate):
    voc = {"shared": vocabulary, "separate": separate}[mode]
    token = voc.genes.set_index("symbol").token
    human = [token[f"GENE{i}"] for i in (3, 59, 1, 45)]
    mouse = [token[f"Gene{i}"] for i in (50, 2, 7)]
    cells = Cells(Sequences.from_list([human, mouse]))
    other, species = swap_species(cells, np.array([0, 1]), voc)
    assert other.genes[0].tolist() == [token["Gene3"], token["Gene1"]]  # 59 and 45 have none
    assert other.genes[1].tolist() == [token["GENE2"], token["GENE7"]]
    assert species.tolist() == [1, 0]


def test_only_the_chosen_cells_are_swapped(separate):
    token = separate.genes.set_index("symbol").token
    rows = [[token["GENE3"], token["GENE59"]], [token["GENE59"]], [token["Gene4"]]]
    cells, species = Cells(Sequences.from_list(rows)), np.array([0, 0, 1])
    same, written = swap_species(cells, species, separate, np.array([True, True, False]))
    # the second cell has no orthologue at all, and stays
    assert [row.tolist() for row in same.genes] == [[token["Gene3"]], rows[1], rows[2]]
    assert written.tolist() == [1, 0, 1]


def test_views_of_a_batch(corpus):
    batch = Stream(corpus, settings(species_token_dropout=0.0), ALL).batch(3)
    views, rows = batch["views"], batch["rows"]
    voc = corpus.vocabulary
    species = corpus.species[rows]
    assert batch["species"].tolist() == species.tolist()
    assert batch["dataset"].tolist() == corpus.dataset[rows].tolist()
    for name, view in views.items():
        lengths = np.diff(view["indptr"])
        assert view["indptr"][-1] == len(view["tokens"])
        assert (lengths <= 40).all()
        assert (np.diff(lengths) <= 0).all()  # equal lengths stand together
        assert len(lengths) == len(rows)
        written = 1 - species if name == "swapped" else species
        first = np.array([voc.prefix(code)[0] for code in written])
        np.testing.assert_array_equal([cell[0] for cell in cells_of(view)], first)
    for row, full in zip(rows, cells_of(views["full"]), strict=True):
        np.testing.assert_array_equal(full[1:], corpus.sequences([row])[0][:39])


def test_the_second_part_is_written_in_the_other_species_when_asked(corpus):
    swapped = settings(subset_swapped=1.0, species_token_dropout=0.0)
    batch = Stream(corpus, swapped, ("masked", "subset")).batch(0)
    voc = corpus.vocabulary
    for row, masked, part in zip(
        batch["rows"],
        cells_of(batch["views"]["masked"]),
        cells_of(batch["views"]["subset"]),
        strict=True,
    ):
        own = int(corpus.species[row])
        assert masked[0] == voc.prefix(own)[0]
        assert part[0] == voc.prefix(1 - own)[0]
        assert voc.species_of_token[1 - own, part[1:]].all()


def test_masked_view_becomes_the_cell_again_with_its_labels(corpus):
    stream = Stream(corpus, settings(), ("masked", "again", "full"))
    batch = stream.batch(0)
    masked, targets = batch["views"]["masked"], batch["targets"]
    restored = {**masked, "tokens": masked["tokens"].clone()}
    restored["tokens"][targets["positions"]] = targets["labels"]
    for row, cell in zip(batch["rows"], cells_of(restored), strict=True):
        genes = cell[~np.isin(cell, corpus.vocabulary.special_ids)]
        np.testing.assert_array_equal(genes, corpus.sequences([row])[0][: len(genes)])
    assert batch["views"]["again"] is masked
    keep = masked["keep"].numpy()
    tokens = masked["tokens"].numpy()
    np.testing.assert_array_equal(keep, ~np.isin(tokens, corpus.vocabulary.special_ids))


def test_where_genes_start(corpus):
    batch = Stream(corpus, settings(species_token_dropout=0.5), ("full",)).batch(1)
    view = batch["views"]["full"]
    starts = view["tokens"][view["first"]].numpy()
    order = np.argsort(view["place"].numpy())
    top = [corpus.sequences([batch["rows"][i]])[0][0] for i in order]
    np.testing.assert_array_equal(starts, top)
    has_token = view["first"].numpy() > np.array(view["indptr"][:-1])
    assert 0 < has_token.sum() < len(has_token)


def test_species_token_is_dropped_at_the_given_rate(corpus):
    stream = Stream(corpus, settings(species_token_dropout=0.15), ("full",))
    dropped = []
    for step in range(60):
        view = stream.batch(step)["views"]["full"]
        dropped += (view["first"].numpy() == np.array(view["indptr"][:-1])).tolist()
    assert np.mean(dropped) == pytest.approx(0.15, abs=0.04)


def test_a_cell_that_is_all_masked_is_pooled_over_its_masks(vocabulary):
    views = Views(
        vocabulary, settings(mask_share=0.9, mask_masked=1.0, mask_replaced=0.0), ["masked"]
    )
    cells = Sequences.from_list([[5]] * 10)
    view = views.build(cells, np.zeros(10, np.int8), np.random.default_rng(0))["views"]["masked"]
    kept = np.add.reduceat(view["keep"].numpy(), view["indptr"][:-1])
    assert (kept >= 1).all()


def test_lengths_are_cut_to_a_multiple(corpus):
    batch = Stream(corpus, settings(length_multiple=8), ("masked", "subset")).batch(0)
    for view in batch["views"].values():
        lengths = np.diff(view["indptr"])
        assert ((lengths % 8 == 0) | (lengths < 8)).all()


def test_batches_depend_on_seed_and_number_only(corpus):
    one, two = (Stream(corpus, settings(seed=4), ALL) for _ in range(2))
    two.start = 5
    from_five = next(iter(two))
    np.testing.assert_array_equal(one.batch(5)["rows"], from_five["rows"])
    for name in ALL:
        a, b = one.batch(5)["views"][name], from_five["views"][name]
        assert (a["tokens"] == b["tokens"]).all()
    assert one.batch(6)["rows"] != from_five["rows"]


def test_processes_share_the_batches(corpus):
    alone = Stream(corpus, settings(), ("full",))
    ranks = [Stream(corpus, settings(), ("full",), rank=rank, world=2) for rank in (0, 1)]
    for step in range(3):
        for rank, stream in enumerate(ranks):
            assert stream.batch(step)["rows"] == alone.batch(2 * step + rank)["rows"]


@pytest.fixture(scope="module")
def whole(files, vocabulary, tmp_path_factory):
    """A corpus with all genes and their counts."""
    out = tmp_path_factory.mktemp("whole") / "corpus"
    options = {"vocabulary": vocabulary, "min_genes": 5, "n_genes": None, "values": True}
    return build_corpus(files, out, **options)


VALUED = {"max_length": 40, "tokens_per_step": 600, "subset_swapped": 0.5, "masker": "uniform"}


def test_every_shown_gene_has_its_own_value(whole):
    settings = recipe("wced-rank", **VALUED)
    batch = Stream(whole, settings, ("masked", "part", "full", "subset", "swapped")).batch(2)
    voc = whole.vocabulary
    for name, view in batch["views"].items():
        tokens = cells_of(view)
        values = cells_of({**view, "tokens": view["values"]})
        for row, genes, found in zip(batch["rows"], tokens, values, strict=True):
            scaled = 1e4 * whole.counts([row]) / whole.totals[row]
            value = dict(zip(whole.sequences([row])[0].tolist(), np.log1p(scaled), strict=True))
            own = int(whole.species[row])
            other = {voc.orthologues[1 - own, gene]: v for gene, v in value.items()}
            expected = [value.get(gene, other.get(gene, 0.0)) for gene in genes.tolist()]
            if name in ("masked", "part", "full"):
                expected = [value.get(gene, 0.0) for gene in genes.tolist()]
            np.testing.assert_allclose(found, expected, rtol=1e-5)
            assert (found[np.isin(genes, voc.special_ids)] == 0).all()


@pytest.mark.parametrize("masker", ["subset", "keep_k", "uniform", "nonzero_zero"])
def test_a_part_and_what_it_hides_make_the_cell(whole, masker):
    settings = recipe(
        "wced-rank", part_masker=masker, keep_k=5, hide_zero=0.2, subset_share=(0.2, 0.6), **VALUED
    )
    batch = Stream(whole, settings, ("part",)).batch(0)
    hidden, bounds = batch["hidden"], batch["hidden"]["indptr"]
    for i, (row, shown) in enumerate(
        zip(batch["rows"], cells_of(batch["views"]["part"]), strict=True)
    ):
        shown = shown[~np.isin(shown, whole.vocabulary.special_ids)]
        mine = slice(bounds[i], bounds[i + 1])
        tokens, values = hidden["tokens"][mine].numpy(), hidden["values"][mine].numpy()
        cell = whole.sequences([row])[0]
        assert sorted([*shown, *tokens[values > 0]]) == sorted(cell)
        zeros = tokens[values == 0]
        assert (len(zeros) > 0) == (masker == "nonzero_zero")
        assert not np.isin(zeros, cell).any()
        assert whole.measured_genes[whole.group([row])[0], zeros].all()
        if masker == "keep_k":
            assert len(shown) == min(5, len(cell))


def test_profile_is_the_whole_cell(whole):
    batch = Stream(whole, recipe("wced-rank", **VALUED), ("part",)).batch(1)
    profile, rows = batch["profile"], np.array(batch["rows"])
    np.testing.assert_array_equal(profile["tokens"], whole.sequences(rows).tokens)
    np.testing.assert_array_equal(profile["counts"], whole.counts(rows))
    np.testing.assert_array_equal(profile["totals"], whole.totals[rows])
    measured = profile["measured"][profile["group"]].numpy()
    np.testing.assert_array_equal(measured, whole.measured_genes[whole.group(rows)])


def test_a_batch_of_parts_has_as_many_cells_as_parts_fit(whole):
    few = recipe("wced-rank", part_masker="keep_k", keep_k=5, **VALUED)
    batch = Stream(whole, few, ("part",)).batch(0)
    assert 500 < batch["views"]["part"]["indptr"][-1] <= 600
    assert len(batch["rows"]) > 2 * len(Stream(whole, few, ("part", "full")).batch(0)["rows"])


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("start", sorted({"fork", "spawn"} & set(get_all_start_methods())))
def test_workers_read_the_same_batches_however_they_are_started(corpus, tmp_path, start):
    folder = tmp_path / "zwei Wörter, ein Ordner"
    shutil.copytree(corpus.path, folder)
    stream = Stream(Corpus.open(folder), settings(), ("masked", "subset"))
    loader = DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context=start)
    for step, batch in zip(range(5), loader, strict=False):
        alone = stream.batch(step)
        assert batch["rows"] == alone["rows"]
        assert batch["number"] == alone["number"] == step
        for name, view in alone["views"].items():
            assert batch["views"][name]["tokens"].equal(view["tokens"])
