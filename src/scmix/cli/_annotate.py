"""`scmix annotate`: a label per cell."""

import argparse

from . import _options
from ._output import CELLS, TABLES, check_output, when_complete
from ._words import is_first_process


def add(commands: _options.Commands) -> None:
    parser = _options.command(
        commands,
        "annotate",
        _run,
        "Label cells with a classifier, from raw counts.",
        "IN CLASSIFIER -o OUT [options]",
    )
    _options.add_input(parser)
    parser.add_argument(
        "classifier", metavar="CLASSIFIER", help="the folder that `scmix fine-tune` has written"
    )
    _options.add_output(
        parser, "the same cells with labels: .h5ad, or .zarr; or only the labels: .csv, .csv.gz"
    )
    _add_rules(parser)
    _options.add_cells(parser)
    _options.add_machine(parser)
    _options.add_result(parser, "scmix_label")
    _options.add_quiet(parser)


def _add_rules(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("labels").add_argument
    add("--label-key", metavar="NAME", help="which label, for a classifier of several; all")
    add("--reject", choices=("distance", "conformal"), help="how cells become unknown; never")
    add(
        "--alpha", type=float, default=0.1, metavar="SHARE",
        help="most known cells lost to unknown, or sets that miss the label (default: %(default)s)",
    )  # fmt: skip
    add("--sets", choices=("lac", "aps"), help="also write the classes that are possible")
    add("--by-class", action="store_true", help="thresholds for each class by its own cells")
    add(
        "--smooth", nargs="?", const=True, default=False, metavar="KEY",
        help="let neighbours vote: in the graph of scanpy.pp.neighbors, in the one of this key, or "
        "in the clusters of this column of obs",
    )  # fmt: skip


def _run(args: argparse.Namespace) -> None:
    target = check_output(args.output, CELLS + TABLES, force=args.force)
    from .. import tl
    from ._cells import opened
    from ._tables import columns_of, write_table

    with opened(args.input) as cells:
        tl.annotate(cells.adata, **_options.arguments(args))
        if not is_first_process():
            return
        with when_complete(target, force=args.force) as partial:
            if target.name.endswith(CELLS):
                cells.write(partial)
            else:
                write_table(columns_of(cells.adata.obs, args.key_added), partial, index="cell")
