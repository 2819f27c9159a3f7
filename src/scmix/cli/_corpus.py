"""`scmix corpus`: count files to a corpus for pretraining."""

import argparse

from . import _options
from ._words import answer


def add(commands: _options.Commands) -> None:
    description = "Make corpora for pretraining."
    parser = commands.add_parser(
        "corpus", help="make corpora for pretraining", description=description
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_build(actions)


def _add_build(actions: _options.Commands) -> None:
    parser = _options.command(
        actions, "build", _build, "Rank the cells of h5ad files and store their tokens.",
        "FILE [FILE ...] -o OUT [options]", overwrite="--force",
    )  # fmt: skip
    parser.add_argument("files", nargs="+", metavar="FILE", help="h5ad files with raw counts")
    parser.add_argument("-o", "--output", dest="out", metavar="OUT", required=True,
                        help="folder of the corpus")  # fmt: skip
    _options.add_quiet(parser)


def _build(args: argparse.Namespace) -> None:
    from .. import pretrain

    answer(f"{pretrain.build_corpus(**_options.arguments(args))!r}\nSaved in {args.out}.")
