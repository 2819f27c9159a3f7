"""`scmix pretrain`: an encoder, by a recipe file."""

import argparse

from . import _options
from ._words import answer


def add(commands: _options.Commands) -> None:
    parser = _options.command(
        commands, "pretrain", _run, "Pretrain an encoder by a recipe file; the same call goes on "
        "with a run that was interrupted.", "RECIPE [options]", out="--output",
    )  # fmt: skip
    parser.add_argument("path", metavar="RECIPE", help="recipe.toml: corpus, recipe and run")
    parser.add_argument(
        "-o", "--output", dest="out", metavar="FOLDER", help="of the run, if not the recipe's"
    )
    parser.add_argument("--check", action="store_true", help="only check the recipe file")
    _options.add_quiet(parser)


def _run(args: argparse.Namespace) -> None:
    from .. import pretrain

    options = _options.arguments(args)
    if options.pop("check"):
        asked = pretrain.read_recipe_file(args.path)
        answer(f"Recipe {asked.recipe!r} on {asked.corpus}, run in {args.out or asked.out}.")
        return
    answer(f"Saved in {pretrain.run_recipe_file(**options)}.")
