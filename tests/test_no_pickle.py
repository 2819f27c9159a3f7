"""No file that scmix opens can run code: read from the source of every module."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import scmix

ROOT = Path(scmix.__file__).parent

MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
MODULES |= {"hickle", "jsonpickle", "code", "codeop"}
CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}
METHODS = {"torch.load", "torch.jit.load", "torch.hub.load", "pd.read_pickle", "pandas.read_pickle"}
METHODS |= {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen"}
NUMPY_LOADERS = {"np.load", "numpy.load", "np.lib.format.read_array"}


def unsafe(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            whole = [f"{node.module}.{a.name}" for a in node.names]
            if (node.module or "").split(".")[0] in MODULES:
                yield node.module or ""
            yield from (name for name in whole if name in METHODS | NUMPY_LOADERS)
        elif isinstance(node, ast.Call):
            yield from _unsafe_call(node)


def _unsafe_call(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if name in CALLS | METHODS or name.endswith((".read_pickle", ".to_pickle")):
        yield name
    if name in NUMPY_LOADERS and options.get("allow_pickle") != "False":
        yield f"{name} without allow_pickle=False"
    if options.get("allow_pickle", "False") != "False":
        yield f"{name} with allow_pickle"
    if options.get("shell", "False") != "False":
        yield f"{name} with shell"
    if options.get("trust_remote_code", "False") != "False":
        yield f"{name} with trust_remote_code"


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_unsafe_loading(path: Path) -> None:
    assert list(unsafe(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import joblib.memory",
        "from dill import load",
        "from torch import load",
        "from numpy import load",
        "torch.load(path, weights_only=True)",
        "yaml.load(text)",
        "pd.read_pickle(path)",
        "eval('1')",
        "exec(code)",
        "__import__(name)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.save(path, x, allow_pickle=flag)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_test_is_able_to_fail(line: str) -> None:
    assert list(unsafe(line))


@pytest.mark.parametrize(
    "line",
    [
        "np.load(path, allow_pickle=False)",
        "re.compile('a')",
        "model.eval()",
        "json.load(file)",
        "from . import pickle_free",
    ],
)
def test_the_test_is_able_to_pass(line: str) -> None:
    assert list(unsafe(line)) == []
