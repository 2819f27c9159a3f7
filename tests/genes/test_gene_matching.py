"""Names of genes matched to a vocabulary, and what is said about them."""

import time
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmix._errors import GeneIdError, InputError
from scmix.genes import SPECIES, Vocabulary, detect, match

Draw = Callable[..., list[str]]
GAPDH, CD3E, MARCHF1 = "ENSG00000111640", "ENSG00000198851", "ENSG00000145416"
CD3E_MOUSE = "ENSMUSG00000032093"


def tiny() -> Vocabulary:
    rows = [
        ("ENSG00000000001", "AAA", "OLDA|BOTH|BBB", "human"),
        ("ENSG00000000002", "BBB", "BOTH", "human"),
        ("ENSG00000000003", "CCC", "ENSG00000000009", "human"),
        ("ENSMUSG00000000001", "Aaa", "", "mouse"),
    ]
    table = pd.DataFrame(rows, columns=["ensembl_id", "symbol", "aliases", "species"])
    return Vocabulary.from_table(table.assign(biotype="", group=["1", "", "", "1"], median=1.0))


# -- what matches ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("_no_warnings")
def test_ids_symbols_and_aliases(vocabulary: Vocabulary) -> None:
    found = match(["ENSG00000111640.15", "CD3E", "MARCH1", "no gene"], vocabulary)
    assert found.ensembl_id.tolist() == [GAPDH, CD3E, MARCHF1, ""]
    genes = vocabulary.genes.set_index("ensembl_id").token
    assert found.tokens.tolist() == [genes[GAPDH], genes[CD3E], genes[MARCHF1], -1]
    assert found.tokens.dtype == np.int32
    assert (found.species, found.id_type, found.n_matched) == ("human", "mixed", 3)
    assert found.coverage == 0.75
    assert found.summary.startswith("3 of 4 columns (75%) are human genes of the vocabulary (1 by ")
    assert "1 by Ensembl id, 1 by symbol, 1 by alias" in found.summary


def test_an_id_beats_a_symbol_beats_an_alias() -> None:
    with pytest.warns(UserWarning, match="1 names stand for more than one gene.*'BOTH'"):
        found = match(["BBB", "OLDA", "BOTH", "ENSG00000000009", "AAA2"], tiny())
    assert found.ensembl_id.tolist() == [
        "ENSG00000000002", "ENSG00000000001", "", "ENSG00000000003", "",
    ]  # fmt: skip


@pytest.mark.usefixtures("_no_warnings")
@pytest.mark.parametrize("species", SPECIES)
@pytest.mark.parametrize("mode", ["shared", "separate"])
def test_every_id_and_symbol_of_the_vocabulary_is_itself(species: str, mode: str) -> None:
    vocabulary = Vocabulary.bundled(mode)
    genes = vocabulary.genes[vocabulary.genes.species == species]
    named = genes[genes.symbol != ""]
    for names, rows in [(genes.ensembl_id, genes), (named.symbol, named)]:
        found = match(names, vocabulary)
        np.testing.assert_array_equal(found.tokens, rows.token)
        np.testing.assert_array_equal(found.ensembl_id, rows.ensembl_id)
        assert (found.species, found.coverage) == (species, 1.0)


@given(order=st.permutations(range(60)))
def test_order_of_genes_is_no_matter(order: list[int], symbols: Draw, ids: Draw) -> None:
    names = np.array([*symbols("human", 30), *ids("human", 20), *(f"none{i}" for i in range(10))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = match(names, Vocabulary.bundled())
        moved = match(names[order], Vocabulary.bundled())
    np.testing.assert_array_equal(moved.tokens, whole.tokens[order])
    np.testing.assert_array_equal(moved.ensembl_id, whole.ensembl_id[order])
    assert moved.summary == whole.summary


@given(
    extra=st.lists(st.text("xyzq-. 123", min_size=3), unique=True, max_size=30),
    seed=st.integers(0, 99),
)
def test_unknown_genes_change_nothing_for_others(
    extra: list[str], seed: int, symbols: Draw
) -> None:
    names = symbols("mouse", 60, seed)
    extra = [f"{name} none" for name in extra]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = match(names, Vocabulary.bundled())
        among = match([*extra, *names], Vocabulary.bundled())
    np.testing.assert_array_equal(among.tokens[len(extra) :], alone.tokens)
    assert (among.tokens[: len(extra)] == -1).all()


@given(st.integers(0, 1000), st.sampled_from(SPECIES))
def test_matching_what_was_matched_gives_the_same(seed: int, species: str) -> None:
    vocabulary = Vocabulary.bundled()
    genes = vocabulary.genes[vocabulary.genes.species == species].sample(50, random_state=seed)
    names = genes.symbol.where(genes.symbol != "", genes.ensembl_id)
    once = match(names, vocabulary)
    twice = match(once.ensembl_id, vocabulary)
    np.testing.assert_array_equal(once.tokens, twice.tokens)
    np.testing.assert_array_equal(once.ensembl_id, twice.ensembl_id)


# -- species ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("species", SPECIES)
@pytest.mark.parametrize("kind", ["symbols", "ids"])
@pytest.mark.parametrize("n", [20, 400])
def test_species_and_kind_are_recognised(
    species: str, kind: str, n: int, request: pytest.FixtureRequest
) -> None:
    detection = detect(request.getfixturevalue(kind)(species, n), Vocabulary.bundled())
    assert detection.species == species
    assert detection.id_type == ("symbol" if kind == "symbols" else "Ensembl id")
    assert detection.shares.loc[species].sum() == pytest.approx(1)
    assert f"{species}: {detection.id_type} 100%" in str(detection)


def test_nothing_is_recognised() -> None:
    detection = detect(["0", "1", "chr1:100-200"], Vocabulary.bundled())
    assert (detection.species, detection.id_type) == (None, "unknown")
    assert str(detection) == "human: nothing; mouse: nothing"


@pytest.mark.parametrize("kind", ["symbols", "ids"])
@pytest.mark.parametrize("mode", ["shared", "separate"])
def test_wrong_species_is_named_with_its_share(
    kind: str, mode: str, request: pytest.FixtureRequest
) -> None:
    vocabulary = Vocabulary.bundled(mode)
    for found, wanted in [SPECIES, SPECIES[::-1]]:
        what = "symbols" if kind == "symbols" else "Ensembl ids"
        message = rf"Found {found} {what} \(100% of 400 columns\), but expected {wanted} genes only"
        with pytest.raises(GeneIdError, match=message):
            match(request.getfixturevalue(kind)(found), vocabulary, species=wanted)


def test_a_vocabulary_of_one_species_names_the_other(symbols: Draw) -> None:
    genes = Vocabulary.bundled().genes
    human = Vocabulary.from_table(genes[genes.species == "human"].drop(columns="token"))
    message = "Found mouse symbols .* but the vocabulary knows human genes only"
    for species in (None, "mouse"):
        with pytest.raises(GeneIdError, match=message):
            match(symbols("mouse"), human, species=species)
    assert match(symbols("human"), human).coverage == 1


def test_two_species_need_to_be_told_apart(vocabulary: Vocabulary, symbols: Draw) -> None:
    names = [*symbols("human"), *symbols("mouse")]
    with pytest.raises(GeneIdError, match="Found human and mouse genes among the columns"):
        match(names, vocabulary)
    both = match(names, vocabulary, species="both")
    assert (both.species, both.coverage) == ("both", 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        human = match(names, vocabulary, species="Homo sapiens")
    np.testing.assert_array_equal(human.tokens[:400], both.tokens[:400])
    assert (human.tokens[400:] >= 0).mean() < 0.9  # a mouse spelling of a human symbol still fits


def test_mouse_cells_over_human_orthologues(vocabulary: Vocabulary) -> None:
    genes = vocabulary.genes[(vocabulary.genes.group != "") & (vocabulary.genes.species == "human")]
    names = genes.sample(500, random_state=0).ensembl_id.tolist()
    with pytest.warns(UserWarning, match="100% of them have a one-to-one orthologue"):
        found = match(names, vocabulary, species="mouse")
    np.testing.assert_array_equal(found.tokens, genes.set_index("ensembl_id").token[names])
    assert np.isfinite(vocabulary.medians[1, found.tokens]).all()
    with pytest.raises(GeneIdError, match="expected mouse genes only"):
        match(names, Vocabulary.bundled("separate"), species="mouse")


def test_genes_that_the_cells_lack_get_no_token(vocabulary: Vocabulary) -> None:
    human = vocabulary.genes[vocabulary.genes.species == "human"]
    shared = human[human.group != ""].ensembl_id.tolist()[:95]
    own = human[human.group == ""].ensembl_id.tolist()[:5]
    with pytest.warns(UserWarning, match="95% of them have a one-to-one orthologue"):
        found = match([*shared, *own], vocabulary, species="mouse")
    assert (found.tokens[:95] >= 0).all()
    assert (found.tokens[95:] == -1).all()
    assert (found.ensembl_id[95:] == "").all()


def test_cells_of_two_species_over_one_species_columns(
    vocabulary: Vocabulary, symbols: Draw
) -> None:
    with pytest.warns(UserWarning, match="Found human genes only; mouse cells use those with"):
        found = match(symbols("human"), vocabulary, species="both")
    assert found.species == "human"
    with pytest.raises(GeneIdError, match="mode 'separate'"):
        match(symbols("human"), Vocabulary.bundled("separate"), species="both")


# -- refused names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "kind"), [(b"CD3E", "bytes"), (float("nan"), "float"), (None, "NoneType"), (7, "int")]
)
def test_names_that_are_not_text(vocabulary: Vocabulary, bad: object, kind: str) -> None:
    message = rf"Found 1 gene names that are not text \(first: .*, a {kind}, in column 1\)"
    with pytest.raises(GeneIdError, match=message):
        match(np.array(["GAPDH", bad, "CD3E"], dtype=object), vocabulary)


def test_duplicates(vocabulary: Vocabulary) -> None:
    names = ["GAPDH", "CD3E", "GAPDH"]
    with pytest.raises(GeneIdError, match=r"Found 1 gene names more than once \('GAPDH'\)"):
        match(names, vocabulary)
    found = match(names, vocabulary, on_duplicate="sum")
    assert found.ensembl_id.tolist() == [GAPDH, CD3E, GAPDH]
    with pytest.raises(InputError, match="on_duplicate='first'; expected 'error' or 'sum'"):
        match(names, vocabulary, on_duplicate="first")


def test_no_columns_and_unknown_species(vocabulary: Vocabulary) -> None:
    with pytest.raises(GeneIdError, match="n_vars = 0"):
        match([], vocabulary)
    with pytest.raises(InputError, match="Found species 'rat'"):
        match(["GAPDH"], vocabulary, species="rat")


@pytest.mark.parametrize(("n_known", "outcome"), [(9, "refused"), (10, "warned"), (49, "warned"),
                                                  (50, "fine")])  # fmt: skip
def test_coverage(vocabulary: Vocabulary, n_known: int, outcome: str, symbols: Draw) -> None:
    names = symbols("human", n_known) + [f"column {i}" for i in range(100 - n_known)]
    if outcome == "refused":
        message = (
            r"9 of 100 columns \(9%\) are human.*\(9 by symbol\).*Not matched: 'column 0'.*10%"
        )
        with pytest.raises(GeneIdError, match=message):
            match(names, vocabulary)
        return
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = match(names, vocabulary)
    assert found.coverage == n_known / 100
    assert [str(w.message).startswith("Found few genes") for w in said] == [True] * (
        outcome == "warned"
    )


@pytest.mark.usefixtures("_no_warnings")
def test_all_genes_beside_many_other_columns_are_fine(vocabulary: Vocabulary) -> None:
    genes = vocabulary.genes[vocabulary.genes.species == "human"].ensembl_id
    found = match([*genes, *(f"chr1:{i}-{i + 500}" for i in range(300_000))], vocabulary)
    assert found.n_matched == len(genes)
    assert found.coverage < 0.1


def test_warnings_point_at_the_caller(vocabulary: Vocabulary) -> None:
    with pytest.warns(UserWarning, match="dates") as said:
        match(["3-Mar", "GAPDH"], vocabulary)
    assert said[0].filename == __file__


def test_matching_is_fast(vocabulary: Vocabulary) -> None:
    genes = vocabulary.genes[vocabulary.genes.species == "human"].symbol
    names = [*genes[genes != ""], *(f"lncRNA{i:06d}.1" for i in range(40_000))]
    match(names[:100], vocabulary)
    start = time.process_time()
    match(names, vocabulary)
    assert time.process_time() - start < 1  # 0.1 s on two busy cores
