"""`scmix models`: what can be loaded, what it is, and models of others."""

import argparse

from . import _options
from ._words import answer


def add(commands: _options.Commands) -> None:
    description = "List, show, import and download models."
    parser = commands.add_parser(
        "models", help="list, show, import and download models", description=description
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_list(actions)
    _add_show(actions)
    _add_import(actions)
    _add_download(actions)


def _add_list(actions: _options.Commands) -> None:
    parser = _options.command(
        actions, "list", _list, "List the models that can be loaded.", "[FOLDER]"
    )
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="also those in this folder")


def _add_show(actions: _options.Commands) -> None:
    parser = _options.command(actions, "show", _show, "Show the card of a model.", "MODEL")
    parser.add_argument("name", metavar="MODEL", help="name or folder of a model")


def _add_import(actions: _options.Commands) -> None:
    parser = _options.command(
        actions, "import", _import, "Import a published Geneformer, Mouse- or Mix-Geneformer.",
        "FOLDER -o OUT [options]", overwrite="--force",
    )  # fmt: skip
    parser.add_argument("folder", metavar="FOLDER", help="config.json and model.safetensors")
    parser.add_argument("-o", "--output", dest="out", metavar="OUT", required=True,
                        help="folder of the checkpoint")  # fmt: skip
    parser.add_argument(
        "--force", dest="overwrite", action="store_true", help="replace OUT if it is there"
    )
    parser.add_argument("--token-dictionary", metavar="FILE", help="gene to token; looked for")
    parser.add_argument(
        "--gene-median", nargs="+", metavar="FILE", help="gene to median; looked for"
    )
    parser.add_argument("--gene-names", metavar="FILE", help="symbol to gene; looked for")
    parser.add_argument("--licence", default="not stated", help="under which it was published")
    _options.add_quiet(parser)


def _add_download(actions: _options.Commands) -> None:
    parser = _options.command(
        actions, "download", _download, "Download a model from the Hugging Face hub.",
        "REPOSITORY -o OUT [options]", out="--output",
    )  # fmt: skip
    parser.add_argument("repo_id", metavar="REPOSITORY", help="such as ctheodoris/Geneformer")
    parser.add_argument("-o", "--output", dest="out", metavar="OUT", required=True,
                        help="folder to put the files into")  # fmt: skip
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit; the newest")
    parser.add_argument("--folders", nargs="+", metavar="FOLDER", help="only these; all")
    _options.add_quiet(parser)


def _list(args: argparse.Namespace) -> None:
    from .. import models

    table = models.list(**_options.arguments(args))
    table["sha256"] = table["sha256"].str[:12]
    answer(table.to_string(index=False, formatters={"parameters": "{:,}".format}))


def _show(args: argparse.Namespace) -> None:
    from .. import models

    answer(models.card(args.name).rstrip())


def _import(args: argparse.Namespace) -> None:
    from .. import models

    model = models.import_geneformer(**_options.arguments(args))
    answer(f"{model!r}\nSaved in {args.out}.")


def _download(args: argparse.Namespace) -> None:
    from .. import models

    answer(f"Downloaded to {models.download(**_options.arguments(args))}.")
