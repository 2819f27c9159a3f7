"""Who may import whom, read from the source; and what `import scmix` loads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import scmix

ROOT = Path(scmix.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Rooms (modules and packages right below scmix) by layer. A private module is its neighbours' own.
ARRAYS = {"genes", "_gene_lookup", "_gene_matching", "_gene_names", "_gene_spelling"}
ARRAYS |= {"_gene_table", "_gene_sets", "_species"}
ARRAYS |= {"ranks", "_rank_kernels", "_jit", "_counts", "batches", "perturbations"}
ARRAYS |= {"statistics", "metrics"}
NETWORK = {"attention", "encoder", "_bert", "_config"}
MODELS = {"inference", "_device", "_processes", "checkpoints", "models", "effects", "decoders"}
SLOTS = {"_slots", "_opening", "_count_blocks", "_row_blocks", "_writer"}
CORE = ARRAYS | NETWORK | MODELS
BASE = {"_errors", "_lazy", "settings", "_history", "_run_folder", "_warn"}
PUBLIC = {"tl", "pretrain", "classifiers", "datasets"}
HEAVY = {"torch", "transformers", "scanpy", "matplotlib", "umap", "numba", "anndata", "sklearn"}

# rooms -> what they may not import from outside, and which rooms of scmix they may import
LAYERS: list[tuple[set[str], set[str], set[str]]] = [
    (BASE, HEAVY, set()),
    (ARRAYS, {"torch", "transformers", "anndata", "scanpy", "matplotlib", "umap"}, ARRAYS),
    (NETWORK, HEAVY - {"torch"} | {"numpy", "pandas", "scipy"}, NETWORK),
    (MODELS, {"transformers", "anndata", "scanpy", "matplotlib", "umap"}, CORE),
    (SLOTS, {"torch", "transformers", "scanpy", "matplotlib", "umap"}, ARRAYS | SLOTS | {"pp"}),
    ({"pp"}, {"torch", "transformers", "scanpy", "matplotlib"}, ARRAYS | SLOTS | {"models"}),
    ({"_training"}, {"anndata", "scanpy", "matplotlib", "umap"}, set()),
    ({"classifiers"}, {"anndata", "scanpy", "matplotlib", "umap"}, CORE | {"_training"}),
    ({"tl"}, {"transformers", "matplotlib"}, CORE | SLOTS | {"pp", "classifiers"}),
    ({"pl"}, {"torch", "transformers"}, SLOTS | {"metrics", "statistics"}),
    ({"pretrain"}, {"scanpy", "matplotlib", "umap"}, CORE | SLOTS | {"pp", "_training"}),
    ({"datasets"}, HEAVY - {"anndata"}, set()),
    ({"cli", "__main__"}, HEAVY - {"anndata", "torch"}, CORE | PUBLIC | {"cli"}),
]
LAW = {room: (outside, rooms) for members, outside, rooms in LAYERS for room in members}


def room(path: Path) -> str:
    """First part of the path below scmix: `tl/_embed.py` and `tl/__init__.py` are both in `tl`."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute dotted names that a file imports at any level, but for type checkers only."""
    package = ["scmix", *path.relative_to(ROOT).parts[:-1]]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def unlawful(path: Path) -> Iterator[str]:
    outside, rooms = LAW[room(path)]
    own = rooms | BASE | {room(path), "__version__"}
    for name, line in imported(path):
        top, *rest = name.split(".")
        if top in outside or (top == "scmix" and rest[0] not in own):
            yield f"{path.relative_to(ROOT)}:{line} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_import_law(path: Path) -> None:
    if path == ROOT / "__init__.py":
        found = {name for name, _ in imported(path)}
        assert found == {
            "typing.TYPE_CHECKING",
            "importlib.metadata.version",
            "scmix._lazy.lazy_names",
            "scmix.settings.settings",
        }
        return
    assert room(path) in LAW, f"{room(path)} is a new room: put it in a layer"
    assert list(unlawful(path)) == []


def test_the_law_is_able_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "tl").mkdir()
    bad = tmp_path / "tl" / "_bad.py"
    bad.write_text("def f():\n    from ..pl import umap_compare\n    from .. import pretrain\n")
    assert list(unlawful(bad)) == [
        "tl/_bad.py:2 imports scmix.pl.umap_compare",
        "tl/_bad.py:3 imports scmix.pretrain",
    ]
    ranks = tmp_path / "ranks.py"
    ranks.write_text("import numpy\nimport torch.nn\nfrom scmix.encoder import Encoder\n")
    assert list(unlawful(ranks)) == [
        "ranks.py:2 imports torch.nn",
        "ranks.py:3 imports scmix.encoder.Encoder",
    ]


UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_runs_code_from_a_file(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = {name.split(".")[0] for name, _ in imported(path)} & UNSAFE
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"eval", "exec", "torch.load", "compile", "__import__"}
    }
    assert (imports, calls) == (set(), set())


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )


def test_import_is_silent_and_light() -> None:
    heavy = HEAVY | {"pandas", "numpy", "scipy", "safetensors", "tqdm"}
    done = run(f"import sys, scmix; print(sorted(set(sys.modules) & {heavy!r}))")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_names_are_there_before_they_are_used() -> None:
    public = ["pp", "tl", "pl", "datasets", "models", "classifiers", "pretrain"]
    public += ["settings", "__version__"]
    assert scmix.__all__ == public
    assert set(public) - {"__version__"} <= set(dir(scmix))
    assert scmix.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="module 'scmix' has no attribute 'nothing'"):
        _ = scmix.nothing


def test_preparing_genes_and_ranks_never_loads_torch() -> None:
    code = """
import sys, scmix
scmix.settings.verbosity = "error"
adata = scmix.datasets.pancreas()[:20].copy()
scmix.pp.map_genes(adata, species_key="species")
scmix.pp.rank_encode(adata, species_key="species")
print(sorted({"torch", "transformers", "scanpy", "matplotlib", "umap"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_settings_refuse_what_they_do_not_know() -> None:
    for name, value, error in [
        ("device", "gpu", ValueError),
        ("device", None, ValueError),
        ("progress", 1, TypeError),
        ("verbosity", "loud", ValueError),
    ]:
        before = getattr(scmix.settings, name)
        with pytest.raises(error, match=rf"Found settings\.{name} = "):
            setattr(scmix.settings, name, value)
        assert getattr(scmix.settings, name) == before
    with pytest.raises(AttributeError):
        scmix.settings.devise = "cpu"


def test_messages_reach_standard_error_once_and_only_when_wanted() -> None:
    code = """
import logging, scmix
log = logging.getLogger("scmix.pp")
log.info("one")
scmix.settings.verbosity = "warning"
log.info("two")
logging.basicConfig(format="app: %(message)s")
log.warning("three")
"""
    assert run(code).stderr == "one\napp: three\n"
