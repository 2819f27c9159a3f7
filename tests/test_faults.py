"""The commonest faults of users, met in Python and in the shell.

Every message says what was found, what was expected, and what to do next; nothing is written, and
nobody sees a traceback in the shell.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import scmix
from scmix import checkpoints, tl
from scmix._errors import InputError
from scmix.cli import main
from scmix.encoder import Config
from scmix.genes import Vocabulary

Cells = ad.AnnData


@dataclass(frozen=True)
class Fault:
    """A fault: what is done to good cells, which command meets it, and the parts of the message."""

    spoil: Callable[[Cells], Cells | None]
    found: str
    expected: str
    next_step: str
    command: str = "embed"
    options: dict[str, Any] = field(default_factory=dict)


# -- what users do ---------------------------------------------------------------------------------


@cache
def some_genes() -> Vocabulary:
    """Few genes, so that models load fast: every twentieth, and insulin."""
    genes = Vocabulary.bundled().genes.drop(columns="token")
    some = (np.arange(len(genes)) % 20 == 0) | (genes.symbol == "INS")
    return Vocabulary.from_table(genes[some])


def genes_of(vocabulary: Vocabulary, species: str, column: str = "ensembl_id") -> list[str]:
    genes = vocabulary.genes[vocabulary.genes.species == species]
    return genes[column][genes[column] != ""].drop_duplicates()[:200].tolist()


def put(value: float) -> Callable[[Cells], None]:
    def spoil(cells: Cells) -> None:
        cells.X = cells.X.toarray()
        cells.X[3, 7] = value

    return spoil


def normalised(cells: Cells) -> np.ndarray:
    counts = cells.X.toarray()
    return counts / counts.sum(1, keepdims=True) * 1e4


def log_transformed(cells: Cells) -> None:
    cells.layers["counts"] = cells.X.copy()
    cells.X = np.log1p(normalised(cells))


def log_transformed_with_raw(cells: Cells) -> None:
    cells.raw = cells.copy()
    cells.X = np.log1p(normalised(cells))


def scaled_to_library(cells: Cells) -> None:
    cells.X = normalised(cells)


def z_scored(cells: Cells) -> None:
    cells.X = normalised(cells) - normalised(cells).mean(0)


def transposed(cells: Cells) -> Cells:
    return cells.T.copy()


def nameless(cells: Cells) -> None:
    cells.var_names = [f"gene_{i}" for i in range(cells.n_vars)]


def doubled(cells: Cells) -> None:
    names = cells.var_names.tolist()
    cells.var_names = [names[1], *names[1:]]


def two_species(cells: Cells) -> Cells:
    genes = genes_of(some_genes(), "mouse")
    mouse = ad.AnnData(cells.X.copy(), obs=cells.obs.copy(), var=pd.DataFrame(index=genes))
    mouse.obs_names = [f"mouse{i}" for i in range(mouse.n_obs)]
    mouse.obs["organism"] = "Mus musculus"
    cells.obs["organism"] = "Homo sapiens"
    return ad.concat([cells, mouse], join="outer", fill_value=0)


def embedded_by_another_tool(cells: Cells) -> None:
    cells.obsm["X_scmix"] = np.zeros((cells.n_obs, 3))


def one_label(cells: Cells) -> None:
    cells.obs["cell_type"] = "beta"


def label_unknown(cells: Cells) -> None:
    cells.obs["cell_type"] = np.where(np.arange(cells.n_obs) % 3 == 0, "unknown", "beta")


def lost_donor(cells: Cells) -> None:
    cells.obs.loc[cells.obs_names[2], "donor"] = None


def nothing(cells: Cells) -> None:
    pass


FAULTS = {
    "1 NaN": Fault(
        put(np.nan), r"Found 1 NaN in \.X, the first at cell", "Expected raw counts", "load them",
    ),
    "2 infinite": Fault(
        put(np.inf), r"Found 1 infinite values in \.X", "Expected raw counts", "load them from"
    ),
    "3 z-scored": Fault(
        z_scored, "Found .* negative values .* looks scaled", "Expected raw counts", "load them"
    ),
    "4 log-transformed": Fault(
        log_transformed, r"Found log-transformed values in \.X \(max", "Expected raw counts",
        r"Pass (layer=\"counts\"|--layer counts)",
    ),
    "4b log-transformed, counts in raw": Fault(
        log_transformed_with_raw, "Found log-transformed values", "Expected raw counts",
        r"pass (layer=\"raw\"|--layer raw)",
    ),
    "5 scaled to library size": Fault(
        scaled_to_library, "Found counts scaled to library size", "Expected raw counts", "load them"
    ),
    "14 no cells": Fault(
        lambda cells: cells[:0].copy(), "Found 0 cells", "[Ee]xpected at least one", "filter|read"
    ),
    "16 transposed": Fault(
        transposed, "Found genes as names of cells", "Expected cells by genes", r"pass adata\.T"
    ),
    "19 unknown genes": Fault(
        nameless, r"Found few genes: .* of 200 columns", "Expected at least 10%",
        "set adata.var_names to them or name a column of adata.var with (gene_ids=|--gene-ids)",
    ),
    "22 mouse said of human genes": Fault(
        nothing, "Found human Ensembl ids", "expected mouse genes only",
        "Pass (species='human'|--species human) if they are human cells",
        options={"species": "mouse"},
    ),
    "23 two species": Fault(
        two_species, "Found human and mouse genes", "Expected one species, or cells that say",
        "organism",
    ),
    "27 duplicated genes": Fault(
        doubled, "Found 1 gene names more than once", "Expected each once",
        r"pass (on_duplicate='sum'|--on-duplicate sum) to add such columns up",
    ),
    "36 misspelt layer": Fault(
        log_transformed, "Found no layer 'count'", "there are", "Did you mean 'counts'",
        options={"layer": "count"},
    ),
    "36b misspelt column": Fault(
        two_species, "Found no column 'organsim'", "there are", "Did you mean 'organism'",
        options={"species_key": "organsim"},
    ),
    "37 one class": Fault(
        one_label, "Found 1 classes", "expected at least two", "Choose another column", "fine-tune"
    ),
    "38 reserved label": Fault(
        label_unknown, "Found the label 'unknown'", "means that a cell has none", "rename it",
        "fine-tune",
    ),
    "36c misspelt label": Fault(
        nothing, "Found no column 'cell_typ' in obs", "there are", "Did you mean 'cell_type'",
        "fine-tune", {"label_key": "cell_typ"},
    ),
    "39 donor missing": Fault(
        lost_donor, "Found 1 cells without a group", "expected one for each", "Fill them in",
        "fine-tune", {"groups": "donor"},
    ),
    "42 key exists": Fault(
        embedded_by_another_tool, r'obsm\["X_scmix"\] exists already', "Pass",
        r"(overwrite=True, or another key_added|--overwrite, or another --key-added)",
    ),
    "45 unknown gene": Fault(
        nothing, "Found INSS: no human gene", "Expected symbols or Ensembl ids",
        "Did you mean INS[ ?]", "perturb", {"genes": ["INSS"]},
    ),
    "47 start is goal": Fault(
        nothing, "Found a, a", "expected different states", "Change one", "perturb",
        {"state_key": "cell_type", "start": "a", "goal": "a"},
    ),
    "47b no such state": Fault(
        nothing, "Found no cell with obs.* == 'c'", "there are a, b", "Pass one of", "perturb",
        {"state_key": "cell_type", "start": "a", "goal": "c"},
    ),
    "48 unknown verb": Fault(
        nothing, "knockdown", "[Ee]xpected", "inhibit", "perturb", {"kind": "knockdown"}
    ),
    "51 no CUDA": Fault(
        nothing, "Found (device='cuda'|--device cuda)", "torch .* sees 0 CUDA GPUs",
        "Use (device='cpu'|--device cpu)", options={"device": "cuda"},
    ),
    "55 unknown model": Fault(
        nothing, "'scmix-mni' is neither", "nor a folder", "Did you mean 'scmix-mini'",
        options={"model": "scmix-mni"},
    ),
}  # fmt: skip
if torch.cuda.is_available():
    del FAULTS["51 no CUDA"]


# -- how they meet them ----------------------------------------------------------------------------


@pytest.fixture(scope="module", name="vocabulary")
def _vocabulary() -> Vocabulary:
    return some_genes()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> str:
    """Folder of a very small model."""
    config = Config(
        vocab_size=vocabulary.n_tokens,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=64,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    made = checkpoints.untrained(config, vocabulary, seed=0)
    checkpoints.save(folder, made.encoder, vocabulary, recipe={}, training_data=[], licence="none")
    return str(folder)


@pytest.fixture
def cells(vocabulary: Vocabulary, tmp_path: Path, monkeypatch: Any) -> Cells:
    """24 good cells of 200 human genes, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    scmix.settings.progress = False
    counts = np.random.default_rng(0).negative_binomial(1, 0.3, (24, 200)).astype(np.float32)
    obs = {"cell_type": np.repeat(["a", "b"], 12), "donor": np.tile(["d1", "d2", "d3"], 8)}
    return ad.AnnData(
        sp.csr_matrix(counts),
        obs=pd.DataFrame(obs, index=[f"human{i}" for i in range(24)]),
        var=pd.DataFrame(index=genes_of(vocabulary, "human")),
    )


def in_python(command: str, cells: Cells, folder: str, /, **options: Any) -> None:
    options = {"model": folder} | options
    if command == "fine-tune":
        tl.fine_tune(cells, options.pop("label_key", "cell_type"), epochs=0, **options)
    else:
        {"embed": tl.embed, "perturb": tl.perturb}[command](cells, **options)


def in_the_shell(command: str, folder: str, /, **options: Any) -> list[str]:
    options = {"model": folder} | options
    by_place = [options.pop("label_key", "cell_type")] if command == "fine-tune" else []
    typed = [command, "in.h5ad", *by_place, "-o", "folder" if by_place else "out.h5ad", "-q"]
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        typed += [f"--{name.replace('_', '-')}", *map(str, values)]
    return typed


def assert_says(message: str, fault: Fault) -> None:
    for part in (fault.found, fault.expected, fault.next_step):
        assert re.search(part, message), f"{part!r} is not in: {message}"


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.filterwarnings("ignore")
def test_in_python(name: str, cells: Cells, model: str) -> None:
    fault = FAULTS[name]
    cells = cells if (changed := fault.spoil(cells)) is None else changed
    before = cells.copy()
    with pytest.raises(InputError) as caught:
        in_python(fault.command, cells, model, **fault.options)
    assert_says(str(caught.value), fault)
    assert cells.obs.equals(before.obs)
    assert cells.var.equals(before.var)
    assert (set(cells.obsm), set(cells.uns)) == (set(before.obsm), set(before.uns))
    x = [one.X.toarray() if hasattr(one.X, "toarray") else one.X for one in (cells, before)]
    np.testing.assert_array_equal(*x)


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.filterwarnings("ignore")
def test_in_the_shell(name: str, cells: Cells, model: str, capsys: Any) -> None:
    fault = FAULTS[name]
    cells = cells if (changed := fault.spoil(cells)) is None else changed
    cells.write_h5ad("in.h5ad")
    code = main(in_the_shell(fault.command, model, **fault.options))
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    *_, last = err.splitlines()
    assert last.startswith("scmix: error: ")
    assert_says(last, fault)
    assert "Traceback" not in err
    in_words_of_python = re.search(r"\b(layer|species_key|overwrite|on_duplicate|device)=", last)
    assert in_words_of_python is None, last
    assert [path.name for path in Path().iterdir()] == ["in.h5ad"]


# -- faults that are no errors ---------------------------------------------------------------------


def test_an_empty_cell_has_no_vector_and_a_warning(cells: Cells, model: str, capsys: Any) -> None:
    counts = cells.X.toarray()
    counts[5] = 0
    cells.X = counts
    cells.write_h5ad("in.h5ad")
    with pytest.warns(UserWarning, match="1 of 24 cells have no count of a gene that the model"):
        tl.embed(cells, model)
    assert main(in_the_shell("embed", model)) == 0
    assert "scmix: warning: 1 of 24 cells have no count" in capsys.readouterr().err
    for found in (cells, ad.read_h5ad("out.h5ad")):
        assert np.isnan(found.obsm["X_scmix"]).all(1).nonzero()[0].tolist() == [5]


def test_upper_case_mouse_symbols_are_no_human_genes_in_silence(
    vocabulary: Vocabulary, cells: Cells, model: str
) -> None:
    mouse = cells
    mouse.var_names = [name.upper() for name in genes_of(vocabulary, "mouse", "symbol")]
    with pytest.warns(UserWarning, match=r"[Cc]ase|upper|mouse"):
        tl.embed(mouse, model)
