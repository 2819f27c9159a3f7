"""What edits of genes do to cells, as the encoder sees it: exact effects, estimates, sums, store.

An effect compares a cell with its perturbed self: `original` and `perturbed` are the means over
the hidden states of a cell's genes, before and after. Effects are summed as they are computed;
nothing grows with the number of cells times the number of genes.
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._engine import Effects, Engine
    from ._formulas import FORMULAS, Formula, Measure
    from ._plan import Plan
    from ._screen import Screen
    from ._store import read_store
    from ._totals import PairTotals, Totals

__all__ = [
    "FORMULAS",
    "Effects",
    "Engine",
    "Formula",
    "Measure",
    "PairTotals",
    "Plan",
    "Screen",
    "Totals",
    "read_store",
]

_HOMES = {
    "FORMULAS": "_formulas",
    "Effects": "_engine",
    "Engine": "_engine",
    "Formula": "_formulas",
    "Measure": "_formulas",
    "PairTotals": "_totals",
    "Plan": "_plan",
    "Screen": "_screen",
    "Totals": "_totals",
    "read_store": "_store",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
