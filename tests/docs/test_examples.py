"""Examples in prose call functions that exist, with parameters that they have."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCED = re.compile(r"^```(?:py|python|\{code-cell\})\n(.*?)^```", re.MULTILINE | re.DOTALL)
OPTIONS = re.compile(r"\A(?::\w[\w-]*:.*\n)+")  # of a code-cell
INLINE = re.compile(r"`(scmix\.[\w.]+\([^`\n]*\))`")
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]


def codes(page: Path) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    for code in FENCED.findall(text):
        yield OPTIONS.sub("", code)
    for code in INLINE.findall(text):
        yield code.replace("(...)", "()").replace("...,", "").replace(", ...", "")


def calls(code: str) -> Iterator[tuple[str, ast.Call]]:
    """Calls of functions whose dotted name begins with scmix, and the names."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if re.fullmatch(r"scmix(\.\w+)+", name):
                yield name, node


def found(name: str) -> object:
    value: object = import_module("scmix")
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    return value


def check(name: str, call: ast.Call) -> None:
    signature = inspect.signature(found(name))
    keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg is not None}
    signature.bind_partial(*call.args, **keywords)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_calls_fit_the_functions(page: Path) -> None:
    for code in codes(page):
        for name, call in calls(code):
            try:
                check(name, call)
            except (AttributeError, TypeError) as error:
                pytest.fail(f"{name} in {page.name}: {error}\n{code}")
