"""`scmix perturb`: genes deleted or moved, and how the cells move."""

import argparse

from . import _options
from ._output import CELLS, TABLES, check_output, when_complete
from ._words import is_first_process


def add(commands: _options.Commands) -> None:
    parser = _options.command(
        commands,
        "perturb",
        _run,
        "Delete or move genes in silico, and measure how cells move.",
        "IN -o OUT [options]",
    )
    _options.add_input(parser)
    _options.add_output(
        parser, "the same cells with scores in uns: .h5ad, or .zarr; or only the scores: .csv"
    )
    parser.add_argument(
        "--model", default="scmix-mini", help="name or folder of a model (default: %(default)s)"
    )
    _add_genes(parser)
    _add_states(parser)
    _add_extent(parser)
    _options.add_pooling(_options.add_cells(parser))
    _options.add_machine(parser)
    _options.add_result(parser, "perturbation")
    _options.add_quiet(parser)


def _add_genes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("genes").add_argument
    add(
        "--genes", nargs="+", default="all", metavar="GENE",
        help="symbols or Ensembl ids, each by itself; A+B: both together (default: all, one by "
        "one)",
    )  # fmt: skip
    add(
        "--kind", default="delete",
        help="delete, overexpress, inhibit or activate (default: %(default)s)",
    )  # fmt: skip
    add("--by", type=float, default=1, metavar="X", help="how far inhibit and activate go")
    add("--unit", default="quartiles", help="unit of --by (default: %(default)s)")
    add("--anchor", metavar="GENE", help="with all genes: one to perturb together with each")
    add(
        "--readmit", action=argparse.BooleanOptionalAction, default=True,
        help="deletion lets the next gene of a long cell in",
    )  # fmt: skip
    add("--vectors-of", nargs="+", default=(), metavar="GENE", help="keep cells before and after")


def _add_states(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("states").add_argument
    add("--state-key", metavar="COLUMN", help="column of obs with states")
    add("--start", metavar="STATE", help="whose cells are perturbed")
    add("--goal", metavar="STATE", help="to which they should move")
    add("--other-states", nargs="+", default=(), metavar="STATE", help="more to measure towards")
    add("--donor-key", metavar="COLUMN", help="column of obs with donors, the replicates")
    add(
        "--effects", choices=("cells", "genes"), default="cells",
        help="measure cells, or also every other gene (default: %(default)s)",
    )  # fmt: skip
    add(
        "--formula", default="centred",
        help="centred, geneformer_v1 or geneformer_v2 (default: %(default)s)",
    )  # fmt: skip


def _add_extent(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("extent").add_argument
    number = _options.number_or_word
    add("--screen", type=number, default="auto", metavar="N", help="genes that are run exactly, "
        "after estimates for all; none: all exactly; auto: 200 where it can be done")  # fmt: skip
    add("--n-sample", type=int, default=100, metavar="N", help="others, to judge the estimates "
        "(default: %(default)s)")  # fmt: skip
    add("--test-states", action=argparse.BooleanOptionalAction, default=True,
        help="perturb goal cells too, for p-values")  # fmt: skip
    add("--max-cells", type=number, default=1000, metavar="N", help="most of a state, or none "
        "(default: %(default)s)")  # fmt: skip
    add("--min-cells", type=int, default=10, metavar="N", help="fewest that have a gene "
        "(default: %(default)s)")  # fmt: skip
    add("--n-permutations", type=int, default=4999, metavar="N", help="most labellings of donors "
        "(default: %(default)s)")  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="of all chance (default: %(default)s)")
    add("--store", metavar="FOLDER", help="keep effects here: a run that was killed goes on")


def _run(args: argparse.Namespace) -> None:
    target = check_output(args.output, CELLS + TABLES, force=args.force)
    if args.genes != "all":
        args.genes = _sets(args.genes)
    from .. import tl
    from ._cells import opened
    from ._tables import write_table

    with opened(args.input) as cells:
        tl.perturb(cells.adata, **_options.arguments(args))
        if not is_first_process():
            return
        with when_complete(target, force=args.force) as partial:
            if target.name.endswith(CELLS):
                cells.write(partial)
            else:
                write_table(cells.adata.uns[args.key_added]["scores"], partial)


def _sets(genes: list[str]) -> "str | list[str] | list[list[str]]":
    """`all`, single genes, or sets as soon as there is one."""
    if genes == ["all"]:
        return "all"
    if any("+" in gene for gene in genes):
        return [gene.split("+") for gene in genes]
    return genes
