"""Every public function has the shape and the docstring that users of scanpy know.

And style is checked by one version of ruff everywhere.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import scmix

ADATA_MODULES = ("pp", "tl", "pl")
MODULES = (*ADATA_MODULES, "datasets", "models", "classifiers", "pretrain")


def public(names: tuple[str, ...], kind: Callable[[object], bool]) -> Iterator[tuple[str, object]]:
    for name in names:
        module: ModuleType = getattr(scmix, name)
        for attribute in module.__all__:
            if kind(value := getattr(module, attribute)):
                yield f"{name}.{attribute}", value


FUNCTIONS = dict(public(MODULES, inspect.isfunction))
CLASSES = dict(public(MODULES, inspect.isclass))
SURFACE = {name: FUNCTIONS[name] for name in FUNCTIONS if name.split(".")[0] in ADATA_MODULES}
RETURNS_A_RESULT = {"tl.cross_fit", "tl.evaluate", "tl.fine_tune", "tl.fine_tune_genes"}
CHANGES_ADATA = {
    name: SURFACE[name]
    for name in SURFACE
    if not name.startswith("pl.") and name not in RETURNS_A_RESULT
}

every_function = pytest.mark.parametrize("name", FUNCTIONS)
every_surface_function = pytest.mark.parametrize("name", SURFACE)


def sections(doc: str) -> dict[str, str]:
    """numpydoc sections of a cleaned docstring; the text above the first is under the key ''."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}$", doc, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def documented(section: str) -> list[str]:
    """Names at the start of the unindented lines of a Parameters section (`a, b` is two)."""
    lines = re.findall(r"^\*{0,2}([a-z_]\w*(?:, *\w+)*)", section, flags=re.MULTILINE)
    return [name for line in lines for name in re.split(", *", line)]


def test_everything_announced_is_there() -> None:
    for name in MODULES:
        module = getattr(scmix, name)
        assert module.__doc__
        assert set(module.__all__) <= set(dir(module))
        for attribute in module.__all__:
            assert hasattr(module, attribute)
    assert set(SURFACE) == {
        "pp.map_genes",
        "pp.rank_encode",
        "tl.embed",
        "tl.gene_embeddings",
        "tl.orthologue_pca",
        "tl.fine_tune",
        "tl.fine_tune_genes",
        "tl.transfer_labels",
        "tl.annotate",
        "tl.evaluate",
        "tl.cross_fit",
        "tl.perturb",
        "tl.impute",
        "pl.umap_compare",
        "pl.perturbation",
        "pl.perturbation_shift",
        "pl.perturbation_heatmap",
        "pl.confidence",
        "pl.confusion",
        "pl.evaluation",
        "pl.history",
    }


@every_function
def test_at_most_three_positional_arguments(name: str) -> None:
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    assert not [p.name for p in parameters if p.kind in (p.VAR_POSITIONAL, p.POSITIONAL_ONLY)]
    assert len([p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]) <= 3


@every_surface_function
def test_adata_comes_first(name: str) -> None:
    first = next(iter(inspect.signature(SURFACE[name]).parameters.values()))
    assert first.name == ("classifier" if name == "pl.history" else "adata")
    assert first.default is first.empty


@pytest.mark.parametrize("name", CHANGES_ADATA)
def test_copy(name: str) -> None:
    signature = inspect.signature(CHANGES_ADATA[name])
    copy = signature.parameters["copy"]
    assert copy.kind is copy.KEYWORD_ONLY
    assert copy.default is False
    assert copy.annotation in (bool, "bool")
    returned = re.sub(r"\w+\.", "", str(signature.return_annotation))
    assert returned == "AnnData | None"


@every_function
def test_types_are_in_the_signature(name: str) -> None:
    signature = inspect.signature(FUNCTIONS[name])
    untyped = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
    assert untyped == []
    assert signature.return_annotation is not signature.empty


@every_function
def test_docstring(name: str) -> None:
    function = FUNCTIONS[name]
    doc = sections(inspect.getdoc(function) or "")
    summary = doc[""].strip().splitlines()
    assert summary, "no docstring"
    assert summary[0].endswith((".", ":")) or len(summary) > 1
    assert "Returns" in doc or inspect.signature(function).return_annotation is None
    assert ">>> " in doc.get("Examples", ""), "no example"


@every_function
def test_every_parameter_is_documented(name: str) -> None:
    function = FUNCTIONS[name]
    section = sections(inspect.getdoc(function) or "").get("Parameters", "")
    assert documented(section) == list(inspect.signature(function).parameters)
    assert not re.findall(r"^\w[\w, ]* : ", section, flags=re.MULTILINE), (
        "types go in the signature"
    )


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_docstrings(name: str) -> None:
    doc = inspect.getdoc(CLASSES[name])
    assert doc
    assert not doc.startswith(f"{CLASSES[name].__name__}("), "the one dataclasses write"


def test_hooks_run_the_pinned_ruff() -> None:
    root = Path(__file__).parents[1]
    pin = re.search(r"^ruff==(\S+)$", (root / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert pin
    settings = yaml.safe_load((root / ".pre-commit-config.yaml").read_text("utf-8"))
    (ruff,) = [repo for repo in settings["repos"] if repo["repo"].endswith("/ruff-pre-commit")]
    assert ruff["rev"] == f"v{pin[1]}"
    assert [hook["id"] for hook in ruff["hooks"]] == ["ruff-check", "ruff-format"]
