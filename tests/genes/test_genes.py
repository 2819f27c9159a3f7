"""The vocabulary: tokens of both modes, medians, orthologues, files."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scmix._errors import InputError, ModelFileError
from scmix.genes import SPECIES, Vocabulary, species_code, species_codes

H, M = "ENSG0000000000{}", "ENSMUSG0000000000{}"


@pytest.fixture
def table() -> pd.DataFrame:
    """Human 1, 2, 3; mouse 1, 2, 3; human 3 and mouse 1 are orthologues."""
    return pd.DataFrame(
        {
            "ensembl_id": [M.format(2), H.format(3), H.format(1), M.format(1), H.format(2),
                           M.format(3)],
            "symbol": ["Bbb", "CCC", "AAA", "Ccc", "", "Ddd"],
            "aliases": ["", "OLDC|X1", "", "", "", "Old,d"],
            "species": ["mouse", "human", "human", "mouse", "human", "mouse"],
            "biotype": "protein_coding",
            "group": ["", "g", "", "g", "", ""],
            "median": [0.1, 2.5, 1 / 3, 4.0, 1e-7, 123456.789],
        }
    )  # fmt: skip


def test_tokens_of_shared_mode(table: pd.DataFrame) -> None:
    vocabulary = Vocabulary.from_table(table)
    assert vocabulary.special == {"<pad>": 0, "<mask>": 1, "<human>": 2, "<mouse>": 3}
    tokens = vocabulary.genes.set_index("ensembl_id").token.to_dict()
    assert tokens == {
        H.format(1): 4, H.format(2): 5, H.format(3): 6,
        M.format(1): 6, M.format(2): 7, M.format(3): 8,
    }  # fmt: skip
    assert vocabulary.n_tokens == 9
    assert vocabulary.token_names().tolist() == [
        "<pad>", "<mask>", "<human>", "<mouse>", "AAA", H.format(2), "CCC", "Bbb", "Ddd",
    ]  # fmt: skip


def test_tokens_of_separate_mode(table: pd.DataFrame) -> None:
    vocabulary = Vocabulary.from_table(table, mode="separate")
    assert vocabulary.special == {"<pad>": 0, "<mask>": 1}
    assert vocabulary.genes.token.tolist() == [2, 3, 4, 5, 6, 7]
    assert vocabulary.genes.ensembl_id.is_monotonic_increasing
    assert vocabulary.prefix(0) == vocabulary.prefix(1) == vocabulary.suffix() == []


def test_arrays_of_shared_mode(table: pd.DataFrame) -> None:
    vocabulary = Vocabulary.from_table(table)
    nan = np.nan
    expected = np.array(
        [[nan] * 4 + [1 / 3, 1e-7, 2.5, nan, nan], [nan] * 6 + [4.0, 0.1, 123456.789]], np.float32
    )
    np.testing.assert_array_equal(vocabulary.medians, expected)
    assert vocabulary.medians.dtype == np.float32
    np.testing.assert_array_equal(vocabulary.species_of_token, np.isfinite(expected))
    np.testing.assert_array_equal(vocabulary.special_ids, [0, 1, 2, 3])
    np.testing.assert_array_equal(
        vocabulary.orthologues,
        [[-1, -1, -1, -1, 4, 5, 6, -1, -1], [-1, -1, -1, -1, -1, -1, 6, 7, 8]],
    )
    assert (vocabulary.prefix(0), vocabulary.prefix(1), vocabulary.suffix()) == ([2], [3], [])
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.medians[0, 4] = 1


def test_orthologues_of_separate_mode(table: pd.DataFrame) -> None:
    vocabulary = Vocabulary.from_table(table, mode="separate")
    np.testing.assert_array_equal(
        vocabulary.orthologues,
        [[-1, -1, 2, 3, 4, 4, -1, -1], [-1, -1, -1, -1, 5, 5, 6, 7]],
    )


@pytest.mark.parametrize("mode", ["shared", "separate"])
def test_read_returns_what_was_written(table: pd.DataFrame, tmp_path: Path, mode: str) -> None:
    vocabulary = Vocabulary.from_table(table, mode=mode)
    one, two = tmp_path / "one.csv.gz", tmp_path / "two.csv.gz"
    vocabulary.write(one)
    read = Vocabulary.read(one)
    pd.testing.assert_frame_equal(read.genes, vocabulary.genes, check_exact=True)
    assert (read.special, read.mode) == (vocabulary.special, mode)
    assert read.sha256 == vocabulary.sha256
    read.write(two)
    assert one.read_bytes() == two.read_bytes()


@given(st.lists(st.floats(2**-60, 2**60, width=32), min_size=1, max_size=20))
def test_medians_survive_the_text(values: list[float]) -> None:
    table = pd.DataFrame({"ensembl_id": [f"ENSG{i:011d}" for i in range(len(values))]})
    vocabulary = Vocabulary.from_table(
        table.assign(symbol="", aliases="", biotype="", group="", median=values)
    )
    from scmix._gene_table import parse

    genes, _, _ = parse(vocabulary._text)
    np.testing.assert_array_equal(genes["median"], np.array(values, np.float32))


def test_every_difference_changes_the_hash(table: pd.DataFrame) -> None:
    hashes = {
        Vocabulary.from_table(table).sha256,
        Vocabulary.from_table(table, mode="separate").sha256,
        Vocabulary.from_table(table.assign(median=table["median"] * 2)).sha256,
        Vocabulary.from_table(table.assign(group="")).sha256,
        Vocabulary.from_table(table.iloc[1:]).sha256,
    }
    assert len(hashes) == 5
    assert Vocabulary.from_table(table.iloc[::-1]).sha256 in hashes  # order of rows is no matter


def test_foreign_table_keeps_its_tokens() -> None:
    table = pd.DataFrame(
        {
            "ensembl_id": ["<pad>", "<mask>", "<cls>", "<eos>", "ENSG00000111640",
                           "ENSG99999999999"],
            "median": [np.nan] * 4 + [9.5, 1.25],
            "token": [0, 1, 2, 3, 5, 4],
        }
    )  # fmt: skip
    vocabulary = Vocabulary.from_table(table)
    assert vocabulary.special == {"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3}
    assert vocabulary.genes.token.tolist() == [5, 4]
    assert vocabulary.genes.symbol.tolist() == ["GAPDH", ""]
    assert vocabulary.species == ("human",)
    assert vocabulary.token_names()[4:].tolist() == ["ENSG99999999999", "GAPDH"]
    assert (vocabulary.prefix(0), vocabulary.suffix()) == ([2], [3])
    assert np.isnan(vocabulary.medians[1]).all()


def test_published_vocabularies(scmix_data: Path) -> None:
    for name, n, prefix, suffix in [("30M", 25_426, [], []), ("95M", 20_275, [2], [3])]:
        source = pd.read_csv(scmix_data / "genes" / f"geneformer_gc{name}_vocabulary.csv.gz")
        table = source.rename(columns={"gene_id": "ensembl_id"}).drop(columns="symbol")
        vocabulary = Vocabulary.from_table(table)
        assert vocabulary.n_tokens == n
        assert (vocabulary.prefix(0), vocabulary.suffix()) == (prefix, suffix)
        genes = source[~source.gene_id.str.startswith("<")]
        np.testing.assert_array_equal(
            vocabulary.medians[0, genes.token], genes["median"].astype(np.float32)
        )
        assert set(genes.gene_id) == set(vocabulary.genes.ensembl_id)


def test_medians_of_another_tokenizer_keep_their_digits(tmp_path: Path) -> None:
    medians = [1 / 3, 2.001186019549122, 1e-6, 634.3]
    table = pd.DataFrame(
        {
            "ensembl_id": ["<pad>", "<mask>", *(H.format(i) for i in range(4))],
            "median": [np.nan, np.nan, *medians],
            "token": range(6),
        }
    )
    exact = Vocabulary.from_table(table, mode="separate", median_dtype="float64")
    exact.write(tmp_path / "exact.csv.gz")
    again = Vocabulary.read(tmp_path / "exact.csv.gz")
    assert again.medians[0, 2:].tolist() == medians
    assert (again.sha256, again.mode) == (exact.sha256, "separate")
    rounded = Vocabulary.from_table(table, mode="separate")
    assert rounded.medians.dtype == np.float32
    assert rounded.sha256 != exact.sha256
    with pytest.raises(InputError, match="median_dtype='int'; expected 'float32' or 'float64'"):
        Vocabulary.from_table(table, median_dtype="int")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"median": 0.0}, "not above zero"),
        ({"median": np.nan}, "not above zero"),
        ({"median": np.inf}, "not above zero"),
        ({"species": "rat"}, "an unknown species"),
        ({"ensembl_id": H.format(1)}, "an Ensembl id twice"),
        ({"group": "g"}, "two genes of one species in a group"),
        ({"token": 2}, "a gene with a special token"),
        ({"token": 100_000}, "far above the number"),
        ({"token": -5}, "negative tokens"),
        ({"token": 5}, "a token for two genes of one species"),
    ],
)
def test_faulty_tables_are_refused(
    table: pd.DataFrame, change: dict[str, object], message: str
) -> None:
    vocabulary = Vocabulary.from_table(table)
    with pytest.raises(InputError, match=message):
        Vocabulary(vocabulary.genes.assign(**change), vocabulary.special, "shared")


def test_other_faults_are_refused(table: pd.DataFrame) -> None:
    genes = Vocabulary.from_table(table).genes
    with pytest.raises(InputError, match="no special token <pad>"):
        Vocabulary(genes, {"<mask>": 1}, "shared")
    with pytest.raises(InputError, match="not distinct"):
        Vocabulary(genes, {"<pad>": 0, "<mask>": 0}, "shared")
    with pytest.raises(InputError, match="no genes"):
        Vocabulary(genes.iloc[:0], {"<pad>": 0}, "shared")
    with pytest.raises(InputError, match="mode 'joint'"):
        Vocabulary.bundled("joint")
    with pytest.raises(InputError, match="tokens but no special tokens"):
        Vocabulary.from_table(genes)


def test_damaged_files_are_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.csv.gz"
    Vocabulary.from_table(table).write(path)
    whole = path.read_bytes()
    text = gzip.decompress(whole).decode()
    damaged = [
        whole[: len(whole) // 2],
        b"",
        b"no gzip",
        gzip.compress(b"\xff\xfe"),
        gzip.compress(text.replace("# scmix vocabulary 1", "# scmix vocabulary 2").encode()),
        gzip.compress(text.replace("median", "mean").encode()),
        gzip.compress(text.replace(",123456.79,", ",much,").encode()),
        gzip.compress(text.replace("mode shared", "mode mixed").encode()),
        gzip.compress(text.partition("\n")[0].encode()),
    ]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"no valid vocabulary in vocabulary\.csv\.gz"):
            Vocabulary.read(path)
    with pytest.raises(FileNotFoundError):
        Vocabulary.read(tmp_path / "absent.csv.gz")


# -- the vocabulary that ships with scmix ----------------------------------------------------------


def test_bundled_genes() -> None:
    vocabulary = Vocabulary.bundled()
    genes = vocabulary.genes.set_index("ensembl_id")
    assert vocabulary is Vocabulary.bundled()
    assert vocabulary.species == SPECIES
    assert genes.index.str.startswith("ENSMUSG").tolist() == (genes.species == "mouse").tolist()
    coding = genes[genes.biotype == "protein_coding"].groupby("species").size()
    assert coding["human"] > 19_500
    assert coding["mouse"] > 21_000
    assert genes.group[genes.group != ""].nunique() > 17_000
    assert (genes[genes.group != ""].groupby("group").species.nunique() == 2).all()
    tokens = vocabulary.genes.set_index("symbol").token
    for human, mouse in [
        ("GAPDH", "Gapdh"),
        ("CD3E", "Cd3e"),
        ("ALB", "Alb"),
        ("MARCHF1", "Marchf1"),
    ]:
        assert tokens[human] == tokens[mouse]
    assert tokens["INS"] == tokens["Ins2"] != tokens["Ins1"]
    named = vocabulary.genes[vocabulary.genes.symbol != ""]
    assert not named.duplicated(["species", "symbol"]).any()


def test_bundled_modes_have_the_same_genes() -> None:
    shared, separate = Vocabulary.bundled(), Vocabulary.bundled("separate")
    columns = ["ensembl_id", "symbol", "aliases", "species", "biotype", "group", "median"]
    pd.testing.assert_frame_equal(shared.genes[columns], separate.genes[columns])
    n_groups = shared.genes.group[shared.genes.group != ""].nunique()
    assert separate.n_tokens - 2 == len(shared.genes)
    assert shared.n_tokens - 4 == len(shared.genes) - n_groups
    rebuilt = Vocabulary.from_table(shared.genes.drop(columns="token"))
    assert rebuilt.sha256 == shared.sha256


def test_bundled_medians_are_of_a_credible_size() -> None:
    genes = Vocabulary.bundled().genes
    assert genes["median"].between(0.1, 2000).all()
    assert genes["median"].median() == pytest.approx(2.4, abs=0.5)  # one count among 4,000
    medians = genes.set_index("symbol")["median"]
    for rare, common in [("GATA1", "RPLP0"), ("Cd3e", "Actb"), ("PDX1", "INS"), ("Olig2", "Plp1")]:
        assert 3 * medians[rare] < medians[common]


def test_bundled_vocabulary_covers_the_published_ones(scmix_data: Path) -> None:
    from scmix.genes import match

    for name in ("30M", "95M"):
        ids = pd.read_csv(scmix_data / "genes" / f"geneformer_gc{name}_vocabulary.csv.gz").gene_id
        ids = ids[~ids.str.startswith("<")]
        with pytest.warns(UserWarning, match="genes have several columns"):
            found = match([*ids, ids.iloc[0] + ".2"], Vocabulary.bundled())
        assert found.n_matched == len(ids) + 1


def test_human_medians_agree_with_the_published_ones(scmix_data: Path) -> None:
    table = pd.read_csv(scmix_data / "genes" / "geneformer_gc30M_vocabulary.csv.gz")
    theirs = table.set_index("gene_id")["median"]
    ours = Vocabulary.bundled().genes.set_index("ensembl_id")["median"]
    both = pd.concat([ours, theirs], axis=1, keys=["ours", "theirs"]).dropna()
    assert both.corr("spearman").iloc[0, 1] > 0.5  # published V1 with V2: 0.50
    assert both[both.ours > 5].corr("spearman").iloc[0, 1] > 0.75  # the rest is rarely seen


# -- names of species ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("human", 0), ("Human", 0), ("Homo sapiens", 0), ("homo_sapiens", 0), ("H. sapiens", 0),
        ("hs", 0), ("9606", 0), (9606, 0), (9606.0, 0), ("NCBITaxon:9606", 0),
        ("mouse", 1), ("Mus musculus", 1), ("mus_musculus", 1), ("mm", 1), ("10090", 1),
        (10090, 1), ("NCBITaxon:10090", 1), ("MOUSE ", 1),
    ],
)  # fmt: skip
def test_species_names(name: object, code: int) -> None:
    assert species_code(name) == code


def test_species_columns() -> None:
    column = pd.Series(["Homo sapiens", "mouse", "human"], dtype="category")
    np.testing.assert_array_equal(species_codes(column), np.array([0, 1, 0], np.int8))
    assert species_codes(column).dtype == np.int8
    with pytest.raises(InputError, match=r"2 cells without a species \(first: cell 1\)"):
        species_codes(pd.Series(["human", None, np.nan]))
    with pytest.raises(InputError, match="Found species 'rat'"):
        species_codes(["human", "rat"])
