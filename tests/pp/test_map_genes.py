"""`pp.map_genes`: what it writes, how it finds names and species, and what it refuses."""

import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scmix
from scmix._errors import GeneIdError, InputError, MissingKeyError
from scmix.genes import Vocabulary
from scmix.pp._match_adata import match_adata


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.bundled()


def state(adata: ad.AnnData) -> tuple[object, ...]:
    """Everything a call could have changed."""
    matrix = adata.X.toarray().tobytes() if sp.issparse(adata.X) else np.asarray(adata.X).tobytes()
    return (matrix, adata.obs.to_csv(), adata.var.to_csv(), sorted(adata.uns), adata.is_view)


def refused(adata: ad.AnnData, error: type[Exception], message: str, **options: object) -> None:
    before = state(adata)
    with pytest.raises(error, match=message):
        scmix.pp.map_genes(adata, **options)
    assert state(adata) == before


def test_what_is_written(human: ad.AnnData, vocabulary: Vocabulary) -> None:
    human.var_names = [*human.var_names[:-1], "no gene"]
    assert scmix.pp.map_genes(human) is None
    genes = vocabulary.genes.set_index("ensembl_id").token
    assert human.var["ensembl_id"].tolist() == [*human.var_names[:-1], ""]
    assert human.var["scmix_token"].tolist() == [*genes[human.var_names[:-1]], -1]
    assert human.var["scmix_token"].dtype == np.int32
    made = human.uns["scmix_genes"]["params"]
    assert made["species"] == ["human"]
    assert (made["n_matched"], made["coverage"], made["id_type"]) == (199, 0.995, "Ensembl id")
    assert made["vocabulary_sha256"] == vocabulary.sha256
    assert made["scmix_version"] == scmix.__version__


def test_copy_leaves_the_original(mouse: ad.AnnData) -> None:
    before = state(mouse)
    copy = scmix.pp.map_genes(mouse, copy=True)
    assert state(mouse) == before
    assert (copy.var["scmix_token"] >= 0).all()


def test_running_again_and_keys_of_others(human: ad.AnnData) -> None:
    theirs = human.copy()
    scmix.pp.map_genes(human)
    first = human.var.copy()
    scmix.pp.map_genes(human)
    pd.testing.assert_frame_equal(human.var, first)
    theirs.var["ensembl_id"] = "mine"
    refused(theirs, InputError, r'var\["ensembl_id"\] exists already', overwrite=False)
    scmix.pp.map_genes(theirs, overwrite=True)
    assert theirs.var["ensembl_id"].tolist() == first["ensembl_id"].tolist()


@pytest.mark.parametrize("as_category", [False, True])
def test_ids_of_the_user_stay_where_nothing_matched(
    make_adata: Callable[..., ad.AnnData], as_category: bool
) -> None:
    adata = make_adata("human", ids="symbol")
    genes = Vocabulary.bundled().genes
    ids = genes[genes.species == "human"].set_index("symbol").ensembl_id[adata.var_names]
    theirs = [f"{name}.7" for name in ids]  # versions, one missing, one wrong, two not matched
    theirs[:2], theirs[-2:] = [np.nan, ids.iloc[5]], ["ENSG99999999999", np.nan]
    adata.var["ensembl_id"] = pd.Categorical(theirs) if as_category else np.array(theirs, object)
    adata.var_names = [*adata.var_names[:-2], "no gene", "nor this"]
    scmix.pp.map_genes(adata)
    expected = [*ids.iloc[:-2], "ENSG99999999999", ""]
    assert adata.var["ensembl_id"].tolist() == expected
    scmix.pp.map_genes(adata)
    assert adata.var["ensembl_id"].tolist() == expected
    scmix.pp.map_genes(adata, overwrite=True)
    assert adata.var["ensembl_id"].tolist() == [*ids.iloc[:-2], "", ""]


def test_retired_ids_agree(vocabulary: Vocabulary) -> None:
    retired = vocabulary.genes[vocabulary.genes.aliases.str.contains("ENSG0")].head(50)
    old = retired.aliases.str.extract(r"(ENSG\d{11})", expand=False)
    adata = ad.AnnData(np.ones((2, len(old)), np.float32), var=pd.DataFrame(index=list(old)))
    adata.var["ensembl_id"] = old.to_numpy(object)
    scmix.pp.map_genes(adata, gene_ids="ensembl_id")
    assert adata.var["ensembl_id"].tolist() == retired.ensembl_id.tolist()


@pytest.mark.parametrize(("n_other", "fits"), [(20, True), (21, False)])
def test_ids_of_other_genes_are_not_replaced(human: ad.AnnData, n_other: int, fits: bool) -> None:
    names = human.var_names.to_numpy(object)
    human.var["ensembl_id"] = np.where(np.arange(200) < n_other, np.roll(names, 1), names)
    if not fits:
        first = f"first: '{names[-1]}', matched: '{names[0]}'"
        refused(human, InputError, rf"other genes for 21 of 200 matched columns \({first}\)",
                gene_ids=None)  # fmt: skip
    scmix.pp.map_genes(human, overwrite=not fits)
    assert human.var["ensembl_id"].tolist() == names.tolist()


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_round_trip(both: ad.AnnData, tmp_path: Path, form: str) -> None:
    scmix.pp.map_genes(both, species_key="species")
    path = tmp_path / f"cells.{form}"
    getattr(both, f"write_{form}")(path)
    read = getattr(ad, f"read_{form}")(path)
    np.testing.assert_array_equal(read.var["scmix_token"], both.var["scmix_token"])
    assert read.var["ensembl_id"].tolist() == both.var["ensembl_id"].tolist()
    written, kept = read.uns["scmix_genes"]["params"], both.uns["scmix_genes"]["params"]
    assert set(written) == set(kept)
    assert list(written["species"]) == kept["species"] == ["human", "mouse"]
    scmix.pp.map_genes(read, species_key="species")  # and again after reading


def test_view_becomes_a_copy_and_the_parent_stays(human: ad.AnnData) -> None:
    before = state(human)
    view = human[:5, ::2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata says that the view is copied
        scmix.pp.map_genes(view)
    assert view.var["scmix_token"].size == 100
    assert state(human) == before


def test_one_line_is_said(
    make_adata: Callable[..., ad.AnnData], caplog: pytest.LogCaptureFixture
) -> None:
    adata = make_adata("mouse", ids="symbol")
    with caplog.at_level(logging.INFO, logger="scmix"):
        match_adata(adata, Vocabulary.bundled())
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("var_names: 200 of 200 columns (100%) are mouse genes")


# -- where the names are ---------------------------------------------------------------------------


def test_a_well_known_column_that_matches_more_is_used(
    human: ad.AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    names = human.var_names
    human.var["gene_ids"] = pd.Categorical(names.where(np.arange(200) > 5, "nothing"))
    human.var_names = [f"gene {i}" for i in range(200)]
    with caplog.at_level(logging.INFO, logger="scmix"), warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(human, GeneIdError, "more than once", gene_ids="gene_ids")
        scmix.pp.map_genes(human, on_duplicate="sum")
    assert human.var["ensembl_id"].tolist()[6:] == names.tolist()[6:]
    assert 'Using var["gene_ids"] (194 genes known; 0 in var_names).' in caplog.messages


def test_names_that_match_as_well_stay_in_use(human: ad.AnnData) -> None:
    human.var["feature_id"] = human.var_names.to_numpy(object)[::-1]
    scmix.pp.map_genes(human)
    assert human.var["ensembl_id"].tolist() == human.var_names.tolist()


def test_repeated_symbols_beside_unique_ids(make_adata: Callable[..., ad.AnnData]) -> None:
    adata = make_adata("human", ids="symbol")
    genes = Vocabulary.bundled().genes
    ids = genes[genes.species == "human"].set_index("symbol").ensembl_id[adata.var_names]
    adata.var["gene_ids"] = ids.to_numpy(object)
    names = adata.var_names.tolist()
    adata.var_names = [names[1], *names[1:]]
    scmix.pp.map_genes(adata)
    assert adata.var["ensembl_id"].tolist() == ids.tolist()


def test_missing_ids_in_a_column_are_no_genes(human: ad.AnnData) -> None:
    ids = pd.Series(human.var_names.to_numpy(object), index=human.var_names)
    human.var["mine"] = ids.where(np.arange(200) > 2)
    scmix.pp.map_genes(human, gene_ids="mine")
    assert (human.var["scmix_token"] < 0).tolist() == [True] * 3 + [False] * 197


def test_columns_that_are_no_names(human: ad.AnnData) -> None:
    human.var["gene_id"] = np.arange(200)  # Entrez ids, say: not looked at
    scmix.pp.map_genes(human)
    refused(human, GeneIdError, "200 gene names that are not text", gene_ids="gene_id")
    refused(human, MissingKeyError, r"no column 'gene_idd' in adata\.var.*'gene_id'",
            gene_ids="gene_idd")  # fmt: skip


# -- species of the cells --------------------------------------------------------------------------


def test_two_species_need_a_column(both: ad.AnnData, vocabulary: Vocabulary) -> None:
    refused(both, GeneIdError, "human and mouse genes.*name species: 'species'")
    scmix.pp.map_genes(both, species_key="species")
    expected = vocabulary.genes.set_index("ensembl_id").token[both.var_names]
    assert both.var["scmix_token"].tolist() == expected.tolist()
    _, codes = match_adata(both, vocabulary, species_key="species")
    np.testing.assert_array_equal(codes, np.repeat(np.array([0, 1], np.int8), 12))


@pytest.mark.parametrize(
    "names", [("Homo sapiens", "Mus musculus"), ("hs", "mm"), ("NCBITaxon:9606", "NCBITaxon:10090")]
)
def test_names_of_species(both: ad.AnnData, vocabulary: Vocabulary, names: tuple[str, str]) -> None:
    both.obs["organism"] = np.repeat(names, 12)
    _, codes = match_adata(both, vocabulary, species_key="organism")
    assert codes.tolist() == [0] * 12 + [1] * 12
    assert codes.dtype == np.int8


def test_taxon_numbers(both: ad.AnnData, vocabulary: Vocabulary) -> None:
    both.obs["taxon"] = np.repeat([9606, 10090], 12)
    _, codes = match_adata(both, vocabulary, species_key="taxon")
    assert codes.tolist() == [0] * 12 + [1] * 12


def test_faulty_species(both: ad.AnnData) -> None:
    both.obs["holes"] = pd.Categorical(["human"] * 23 + [None])
    both.obs["rat"] = ["human"] * 23 + ["rat"]
    refused(both, InputError, r'adata\.obs\["holes"\]: Found 1 cells without a species',
            species_key="holes")  # fmt: skip
    refused(both, InputError, r'adata\.obs\["rat"\]: Found species \'rat\'', species_key="rat")
    refused(both, MissingKeyError, "no column 'specie' in adata.obs.*Did you mean 'species'",
            species_key="specie")  # fmt: skip
    refused(both, InputError, "pass one of them", species_key="species", species="human")
    refused(both, InputError, "Found species 'rat'", species="rat")


def test_the_wrong_species_is_named(mouse: ad.AnnData) -> None:
    refused(mouse, GeneIdError, "Found mouse Ensembl ids .*expected human genes only",
            species="human")  # fmt: skip


def test_a_model_of_one_species(both: ad.AnnData, mouse: ad.AnnData) -> None:
    genes = Vocabulary.bundled().genes
    model = Vocabulary.from_table(genes[genes.species == "human"].drop(columns="token"))
    refused(mouse, GeneIdError, "but the vocabulary knows human genes only", model=model)
    refused(both, GeneIdError, r'Found mouse cells in adata\.obs\["species"\], but the model knows',
            model=model, species_key="species")  # fmt: skip


def test_mouse_cells_over_human_symbols(vocabulary: Vocabulary) -> None:
    genes = vocabulary.genes[(vocabulary.genes.group != "") & (vocabulary.genes.species == "human")]
    genes = genes[genes.symbol != ""].sample(300, random_state=0)
    adata = ad.AnnData(np.ones((3, 300), np.float32), var=pd.DataFrame(index=genes.symbol.tolist()))
    with pytest.warns(UserWarning, match="one-to-one orthologue|mouse symbols or aliases only"):
        found, codes = match_adata(adata, vocabulary, species="mouse")
    assert codes.tolist() == [1, 1, 1]
    assert found.coverage > 0.95
    scored = np.isfinite(vocabulary.medians[1, found.tokens[found.tokens >= 0]])
    assert scored.all()
    same = genes.token.to_numpy() == found.tokens
    assert same[found.tokens >= 0].all()


def test_cells_said_to_be_of_another_species(human: ad.AnnData) -> None:
    human.obs["organism"] = "Mus musculus"
    with pytest.warns(UserWarning, match=r'adata\.obs\["organism"\] says mouse'):
        scmix.pp.map_genes(human)


# -- other faults ----------------------------------------------------------------------------------


def says_transposed(rows: int, columns: int, n_columns: int) -> str:
    return re.escape(
        f"Found genes as names of cells ({rows} of 200 obs_names looked at) and not as names of "
        f"columns ({columns} of {n_columns} in var_names): the matrix is transposed. Expected "
        "cells by genes; pass adata.T."
    )


@pytest.mark.parametrize("species", ["human", "mouse"])
@pytest.mark.parametrize("ids", ["ensembl_id", "symbol"])
@pytest.mark.parametrize(
    "options", [{}, {"species_key": "species"}, {"gene_ids": "symbol"}, {"species": "mouse"}]
)
def test_transposed(
    make_adata: Callable[..., ad.AnnData], species: str, ids: str, options: dict
) -> None:
    """Named before anything that follows from it: columns of `.obs` and `.var` are swapped."""
    transposed = make_adata(species, ids=ids).T.copy()
    transposed.obs["symbol"] = transposed.obs_names.to_numpy(object)
    message = f"^{says_transposed(200, 0, 12)}$"
    refused(transposed, GeneIdError, message, **options)
    transposed.var_names = ["AAAC-1"] * 12  # duplicates are no better a reason
    refused(transposed, GeneIdError, message, **options)


WELLS = [f"{row}{column}" for row in "ABCDEFGH" for column in range(1, 13)]


def test_transposed_plate(make_adata: Callable[..., ad.AnnData]) -> None:
    """Old symbols among the cells, and wells, of which many are names of genes, as genes."""
    transposed = make_adata("human", n_obs=96, ids="symbol").T.copy()
    transposed.obs_names = [*transposed.obs_names[:140], *(f"RP11-{i}.9" for i in range(60))]
    transposed.var_names = WELLS
    refused(transposed, GeneIdError, says_transposed(140, 15, 96))


@pytest.mark.parametrize("options", [{}, {"gene_ids": "ensembl_id"}])
def test_wells_are_not_genes(make_adata: Callable[..., ad.AnnData], options: dict) -> None:
    adata = make_adata("human", n_obs=96)
    adata.obs_names = WELLS
    adata.var["ensembl_id"] = adata.var_names.to_numpy(object)
    adata.var_names = [f"feature {i}" for i in range(200)]
    scmix.pp.map_genes(adata, **options)
    assert (adata.var["scmix_token"] >= 0).all()


@pytest.mark.parametrize("n_known", [40, 80])
@pytest.mark.parametrize("names", [WELLS, [f"c{i}" for i in range(30)]])
def test_few_genes_of_cells_with_short_names(
    make_adata: Callable[..., ad.AnnData], names: list[str], n_known: int
) -> None:
    adata = make_adata("human", n_obs=len(names))
    adata.obs_names = names
    adata.var_names = [*adata.var_names[:n_known], *(f"peak {i}" for i in range(200 - n_known))]
    found = rf"^Found few genes: {n_known} of 200 columns .* Results rest on these genes alone\.$"
    with pytest.warns(UserWarning, match=found):
        scmix.pp.map_genes(adata)
    assert (adata.var["scmix_token"] >= 0).sum() == n_known


def test_cells_named_by_the_gene_knocked_out(make_adata: Callable[..., ad.AnnData]) -> None:
    adata = make_adata("human", n_obs=50, ids="symbol")
    adata.obs_names = adata.var_names[:50]
    adata.var_names = [*adata.var_names[:60], *(f"peak {i}" for i in range(140))]
    with pytest.warns(UserWarning, match="^Found few genes: 60 of 200"):
        scmix.pp.map_genes(adata)


def test_genes_named_in_a_column_are_not_transposed(human: ad.AnnData) -> None:
    human.var["ensembl_id"] = human.var_names
    human.var_names = [f"feature {i}" for i in range(200)]
    human.obs_names = ["GAPDH", *human.obs_names[1:]]
    scmix.pp.map_genes(human)
    assert human.var["scmix_token"].min() >= 0


def test_no_genes(human: ad.AnnData) -> None:
    human.obs_names = WELLS[:12]
    message = re.escape(
        "Found 0 genes (n_vars = 0); expected at least one. Look at how the data were read and "
        "which genes were filtered out."
    )
    refused(human[:, :0].copy(), GeneIdError, message)
    refused(human[:, :0].copy(), GeneIdError, message, gene_ids="symbol")


def test_names_that_are_not_text(human: ad.AnnData) -> None:
    human.var.index = pd.Index([b"GAPDH", *human.var_names[1:]], dtype=object)
    refused(human, GeneIdError, r"not text \(first: b'GAPDH', a bytes, in column 0\)")


def test_duplicated_names(human: ad.AnnData) -> None:
    names = human.var_names.tolist()
    human.var_names = [names[1], *names[1:]]
    refused(human, GeneIdError, "1 gene names more than once")
    scmix.pp.map_genes(human, on_duplicate="sum")
    assert human.var["scmix_token"].iloc[0] == human.var["scmix_token"].iloc[1]


def test_low_coverage_is_refused(human: ad.AnnData) -> None:
    human.var_names = [*human.var_names[:19], *(f"peak {i}" for i in range(181))]
    refused(human, GeneIdError, r"19 of 200 columns \(10%\).*19 by Ensembl id")


def test_duplicated_cells(human: ad.AnnData) -> None:
    human.obs_names = ["same"] * 12
    with pytest.warns(UserWarning, match="Cell names are not unique"):
        scmix.pp.map_genes(human)


def test_doublets_of_two_species(both: ad.AnnData) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scmix.pp.map_genes(both, species_key="species", copy=True)
    both.obs["species"] = [*both.obs["species"][:11], "mouse", *both.obs["species"][12:]]
    for matrix in (both.X, both.X.tocsc(), both.X.toarray()):
        both.X = matrix
        with pytest.warns(UserWarning, match="1 cells have more than 10% of their counts"):
            scmix.pp.map_genes(both, species_key="species", copy=True)


def test_shipped_cells_of_two_species(vocabulary: Vocabulary) -> None:
    adata = scmix.datasets.pancreas()
    found, codes = match_adata(adata, vocabulary, species_key="species")
    assert found.coverage > 0.95
    assert found.species == "both"
    np.testing.assert_array_equal(codes == 1, adata.obs["species"] == "mouse")


def test_real_files(scmix_data: Path, vocabulary: Vocabulary) -> None:
    for path in sorted((scmix_data / "data").glob("*.h5ad")):
        adata = ad.read_h5ad(path, backed="r")
        stated = adata.obs["organism"].iloc[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, _ = match_adata(adata, vocabulary, on_duplicate="sum")
        assert found.species == stated, path.name
        assert found.coverage > 0.75, path.name
        known = (adata.var["ensembl_id"] != "").to_numpy() & (found.ensembl_id != "")
        same = adata.var["ensembl_id"].to_numpy(str)[known] == found.ensembl_id[known]
        assert same.mean() > (
            0.985 if path.stem == "zheng_facs_pbmc" else 0.99
        )  # retired ids there
