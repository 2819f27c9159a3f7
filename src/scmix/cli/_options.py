"""Options that several commands share, named like the arguments of the functions."""

import argparse
import shutil
import tomllib
from collections.abc import Callable
from typing import Any

from .._errors import InputError

Commands = Any  # argparse does not name the type of its subparsers

# What `vars(args)` holds that is no argument of a function.
_OWN = {"input", "output", "force", "quiet", "run", "renamed", "set"}


class _Wide(argparse.HelpFormatter):
    """Help that is as wide as the code, and names options on the line of their text."""

    def __init__(self, prog: str, **options: Any) -> None:
        options |= {"max_help_position": 30, "width": min(100, shutil.get_terminal_size().columns)}
        super().__init__(prog, **options)


def command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    description: str,
    usage: str,
    **renamed: str,
) -> argparse.ArgumentParser:
    """Add a subcommand; `renamed`: arguments of the function whose option has another name."""
    parser = commands.add_parser(
        name,
        help=description[0].lower() + description[1:].rstrip("."),
        description=description,
        usage=f"%(prog)s {usage}".rstrip(),
        allow_abbrev=False,
        formatter_class=_Wide,
    )
    parser.set_defaults(run=run, renamed=renamed)
    return parser


def arguments(args: argparse.Namespace) -> dict[str, Any]:
    """What is passed on to the function."""
    return {name: value for name, value in vars(args).items() if name not in _OWN}


def add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="no progress, and warnings and errors only"
    )


def add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN", help="cells with raw counts: .h5ad, or .zarr")


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help=what)
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there")


def add_cells(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """How counts, genes and species are read."""
    group = parser.add_argument_group("cells and genes")
    add = group.add_argument
    add("--layer", help="layer with the counts, or raw; .X when not given")
    add("--species", metavar="NAME", help="human or mouse; recognised by the genes if not given")
    add("--species-key", metavar="COLUMN", help="column of obs with each cell's species")
    add("--gene-ids", metavar="COLUMN", help="column of var with Ensembl ids or symbols")
    add(
        "--on-duplicate", choices=("error", "sum"), default="error",
        help="what to do with genes that occur in several columns",
    )  # fmt: skip
    add("--allow-noninteger", action="store_true", help="accept fractional counts")
    return group


def add_pooling(group: argparse._ArgumentGroup) -> None:
    """How a cell's hidden states become its vector."""
    group.add_argument(
        "--pool", metavar="NAME", default="mean",
        help="mean, first, cls or pooler (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--hidden-layer", type=int, metavar="N", help="hidden state that is pooled, from 0 or -1"
    )
    group.add_argument("--n-genes", type=int, metavar="N", help="most genes read of a cell")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Where to compute, in which format, and how much at once."""
    group = parser.add_argument_group("machine")
    group.add_argument("--device", help="auto (a GPU if there is one), cpu, cuda, cuda:1, mps")
    group.add_argument(
        "--dtype", default="auto", help="auto, float32 or bfloat16 (default: %(default)s)"
    )
    group.add_argument("--batch-tokens", type=int, metavar="N", help="most tokens in a batch")


def add_result(parser: argparse.ArgumentParser, key: str) -> None:
    group = parser.add_argument_group("result")
    group.add_argument(
        "--key-added", metavar="KEY", default=key, help="where it is written (default: %(default)s)"
    )
    group.add_argument(
        "--overwrite", action="store_true", help="replace a key in IN that scmix did not write"
    )


def add_settings(parser: argparse.ArgumentParser, of: str) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE",
        help=f"change a setting of the recipe ({of}); may be repeated",
    )  # fmt: skip


def settings(pairs: list[str]) -> dict[str, Any]:
    """Settings of a recipe from `name=value`, the value as in a TOML file, or plain text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"Found --set {pair}; expected NAME=VALUE, such as --set epochs=5.")
        found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def number_or_word(text: str) -> int | str | None:
    """Type of an option that takes a number, `none` or `auto`."""
    words = {"none": None, "auto": "auto"}
    return words[text] if text in words else int(text)
