"""`scmix pretrain`: an encoder, by a recipe file."""

import argparse

from . import _options
from ._words import answer


def add(commands: _options.Commands) -> None:
    parser = _options.command(
        commands, "pretrain", _run, "Pretrain an encoder by a recipe file.", "RECIPE [options]"
    )
    parser.add_argument("path", metavar="RECIPE", help="what to train on, how, and where to")
    _options.add_quiet(parser)


def _run(args: argparse.Namespace) -> None:
    from .. import pretrain

    answer(f"Saved in {pretrain.run_recipe_file(**_options.arguments(args))}.")
