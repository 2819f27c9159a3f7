"""What is shipped: the files of the wheel, and the example of the README."""

import re
import tomllib
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from hatchling.builders.wheel import WheelBuilder

import scmix

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel() -> dict[str, int]:
    """Path in the wheel -> size on disk."""
    included = WheelBuilder(str(ROOT)).recurse_included_files()
    return {file.distribution_path: Path(file.path).stat().st_size for file in included}


def test_wheel_has_what_scmix_reads(wheel: dict[str, int]) -> None:
    source = ROOT / "src"
    on_disk = {
        str(path.relative_to(source))
        for path in (source / "scmix").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set(wheel) == on_disk
    assert {
        "scmix/py.typed",
        "scmix/datasets/data/pancreas.h5ad",
        "scmix/datasets/data/pbmc3k.h5ad",
        "scmix/datasets/data/README.md",
        "scmix/resources/vocabulary.csv.gz",
        "scmix/resources/scmix-mini/model.safetensors",
        "scmix/resources/scmix-mini/README.md",
    } <= on_disk


def test_wheel_is_small(wheel: dict[str, int]) -> None:
    assert sum(wheel.values()) < 40e6  # uncompressed, so the wheel is smaller still


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert scmix.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_readme_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    cells = scmix.datasets.pancreas()[::12].copy()
    monkeypatch.setattr(scmix.datasets, "pancreas", lambda: cells)
    names: dict[str, ad.AnnData] = {}
    exec(example, names)
    adata = names["adata"]
    assert adata.obsm["X_scmix"].dtype == np.float32
    assert np.isfinite(adata.obsm["X_scmix"]).all()
    assert {"X_pca_orthologues", "X_umap"} <= set(adata.obsm)
