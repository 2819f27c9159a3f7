"""The API pages name everything that is public, each name once."""

import pkgutil
import re
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import scmix

PAGES = Path(__file__).parents[2] / "docs" / "api"
ENTRY = re.compile(r"^ {4}([a-z_]+(?:\.\w+)+)$", re.MULTILINE)  # of an autosummary
DATA = re.compile(r"^\.\. py:data:: scmix\.([\w.]+)$", re.MULTILINE)
MODULE = re.compile(r"^\.\. automodule:: scmix\.([\w.]+)$", re.MULTILINE)


def public_names() -> list[str]:
    """Names of every `__all__` of a module whose path has no underscore, without "scmix."."""
    names = list(scmix.__all__)
    for found in pkgutil.iter_modules(scmix.__path__):
        names += _names_in(found.name)
    return names


def _names_in(module: str) -> list[str]:
    if module.startswith("_"):
        return []
    loaded = import_module(f"scmix.{module}")
    names = [f"{module}.{name}" for name in getattr(loaded, "__all__", ())]
    for found in pkgutil.iter_modules(getattr(loaded, "__path__", ())):
        if not found.name.startswith("_"):
            names += _own(loaded, _names_in(f"{module}.{found.name}"))
    return names


def _own(package: ModuleType, names: list[str]) -> list[str]:
    """Without those that the package offers as its own."""
    offered = set(getattr(package, "__all__", ()))
    return [name for name in names if name.rpartition(".")[2] not in offered]


def documented() -> Counter[str]:
    text = "\n".join(page.read_text(encoding="utf-8") for page in sorted(PAGES.glob("*.md")))
    return Counter(ENTRY.findall(text) + DATA.findall(text) + MODULE.findall(text))


def test_every_public_name_is_documented_once() -> None:
    counts = documented()
    wrong = {name: counts[name] for name in public_names() if counts[name] != 1}
    assert not wrong, f"names by how often docs/api has them: {wrong}"


def test_nothing_else_is_documented() -> None:
    for name in documented():
        *path, last = name.split(".")
        assert not any(part.startswith("_") for part in path), name
        holder = scmix if not path else import_module(".".join(["scmix", *path]))
        assert hasattr(holder, last), f"docs/api names {name}, which does not exist"


@pytest.mark.parametrize("name", ["tl.embed", "settings", "genes.Vocabulary"])
def test_the_walk_sees_all_parts(name: str) -> None:
    assert name in public_names()
