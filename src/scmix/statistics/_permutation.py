"""Does a gene's edit move cells along the direction between two states more than donors would?"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._errors import InputError
from ._labellings import chunks, design, labellings

FEWEST_DONORS = 3
_CHUNK = 64  # labellings worked on at once
_TIE = 1 - 1e-9  # statistics that differ by rounding count as equal


@dataclass(frozen=True, eq=False)
class StateNull:
    """What `state_null` found.

    `effect` (n_genes,) is the mean over start donors of `per_donor` (n_start, n_genes), NaN where
    a donor has no cell with the gene. `p` and `p_family` (n_genes,) are NaN where fewer than three
    start donors have the gene, and everywhere when `inference` is `"descriptive"`: fewer than three
    donors in a state, or no shifts of goal donors. `p_family` is adjusted for having looked at all
    genes (max-T). `p_min` is the smallest p-value that the
    design can reach, `n_possible` the number of ways to hand out the states, `exact` whether all
    were used.
    """

    effect: NDArray[np.float64]
    per_donor: NDArray[np.float64]
    p: NDArray[np.float64]
    p_family: NDArray[np.float64]
    p_min: float
    n_possible: int
    exact: bool
    inference: str


def state_null(
    deltas: ArrayLike,
    n_cells: ArrayLike,
    donor_vectors: ArrayLike,
    is_goal: ArrayLike,
    *,
    donors: Sequence[Hashable] | None = None,
    n_permutations: int = 4999,
    seed: int = 0,
) -> StateNull:
    """Test shifts towards a goal state by handing the states out anew over donors.

    The effect of a gene is the mean over start donors of ``delta . (u_goal - u_start)``: the
    change in cosine with the goal minus that with the start, `u` being the unit vector of the
    mean over a state's donors. Under a new labelling everything is made again: both state vectors
    and the donors whose shifts count. Shifts are therefore needed for the cells of both states.
    With those of the start donors alone, the observed labelling is the only one in which every
    shift meets a start vector that its own donor is part of; as edits move cells away from where
    they were, such a test calls what is not there.

    Labellings are compared by the shift along the difference of the states' mean vectors, before
    these are brought to unit length: with unit vectors a labelling that mixes the states a little
    points almost where the true one does, at full length, and nothing could ever be extreme. When
    the states do differ, most genes get a small p, for hardly any shift is exactly at right angles
    to a real direction. The test says that the direction is no accident of donors;
    `matched_null` says whether the gene moves further along it than its like. Call a gene by both.

    Parameters
    ----------
    deltas
        Mean shift of the cells of a donor (n_rows, n_genes, n_dimensions), perturbed minus
        original unit vector. A row is a donor, or a donor in one state.
    n_cells
        Number of cells behind each mean (n_rows, n_genes); 0 where the donor has none.
    donor_vectors
        Mean over all cells of each row of their unit vectors (n_rows, n_dimensions), centred on
        something that does not depend on the states.
    is_goal
        Whether a row is in the goal state, else in the start state (n_rows,).
    donors
        Donor of each row. A donor with a row in each state swaps them with itself only (a paired
        design); others swap among themselves. Without it every row is a donor of its own.
    n_permutations
        Number of random labellings when there are more than 5,000, else all are used.
    seed
        Draws them.

    Returns
    -------
    A `StateNull`, with ``p = (1 + #{|T*| >= |T|}) / (1 + B)`` over B labellings other than the
    observed one.

    Raises
    ------
    InputError
        If shapes do not fit, a state has no donor, or a donor has two rows of one state.

    Examples
    --------
    >>> import numpy as np
    >>> from scmix.statistics import state_null
    >>> rng = np.random.default_rng(0)
    >>> is_goal = np.repeat([False, True], 4)
    >>> vectors = np.eye(8) / 4 + np.outer(is_goal, np.ones(8)) - np.outer(~is_goal, np.ones(8))
    >>> deltas = rng.normal(scale=0.01, size=(8, 2, 8))
    >>> deltas[:4, 0] += 0.1  # gene 0 moves start cells to the goal ...
    >>> deltas[4:, 0] += 0.02  # ... and has little left to do in goal cells
    >>> found = state_null(deltas, np.full((8, 2), 9), vectors, is_goal)
    >>> found.n_possible, found.exact, round(found.p_min, 4), round(float(found.p[0]), 4)
    (70, True, 0.0143, 0.0143)
    """
    shifts, vectors = np.asarray(deltas), np.asarray(donor_vectors, dtype=np.float64)
    if shifts.ndim != 3 or vectors.ndim != 2 or shifts.shape[2] != vectors.shape[1]:
        raise InputError(
            f"Found deltas {shifts.shape} and donor_vectors {vectors.shape}; expected "
            "(n_rows, n_genes, n_dimensions) and (n_rows, n_dimensions)."
        )
    return state_null_along(
        shifts @ vectors.T.astype(shifts.dtype),
        n_cells,
        vectors @ vectors.T,
        is_goal,
        donors=donors,
        n_permutations=n_permutations,
        seed=seed,
    )


def state_null_along(
    along: ArrayLike,
    n_cells: ArrayLike,
    gram: ArrayLike,
    is_goal: ArrayLike,
    *,
    donors: Sequence[Hashable] | None = None,
    n_permutations: int = 4999,
    seed: int = 0,
) -> StateNull:
    """The same as `state_null`, from shifts that are already projected on the rows' vectors.

    This is all the test needs, and a few numbers per gene and donor to keep.

    Parameters
    ----------
    along
        ``delta . v`` for the mean shift of each row and the vector of each row
        (n_rows, n_genes, n_rows).
    n_cells
        As in `state_null`.
    gram
        Products of the rows' vectors, ``v . v`` (n_rows, n_rows).
    is_goal, donors, n_permutations, seed
        As in `state_null`.

    Returns
    -------
    A `StateNull`.

    Raises
    ------
    InputError
        As in `state_null`.

    Examples
    --------
    >>> import numpy as np
    >>> from scmix.statistics import state_null, state_null_along
    >>> rng = np.random.default_rng(0)
    >>> deltas, vectors, is_goal = rng.normal(size=(6, 2, 5)), rng.normal(size=(6, 5)), [0, 1] * 3
    >>> one = state_null(deltas, np.ones((6, 2)), vectors, is_goal)
    >>> two = state_null_along(deltas @ vectors.T, np.ones((6, 2)), vectors @ vectors.T, is_goal)
    >>> bool((one.p == two.p).all())
    True
    """
    products, goal = np.asarray(gram, dtype=np.float64), np.asarray(is_goal, dtype=bool)
    present = np.asarray(n_cells) > 0
    _check_shapes(np.shape(along), present.shape, products, len(goal))
    _check_states(goal, donors)
    projected = np.where(present[:, :, None], np.asarray(along), 0).transpose(1, 0, 2)
    projected = np.ascontiguousarray(projected, dtype=np.float64)
    per_donor = _per_donor(projected, present, products, goal)
    enough = present[~goal].sum(axis=0) >= FEWEST_DONORS
    p = p_family = np.full(present.shape[1], np.nan)
    plan = design(goal, donors)
    others, exact = labellings(plan, n_permutations, np.random.default_rng(seed))
    descriptive = min(goal.sum(), (~goal).sum()) < FEWEST_DONORS or not present[goal].any()
    if not descriptive:
        statistic = partial(_statistic, projected, present)
        p, p_family = _p_values(statistic, goal, others, enough)
    return StateNull(
        effect=_mean(per_donor),
        per_donor=per_donor,
        p=p,
        p_family=p_family,
        p_min=1 / (1 + len(others)),
        n_possible=plan.n_possible,
        exact=exact,
        inference="descriptive" if descriptive else "permutation",
    )


def _check_shapes(
    along: tuple[int, ...], n_cells: tuple[int, ...], gram: NDArray[np.float64], n_rows: int
) -> None:
    if along != (*n_cells, n_rows) or len(n_cells) != 2 or n_cells[0] != n_rows:
        raise InputError(
            f"Found shifts of {along[0] if along else 0} rows, n_cells {n_cells} and {n_rows} rows "
            "in is_goal; expected as many rows in each, and (n_rows, n_genes) cells."
        )
    if gram.shape != (n_rows, n_rows) or not np.isfinite(gram).all():
        raise InputError(
            f"Found vectors of {len(gram)} rows, or numbers that are not finite; expected finite "
            f"vectors of {n_rows} rows. Leave out donors without a cell."
        )


def _check_states(goal: NDArray[np.bool_], donors: Sequence[Hashable] | None) -> None:
    if goal.all() or not goal.any():
        raise InputError("Found donors of one state only; expected donors of start and of goal.")
    if donors is not None:
        units = list(zip(donors, goal.tolist(), strict=True))
        twice = [name for name, _ in units if units.count((name, True)) > 1]
        twice += [name for name, _ in units if units.count((name, False)) > 1]
        if twice:
            raise InputError(
                f"Found donor {twice[0]!r} twice in one state; expected one row per donor and "
                "state. Average its rows first."
            )


def _per_donor(
    projected: NDArray, present: NDArray, gram: NDArray, goal: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Shift of the start donors along u_goal - u_start, NaN where one lacks the gene."""
    direction = np.zeros(len(goal))
    for side, sign in ((goal.astype(float), 1), ((~goal).astype(float), -1)):
        length = np.sqrt(max(side @ gram @ side, np.finfo(float).tiny))
        direction += sign * side / length
    return np.where(present[~goal], (projected[:, ~goal] @ direction).T, np.nan)


def _statistic(
    projected: NDArray, present: NDArray, goal: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Mean over start donors of the shift along the states' difference (n_genes, n_labellings).

    Zero where no start donor has the gene.
    """
    mean = goal / goal.sum(axis=1, keepdims=True) - ~goal / (~goal).sum(axis=1, keepdims=True)
    weights = (~goal)[:, :, None] * mean[:, None, :]
    total = projected.reshape(len(projected), -1) @ weights.reshape(len(goal), -1).T
    return total / np.maximum(present.T.astype(float) @ (~goal).T, 1)


def _p_values(
    statistic: Callable[[NDArray], NDArray],
    goal: NDArray[np.bool_],
    others: NDArray[np.bool_],
    enough: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P-values of single genes, and family-wise ones (max-T, Westfall & Young 1993).

    For the maximum each gene's statistic is divided by its root mean square over all labellings,
    so that no gene dominates by its scale.
    """
    observed = np.abs(statistic(goal[None])[:, 0])
    extreme, squares = np.zeros(len(observed)), observed**2
    for block in chunks(others, _CHUNK):
        values = np.abs(statistic(block))
        extreme += (values >= observed[:, None] * _TIE).sum(axis=1)
        squares += (values**2).sum(axis=1)
    scale = np.sqrt(squares / (1 + len(others)))
    scale[(scale == 0) | ~enough] = np.inf
    largest = [(np.abs(statistic(b)) / scale[:, None]).max(axis=0) for b in chunks(others, _CHUNK)]
    beaten = np.concatenate(largest)[None] >= (observed / scale)[:, None] * _TIE
    p = (1 + extreme) / (1 + len(others))
    p_family = (1 + beaten.sum(axis=1)) / (1 + len(others))
    return np.where(enough, p, np.nan), np.where(enough, p_family, np.nan)


def _mean(per_donor: NDArray[np.float64]) -> NDArray[np.float64]:
    found = ~np.isnan(per_donor)
    total = np.where(found, per_donor, 0).sum(axis=0)
    return np.divide(
        total, found.sum(axis=0), out=np.full(total.shape, np.nan), where=found.any(axis=0)
    )
