"""Gene names that were changed on their way: versions, prefixes, dates, case, the spelling of R."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmix._errors import GeneIdError
from scmix._gene_lookup import Names
from scmix._gene_spelling import clean, excel_candidates, fold
from scmix.genes import Vocabulary, match

Draw = Callable[..., list[str]]
GAPDH, CD3E, MARCHF1 = "ENSG00000111640", "ENSG00000198851", "ENSG00000145416"
CD3E_MOUSE = "ENSMUSG00000032093"


# -- spelling --------------------------------------------------------------------------------------


def test_clean() -> None:
    names = {
        "ENSG00000111640.15": ("ENSG00000111640", -1),
        "ensmusg00000032093.2_PAR_Y": ("ENSMUSG00000032093", -1),
        "GRCh38_GAPDH": ("GAPDH", 0),
        "GRCh38-2020-A_ENSG00000111640.1": ("ENSG00000111640", 0),
        "mm10___Cd3e": ("Cd3e", 1),
        "A_B": ("A_B", -1),
        "GRCh38_": ("GRCh38_", -1),
        "": ("", -1),
    }
    cleaned, code = clean(np.array(list(names), dtype=object))
    assert list(zip(cleaned, code.tolist(), strict=True)) == list(names.values())


def test_fold() -> None:
    assert fold(["H2.Aa", "HLA_DRA", "X0610009B22Rik", "XIST", "x", ""]).tolist() == [
        "h2-aa", "hla-dra", "0610009b22rik", "xist", "x", "",
    ]  # fmt: skip


def test_excel_candidates() -> None:
    assert excel_candidates(["1-Mar", "SEP-07", "13-Jan", "HLA-A", "1-Mar"]) == {
        "1-Mar": ["MARCH1", "MARC1"], "SEP-07": ["SEPT7"],
    }  # fmt: skip


@given(st.integers(0, 10_000), st.sampled_from(["", "human", "mouse"]))
def test_names_that_need_no_cleaning_are_what_they_are_when_cleaned(seed: int, part: str) -> None:
    names = Vocabulary.bundled()._names
    known, rows, kinds = names._plain
    cleaning = Names(names.lookups)
    vars(cleaning)["_plain"] = known[:1], rows[..., :1], kinds[..., :1]
    table = Vocabulary.bundled().genes.sample(300, random_state=seed)
    table = table[table.species.str.startswith(part)]
    aliases = table.aliases.str.partition("|")[0]
    some = pd.concat([table.ensembl_id[:100], table.symbol[50:], aliases]).to_numpy(object)
    for fast, slow in zip(names.find(some), cleaning.find(some), strict=True):
        np.testing.assert_array_equal(fast, slow)


# -- matching --------------------------------------------------------------------------------------


def test_versions_that_fall_on_one_gene(vocabulary: Vocabulary) -> None:
    with pytest.warns(UserWarning, match="1 genes have several columns.*added up"):
        found = match([f"{GAPDH}.14", f"{GAPDH}.15", CD3E, "GAPDH"], vocabulary)
    assert found.ensembl_id.tolist() == [GAPDH, GAPDH, CD3E, GAPDH]
    assert len(set(found.tokens)) == 2


@pytest.mark.usefixtures("_no_warnings")
def test_pseudoautosomal_and_lower_case_ids(vocabulary: Vocabulary) -> None:
    found = match(["ensg00000111640", f"{CD3E}.3_PAR_Y", "ENSG00000145416"], vocabulary)
    assert found.ensembl_id.tolist() == [GAPDH, CD3E, MARCHF1]


@pytest.mark.parametrize("prefix", ["GRCh38_", "GRCh38______", "hg19_", "GRCh38-2020-A_"])
def test_genome_prefix(vocabulary: Vocabulary, prefix: str) -> None:
    with pytest.warns(UserWarning, match="Removed genome prefixes"):
        found = match([f"{prefix}{name}" for name in ("GAPDH", CD3E)], vocabulary)
    assert found.ensembl_id.tolist() == [GAPDH, CD3E]


def test_genome_prefixes_tell_the_species(vocabulary: Vocabulary, symbols: Draw) -> None:
    names = [f"GRCh38_{name}" for name in symbols("human")]
    names += [f"mm10___{name}" for name in symbols("mouse")]
    with pytest.raises(GeneIdError, match=r"Found human and mouse genes.*species_key="):
        match(names, vocabulary)
    with pytest.warns(UserWarning, match="Removed genome prefixes"):
        found = match(names, vocabulary, species="both")
    assert (found.species, found.coverage) == ("both", 1.0)
    np.testing.assert_array_equal(
        np.char.startswith(found.ensembl_id, "ENSMUSG"), np.arange(800) >= 400
    )


def test_spreadsheet_dates(vocabulary: Vocabulary) -> None:
    names = ["3-Mar", "1-Sep", "Sep-02", "2-Dec", "CD3E", "GAPDH", "LYZ"]
    with pytest.warns(UserWarning, match="4 gene names are dates.*'3-Mar', '1-Sep'"):
        found = match(names, vocabulary)
    symbol = vocabulary.genes.set_index("ensembl_id").symbol
    assert symbol[found.ensembl_id[:4]].tolist() == ["MARCHF3", "SEPTIN1", "SEPTIN2", "BHLHE41"]


def test_a_date_of_two_genes_is_left_out_unless_one_has_its_column(vocabulary: Vocabulary) -> None:
    with pytest.warns(UserWarning, match="1 names stand for more than one gene.*'1-Mar'"):
        found = match(["1-Mar", "GAPDH", "CD3E"], vocabulary)
    assert found.ensembl_id[0] == ""
    with pytest.warns(UserWarning, match="1 gene names are dates"):
        found = match(["1-Mar", "MTARC1", "CD3E"], vocabulary)
    assert found.ensembl_id[0] == MARCHF1


def test_spelling_of_r(vocabulary: Vocabulary) -> None:
    with pytest.warns(UserWarning, match="2 names are mouse symbols or aliases only when case and"):
        found = match(["X0610009B22Rik", "H2.Aa", "Cd3e", "Gapdh"], vocabulary)
    assert found.coverage == 1
    assert found.ensembl_id[2] == CD3E_MOUSE


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("species", "spell"), [("mouse", str.upper), ("human", str.lower)])
def test_another_case_throughout(
    vocabulary: Vocabulary, species: str, spell: Callable[[str], str], seed: int, symbols: Draw
) -> None:
    names = symbols(species, 2000, seed)
    with pytest.warns(UserWarning, match=f"{species} symbols or aliases only when case"):
        found = match(map(spell, names), vocabulary, on_duplicate="sum")
    assert found.species == species
    assert found.coverage > 0.99
    expected = match(names, vocabulary).ensembl_id
    assert (expected == found.ensembl_id)[found.ensembl_id != ""].all()
