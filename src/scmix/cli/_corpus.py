"""`scmix corpus`: count files to a corpus for pretraining."""

import argparse
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import InputError
from . import _options
from ._words import answer

if TYPE_CHECKING:
    from ..genes import Vocabulary
    from ..pretrain import Source

MODES = ("shared", "separate")


def add(commands: _options.Commands) -> None:
    description = "Make corpora for pretraining."
    parser = commands.add_parser("corpus", help="make corpora", description=description)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    parser = _options.command(
        actions, "build", _build, "Rank the cells of count files and store their tokens.",
        "FILE [FILE ...] -o OUT [options]", overwrite="--force",
    )  # fmt: skip
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="raw counts: .h5ad or .zarr; or .toml, a list of "
        "such files with [[source]] tables: path, species, layer, organ, keep, ... as in "
        "scmix.pretrain.Source",
    )  # fmt: skip
    parser.add_argument("-o", "--output", dest="out", metavar="OUT", required=True,
                        help="folder of the corpus")  # fmt: skip
    parser.add_argument(
        "--force", dest="overwrite", action="store_true", help="replace OUT if it is there"
    )
    _add_content(parser)
    _add_quality(parser)
    _options.add_quiet(parser)


def _add_content(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("content").add_argument
    add("--vocabulary", default="shared", metavar="NAME", help="shared (one token for "
        "orthologues), separate, or a model that has it (default: %(default)s)")  # fmt: skip
    number = _options.number_or_word
    add("--n-genes", type=number, default=2048, metavar="N", help="most genes kept of a cell, or "
        "none: all (default: %(default)s)")  # fmt: skip
    add("--values", action="store_true", help="store raw counts beside the tokens")
    add("--medians", choices=("vocabulary", "corpus"), default="vocabulary",
        help="by whose medians genes are ranked (default: %(default)s)")  # fmt: skip
    add("--shard-tokens", type=int, default=1 << 29, metavar="N", help="tokens in a file of the "
        "store (default: %(default)s)")  # fmt: skip
    add("--n-jobs", type=int, default=1, metavar="N", help="processes (default: %(default)s)")


def _add_quality(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("cells that are kept").add_argument
    add("--min-counts", type=float, default=0, metavar="N", help="fewest counts")
    add("--max-counts", type=float, metavar="N", help="most counts; any number")
    add(
        "--min-genes", type=int, default=50, metavar="N", help="fewest genes (default: %(default)s)"
    )
    add("--max-genes", type=int, metavar="N", help="most genes; any number")
    add("--max-mitochondrial", type=float, metavar="SHARE", help="greatest share, 0 to 1; any")


def _build(args: argparse.Namespace) -> None:
    from .. import pretrain

    options = _options.arguments(args)
    options["files"] = [source for file in args.files for source in _sources(Path(file))]
    options["vocabulary"] = _vocabulary(args.vocabulary)
    corpus = pretrain.build_corpus(**options)
    answer(f"{corpus.report()}\nSaved in {args.out}.")


def _vocabulary(name: str) -> "Vocabulary":
    if name in MODES:
        from ..genes import Vocabulary

        return Vocabulary.bundled(name)
    from .. import models

    return models.vocabulary(name)


def _sources(file: Path) -> "Iterator[Source]":
    """A file of counts, or those that a TOML file lists."""
    from ..pretrain import Source

    if file.suffix != ".toml":
        yield Source(file)
        return
    known = [item.name for item in fields(Source)]
    for table in _tables(file):
        for name in table:
            if name not in known:
                close = get_close_matches(name, known, n=1)
                hint = f"Did you mean {close[0]}?" if close else f"Expected {', '.join(known)}."
                raise InputError(f"{file}: [[source]] has no setting {name!r}. {hint}")
        if not isinstance(table.get("path"), str):
            raise InputError(f'{file}: a [[source]] has no path. Add one: path = "cells.h5ad".')
        yield Source(**table | {"path": file.resolve().parent / table["path"]})


def _tables(file: Path) -> list[dict[str, Any]]:
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"Could not read {file}: {error.strerror or error}.") from error
    except ValueError as error:
        raise InputError(f"{file} is not valid TOML: {error}. Correct it.") from error
    tables = content.get("source")
    if not isinstance(tables, list) or len(content) > 1:
        raise InputError(f"{file} holds {', '.join(content) or 'nothing'}; expected [[source]].")
    return tables
