"""Every tutorial runs, on a part of its cells, and says what the data say."""

import json
import re
import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import scmix
from scmix import datasets, pretrain

TUTORIALS = Path(__file__).parents[1] / "tutorials"
NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))
CELLS_PER_TYPE = 8
PARTS = ("blood", "mouse pancreas", "human pancreas")
BLOOD_CELLS_PER_TYPE = 48  # the tutorial of labels uses a third of them


@pytest.fixture
def few_cells(monkeypatch):
    """The pancreas data with a few cells of each type and species."""
    full = datasets.pancreas()
    kinds = full.obs.groupby(["species", "cell_type"], observed=True)
    rows = np.concatenate([rows[:CELLS_PER_TYPE] for rows in kinds.indices.values()])
    part = full[np.sort(rows)].copy()
    monkeypatch.setattr(datasets, "pancreas", part.copy)
    return part


@pytest.fixture
def few_blood_cells(monkeypatch, path):
    """The blood cells with a few of each type, for the tutorial that uses all types."""
    if path.stem not in ("02_annotate_and_transfer", "04_pretrain"):
        return
    full = datasets.pbmc3k()
    rows = full.obs.groupby("cell_type", observed=True).indices.values()
    part = full[np.sort(np.concatenate([r[:BLOOD_CELLS_PER_TYPE] for r in rows]))].copy()
    monkeypatch.setattr(datasets, "pbmc3k", part.copy)


@pytest.fixture
def few_steps(monkeypatch):
    """Pretraining of forty steps."""
    full, short = pretrain.train, {"steps": 40, "validate_every": 20, "checkpoint_every": 40}

    def train(*args, **options):
        return full(*args, **{**options, **short, "log_every": 5})

    monkeypatch.setattr(pretrain, "train", train)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_saved_as_it_was_executed(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in code)
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert [output for output in outputs if "image/png" in output.get("data", {})]
    assert "session_info(" in "".join(code[-1]["source"])
    assert code[-1]["outputs"]
    headings = re.findall(r"^## (.+)", "\n".join(texts(cells)), flags=re.MULTILINE)
    assert headings[-1] in ("What this does not say", "What the list cannot tell")


def texts(cells):
    """The text of each cell that is no code."""
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_notebook_runs(path, few_cells, few_blood_cells, few_steps, capsys):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    namespace = {"__name__": "__main__"}
    for number, source in enumerate(code):
        exec(compile(source, f"{path.name}, code cell {number}", "exec"), namespace)
    if path.stem == "04_pretrain":
        looks = namespace["looks"]
        assert looks["step"].tolist() == [0, 20, 40]
        # of the human cells held out most are of an organ that so few steps do not teach
        assert looks["mouse_mlm"].iloc[-1] < looks["mouse_mlm"].iloc[0] - 0.05
        assert set(namespace["validation"].datasets) == {f"{name} held out" for name in PARTS}
    if path.stem == "05_geneformer_checkpoint":
        assert namespace["same_genes"] == 1
        assert namespace["difference"] < 1e-12
        np.testing.assert_allclose(namespace["ours"], namespace["theirs"], atol=1e-4)
    if path.stem == "03_perturbation":
        scores = namespace["scores"]
        assert scores["effect"].dropna().is_monotonic_decreasing
        assert scores.set_index("symbol").loc["LYZ", "de_rank"] == 1  # what was knocked out
    if path.stem == "01_embed_and_compare":
        assert 'Pass layer="counts"' in capsys.readouterr().out
        assert namespace["adata"].obsm["X_scmix"].shape[0] == few_cells.n_obs


@pytest.mark.slow
def test_demo_prints_a_table_and_draws(few_cells, capsys, tmp_path):
    demo = runpy.run_path(str(TUTORIALS / "demo.py"))
    demo["main"](["--seeds", "1", "--output", str(tmp_path / "demo.png")])
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert plt.imread(tmp_path / "demo.png").shape[0] > 500
    printed = capsys.readouterr().out
    rows = {
        name: [float(v) for v in re.findall(r"(?<!± )-?\d\.\d\d", line)]
        for line in printed.splitlines()
        for name in ("scmix-mini", "PCA on orthologues", "untrained encoder", "majority class")
        if line.startswith(name)
    }
    assert {name: len(row) for name, row in rows.items()} == {
        "scmix-mini": 6,
        "PCA on orthologues": 6,
        "untrained encoder": 6,
        "majority class": 4,
    }
    expected = demo["scores"](with_pca(few_cells), "X_pca_orthologues")
    assert rows["PCA on orthologues"] == [round(value, 2) for value in expected.values()]
    assert rows["PCA on orthologues"][2] > rows["majority class"][0]


def with_pca(adata):
    return scmix.tl.orthologue_pca(adata, species_key="species", copy=True)


def test_majority_is_the_share_of_the_commonest_type(few_cells):
    demo = runpy.run_path(str(TUTORIALS / "demo.py"))
    shared = few_cells[demo["is_shared"](few_cells)]
    assert set(shared.obs["cell_type"]) == {
        "activated stellate",
        "alpha",
        "beta",
        "delta",
        "macrophage",
    }
    floor = demo["majority"](shared)
    # mouse: 8 of four types and all 4 activated stellate cells; human: 8 of each
    assert floor["human→mouse accuracy"] == pytest.approx(8 / 36)
    assert floor["mouse→human accuracy"] == pytest.approx(1 / 5)
    assert floor["mouse→human macro-F1"] == pytest.approx((2 / 6) / 5)
