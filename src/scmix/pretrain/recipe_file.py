"""A whole run in one text file (TOML): corpus, held-out cells, recipe, and where it is kept."""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any

from .._errors import InputError
from ._recipe import Recipe
from .recipes import recipe as make_recipe

_NUMBER = (int, float)
# How TOML writes the types of a recipe's fields.
_WRITTEN: dict[type, Any] = {float: _NUMBER, tuple: list, type(None): object}
# Each table's settings and their types.
_TABLES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "corpus": {"path": str},
    "validation": {"path": str, "every": int, "labels": list},
    "run": {
        "out": str,
        "start": str,
        "resume": bool,
        "log_every": int,
        "checkpoint_every": int,
        "keep": int,
        "licence": str,
    },
}
_NEEDED = {"corpus": ("path",), "validation": ("path",), "recipe": ("name",), "run": ("out",)}


@dataclass(frozen=True)
class RecipeFile:
    """What a recipe file says, checked.

    Parameters
    ----------
    corpus, out
        Folders of the corpus and of the run.
    recipe
        Name of the recipe.
    changes
        Fields of the recipe that differ.
    options
        Further arguments of :func:`scmix.pretrain.train`.
    """

    corpus: Path
    out: Path
    recipe: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def run_recipe_file(path: str | PathLike[str], *, out: str | PathLike[str] | None = None) -> Path:
    """Train as a recipe file says; the same call goes on with a run that was interrupted.

    One process, or several started by ``torchrun`` or ``accelerate launch``.

    Parameters
    ----------
    path
        The file; see :func:`read_recipe_file`.
    out
        Folder of the run, instead of the one that the file names.

    Returns
    -------
    Folder of the trained model.

    Raises
    ------
    InputError
        The file has a setting that does not exist, or lacks one, or as in
        :func:`scmix.pretrain.train`.

    Examples
    --------
    >>> import tempfile
    >>> import scmix
    >>> folder = Path(tempfile.mkdtemp())
    >>> scmix.datasets.pbmc3k()[:40].write_h5ad(folder / "cells.h5ad")
    >>> corpus = scmix.pretrain.build_corpus([folder / "cells.h5ad"], folder / "corpus")
    >>> text = '''
    ... [corpus]
    ... path = "corpus"
    ... [recipe]
    ... name = "scmix-mini"
    ... hidden_size = 16
    ... num_hidden_layers = 1
    ... max_length = 64
    ... tokens_per_step = 512
    ... steps = 2
    ... [run]
    ... out = "run"
    ... '''
    >>> _ = (folder / "recipe.toml").write_text(text)
    >>> run_recipe_file(folder / "recipe.toml").name
    'final'
    """
    from ._train import train  # needs torch, which checking a file does not

    asked = read_recipe_file(path)
    folder = asked.out if out is None else Path(out)
    return train(asked.corpus, folder, asked.recipe, **asked.options, **asked.changes)


def read_recipe_file(path: str | PathLike[str]) -> RecipeFile:
    """Read a recipe file and refuse what it should not hold.

    Tables are ``[corpus]`` with ``path``; ``[validation]`` (may be left out) with ``path``,
    ``every`` and ``labels``; ``[recipe]`` with ``name`` and any field of :class:`Recipe`; ``[run]``
    with ``out``, and as in :func:`train` ``start``, ``resume``, ``log_every``,
    ``checkpoint_every``, ``keep`` and ``licence``. Paths are relative to the file's folder.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    What it says.

    Raises
    ------
    InputError
        Names the setting that is unknown (with close matches), missing or of another type.

    Examples
    --------
    >>> import tempfile
    >>> from scmix.pretrain import read_recipe_file
    >>> file = Path(tempfile.mkdtemp()) / "recipe.toml"
    >>> text = '''
    ... corpus.path = "corpus"
    ... recipe = {name = "scmix-mini", steps = 20}
    ... run.out = "run"
    ... '''
    >>> _ = file.write_text(text)
    >>> read_recipe_file(file).changes
    {'steps': 20}
    """
    file = Path(path).expanduser()
    tables = _parse(file)
    _check_tables(file, tables)
    corpus, run = tables["corpus"], dict(tables["run"])
    changes = dict(tables["recipe"])
    name = changes.pop("name")
    options: dict[str, Any] = {}
    if "validation" in tables:
        options["validation"] = _beside(file, tables["validation"]["path"])
        options["validate_every"] = tables["validation"].get("every")
        options["labels"] = tables["validation"].get("labels")
    out = _beside(file, run.pop("out"))
    if "start" in run:
        found = _beside(file, run["start"])
        run["start"] = found if found.exists() else run["start"]
    make_recipe(name, **changes)  # refuses values that are out of range
    return RecipeFile(_beside(file, corpus["path"]), out, name, changes, options | run)


def _parse(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"Could not read {file}: {error.strerror or error}.") from error
    except ValueError as error:  # of TOML, or of UTF-8
        raise InputError(f"{file} is not valid TOML: {error}. Correct it.") from error


def _check_tables(file: Path, tables: dict[str, Any]) -> None:
    known = _TABLES | {"recipe": _recipe_types()}
    for name, table in tables.items():
        if name not in known:
            raise InputError(f"{file} has the table [{name}]. {_hint(name, known)}")
        if not isinstance(table, dict):
            raise InputError(f"{file}: found {name} = {table!r}, expected a table [{name}].")
        for key, value in table.items():
            if key not in known[name]:
                hint = _hint(key, known[name])
                raise InputError(f"{file}: [{name}] has no setting {key!r}. {hint}")
            _check_type(f"{file}: [{name}] {key}", value, known[name][key])
    for name, needed in _NEEDED.items():
        missing = [key for key in needed if key not in tables.get(name, {})]
        if missing and (name in tables or name != "validation"):
            raise InputError(f"{file} lacks {missing[0]!r} in [{name}]. Add it.")


def _recipe_types() -> dict[str, Any]:
    """The type of each field of a recipe, by its default."""
    types: dict[str, Any] = {"name": str}
    for item in fields(Recipe):
        if item.default is not MISSING:
            kind = type(item.default)
            types[item.name] = _WRITTEN.get(kind, kind)
        elif item.default_factory is not MISSING:
            types[item.name] = dict
    return types


def _check_type(where: str, value: Any, kind: Any) -> None:
    if where.endswith("[validation] labels"):
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise InputError(f"{where} is {value!r}, expected names such as ['cell_type'].")
        return
    right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    numbers = all(isinstance(v, _NUMBER) and not isinstance(v, bool) for v in inner)
    if not right or not numbers:
        words = {str: "a text", int: "a whole number", _NUMBER: "a number", bool: "true or false"}
        expected = words.get(kind, "numbers, such as [0.3, 1.0] or {mlm = 1.0}")
        raise InputError(f"{where} is {value!r}, expected {expected}.")


def _hint(name: str, known: Mapping[str, Any]) -> str:
    close = get_close_matches(name, known, n=3)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Expected some of {', '.join(known)}."


def _beside(file: Path, path: str) -> Path:
    return file.resolve().parent / Path(path).expanduser()
