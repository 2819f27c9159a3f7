"""Sets of genes that are edited together, however the genes are named."""

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations
from typing import TypeVar

from ._errors import InputError

Gene = TypeVar("Gene", bound=Hashable)


def pairs(genes: Sequence[Gene]) -> list[tuple[Gene, Gene]]:
    """All pairs of a list of genes, however they are named.

    Examples
    --------
    >>> pairs(["GATA4", "TBX5", "MEF2C"])
    [('GATA4', 'TBX5'), ('GATA4', 'MEF2C'), ('TBX5', 'MEF2C')]
    """
    check_distinct(genes)
    return list(combinations(genes, 2))


def with_anchor(anchor: Gene, genes: Sequence[Gene]) -> list[tuple[Gene, Gene]]:
    """An anchor gene with each other gene of a list; the anchor itself may be in it.

    Examples
    --------
    >>> with_anchor("GATA4", ["TBX5", "GATA4", "MEF2C"])
    [('GATA4', 'TBX5'), ('GATA4', 'MEF2C')]
    """
    check_distinct(genes)
    return [(anchor, gene) for gene in genes if gene != anchor]


def check_distinct(genes: Sequence[Hashable]) -> None:
    """Refuse a list that names a gene twice."""
    twice = [str(gene) for gene, n in Counter(genes).items() if n > 1]
    if twice:
        raise InputError(f"Found {', '.join(twice)} twice; expected every gene once in a set.")
