"""`scmix embed`: a vector per cell."""

import argparse

from . import _options
from ._output import CELLS, check_output, when_complete
from ._words import is_first_process


def add(commands: _options.Commands) -> None:
    parser = _options.command(
        commands,
        "embed",
        _run,
        "Embed cells with a pretrained encoder, from raw counts.",
        "IN -o OUT [options]",
    )
    _options.add_input(parser)
    _options.add_output(parser, "the same cells with the vectors in obsm: .h5ad, or .zarr")
    parser.add_argument(
        "--model", default="scmix-mini", help="name or folder of a model (default: %(default)s)"
    )
    _options.add_pooling(_options.add_cells(parser))
    _options.add_machine(parser)
    _options.add_result(parser, "X_scmix")
    _options.add_quiet(parser)


def _run(args: argparse.Namespace) -> None:
    target = check_output(args.output, CELLS, force=args.force)
    from .. import tl
    from ._cells import opened

    with opened(args.input) as cells:
        tl.embed(cells.adata, **_options.arguments(args))
        if is_first_process():
            with when_complete(target, force=args.force) as partial:
                cells.write(partial)
