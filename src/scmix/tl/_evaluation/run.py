"""All methods on all splits."""

from collections.abc import Sequence

import pandas as pd
from tqdm.auto import tqdm

from ...settings import settings
from .cells import Cells
from .folds import Fold
from .methods import Method
from .scores import Outcome, Table, outcome, predict, seed_rows
from .splits import Design


def run(
    cells: Cells, designs: Sequence[Design], methods: Sequence[Method], reference: Method
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of every method on every design, and of every seed.

    Parameters
    ----------
    cells
        Labelled cells.
    designs
        What is tested on what.
    methods
        Rows of the table, in their order.
    reference
        The one of `methods` that leads are measured from.
    """
    usable = [method for method in methods if not method.missing]
    n_steps = len(usable) * sum(len(design.by_seed) for design in designs)
    rows, by_seed = [], []
    with tqdm(total=n_steps, unit="run", disable=not settings.progress, leave=False) as bar:
        for design in designs:
            found = outcomes(cells, design, usable, bar)
            groups = None if cells.groups is None else cells.groups[design.tested]
            table = Table(design, cells.codes[design.tested], len(cells.names), groups)
            for method in methods:
                if method.missing:
                    rows.append(table.missing(method))
                    continue
                rows.append(table.row(method, found[method], found[reference]))
                by_seed.extend(seed_rows(method, design, found[method]))
    return pd.DataFrame(rows), pd.DataFrame(by_seed)


def outcomes(
    cells: Cells, design: Design, methods: Sequence[Method], bar: tqdm
) -> dict[Method, dict[int, Outcome]]:
    """What each method predicted with each seed; all see the same folds."""
    found: dict[Method, dict[int, Outcome]] = {method: {} for method in methods}
    truth = cells.codes[design.tested]
    for seed, parts in design.by_seed.items():
        folds = [Fold(cells, split) for split in parts]
        for method in methods:
            before = found[method]
            if before and design.fixed and not method.seeded:
                before[seed] = next(iter(before.values()))  # nothing differs
            else:
                before[seed] = outcome(method, predict(method, folds), truth)
            bar.update()
    return found
