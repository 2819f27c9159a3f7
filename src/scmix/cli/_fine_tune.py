"""`scmix fine-tune`: a classifier of cells."""

import argparse

from .._errors import InputError
from . import _options
from ._output import check_folder
from ._words import answer


def add(commands: _options.Commands) -> None:
    parser = _options.command(
        commands,
        "fine-tune",
        _run,
        "Train a classifier of cells from labelled ones.",
        "IN LABEL [LABEL ...] -o OUT [options]",
        out="--run",
    )
    _options.add_input(parser)
    parser.add_argument(
        "label_key", nargs="+", metavar="LABEL", help="column of obs with labels, or several"
    )
    _options.add_output(parser, "folder of the classifier, for `scmix annotate`")
    add = parser.add_argument_group("training").add_argument
    add("--groups", metavar="COLUMN", help="column of obs with donors or batches, kept together")
    add("--validation-key", metavar="COLUMN", help="column of obs that says which cells to set "
        "aside: train, validation or test")  # fmt: skip
    add("--model", default="scmix-mini", help="name or folder to start from (default: %(default)s)")
    add("--recipe", default="fast", help="fast (the encoder stays as it is), tuned (its layers are "
        "trained, too) or paper (default: %(default)s)")  # fmt: skip
    add("--n-genes", type=int, metavar="N", help="most genes read of a cell")
    add("--seed", type=int, default=0, metavar="N", help="of all chance (default: %(default)s)")
    add("--run", dest="out", metavar="FOLDER", help="keep checkpoints here: a run that was "
        "interrupted goes on from them when it is started again")  # fmt: skip
    add("--device", help="auto (a GPU if there is one), cpu, cuda, cuda:1, mps")
    _options.add_settings(parser, "epochs, learning_rate, lora_rank, ...")
    _options.add_cells(parser)
    _options.add_quiet(parser)


def _run(args: argparse.Namespace) -> None:
    target = check_folder(args.output, force=args.force)
    options = _options.arguments(args)
    settings = _options.settings(args.set)
    repeated = sorted(options.keys() & settings.keys())
    if repeated:
        flag = f"--{repeated[0].replace('_', '-')}"
        raise InputError(f"Found --set {repeated[0]}; expected {flag} for it.")
    from .. import tl
    from ._cells import opened

    with opened(args.input) as cells:
        classifier = tl.fine_tune(cells.adata, **options, **settings)
    classifier.save(target, overwrite=args.force)
    answer(f"{classifier!r}\nSaved in {target}.")
