"""What the statistics of perturbation call when there is nothing to find, and what they find.

    python benchmarks/bench_nulls.py --sets 60 --out nulls

Counts are simulated: genes with donor effects, cells of eight donors, and where wanted a goal
state in which target genes change. The encoder is simulated, too: a cell's vector is the mean of
its genes' vectors plus a context, the mean of its genes' influences weighted by rank; deleting a
gene changes the context of all others. Where the encoder "knows" the drivers, their influence
points away from the goal state. So this shows what the tests do with shifts of known origin, not
what any model knows. Writes <out>_null.csv and <out>_drivers.csv and prints Markdown.

- random halves: the goal is a random half of each donor's cells.
- random donors: the states are two random sets of four donors that differ by donor effects only.
- idle encoder: the states differ, and the encoder knows no drivers.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from scmix import statistics
from scmix.statistics.published import goal_state_rank_sum

N_DIMENSIONS = 32
VARIANTS = {
    "(with unit state vectors)": {"all_donors": True, "unit_vectors": True},
    "(shifts of start donors alone)": {"all_donors": False, "unit_vectors": False},
}


@dataclass(frozen=True)
class World:
    """What is simulated: sizes, and how much donors, states and the encoder's knowledge weigh."""

    n_genes: int = 300
    n_per_state: int = 4
    n_cells: int = 30
    donor_sd: float = 0.4
    n_targets: int = 0
    n_drivers: int = 0
    knowledge: float = 0.0
    halves: bool = False


@dataclass(frozen=True, eq=False)
class Shifts:
    """One simulated experiment: shifts of single cells, and what the tests are given."""

    gene: np.ndarray  # of each perturbed cell
    row: np.ndarray  # of each perturbed cell: its donor in its state
    delta: np.ndarray  # (n_perturbed, H)
    vectors: np.ndarray  # (n_rows, H)
    is_goal: np.ndarray
    donors: np.ndarray
    rank: np.ndarray
    detection: np.ndarray
    log_change: np.ndarray
    is_driver: np.ndarray

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean shift and number of cells per row and gene."""
        n_rows, n_genes = len(self.is_goal), len(self.rank)
        n = np.zeros((n_rows, n_genes))
        np.add.at(n, (self.row, self.gene), 1)
        total = np.zeros((n_rows, n_genes, N_DIMENSIONS))
        np.add.at(total, (self.row, self.gene), self.delta)
        return total / np.maximum(n, 1)[:, :, None], n


def simulate(world: World, rng: np.random.Generator) -> Shifts:
    """Simulate counts, an encoder, and the deletion of every gene of every cell."""
    genes = rng.normal(size=(2, world.n_genes, N_DIMENSIONS))
    change = np.zeros(world.n_genes)
    special = rng.permutation(world.n_genes)
    targets = special[: world.n_targets]
    drivers = special[world.n_targets : world.n_targets + world.n_drivers]
    change[targets] = rng.choice([-1.5, 1.5], world.n_targets)
    change[drivers] = -0.5
    if world.n_drivers:
        away = -unit(change @ genes[0])
        genes[1][drivers] += world.knowledge * np.sqrt(N_DIMENSIONS) * away
    counts, row, is_goal, donors = simulate_counts(world, change, rng)
    perturbed = [(i, *delete_each(cell, *genes)) for i, cell in enumerate(counts)]
    whole = np.array([one[4] for one in perturbed])
    centre = whole.mean(axis=0)
    vectors = unit(whole - centre)
    means = np.array([vectors[row == r].mean(axis=0) for r in range(len(is_goal))])
    return Shifts(
        gene=np.concatenate([one[1] for one in perturbed]),
        row=np.repeat(row, [len(one[1]) for one in perturbed]),
        delta=np.concatenate([unit(one[3] - centre) - unit(one[2] - centre) for one in perturbed]),
        vectors=means,
        is_goal=is_goal,
        donors=donors,
        rank=-counts.mean(axis=0),
        detection=(counts > 0).mean(axis=0),
        log_change=log_change(counts, is_goal[row]),
        is_driver=np.isin(np.arange(world.n_genes), drivers),
    )


def simulate_counts(world: World, change: np.ndarray, rng: np.random.Generator) -> tuple:
    """Counts (n_cells, n_genes), row of each cell, and state and donor of each row."""
    n_donors = 2 * world.n_per_state
    base = rng.normal(-0.5, 1.2, world.n_genes)
    donor_effects = rng.normal(0, world.donor_sd, (n_donors, world.n_genes))
    if world.halves:
        donors, is_goal = np.repeat(np.arange(n_donors), 2), np.tile([False, True], n_donors)
    else:
        donors, is_goal = np.arange(n_donors), rng.permutation(np.arange(n_donors) % 2 == 1)
    row = np.repeat(np.arange(len(donors)), world.n_cells)
    level = base + donor_effects[donors] + change * is_goal[:, None]
    depth = rng.lognormal(0, 0.2, (len(row), 1))
    mean = depth * np.exp(level[row])
    return rng.poisson(mean * rng.gamma(3, 1 / 3, mean.shape)), row, is_goal, donors


def delete_each(counts: np.ndarray, own: np.ndarray, influence: np.ndarray) -> tuple:
    """Genes of a cell; its vector without each, before and after deletion; its vector."""
    genes = np.flatnonzero(counts)
    order = genes[np.argsort(-counts[genes], kind="stable")]
    weight = 1 / np.log2(2 + np.arange(len(order)))
    context = weight @ influence[order] / weight.sum()
    others = (own[order].sum(axis=0) - own[order]) / (len(order) - 1)
    pull = (weight / (weight.sum() - weight))[:, None] * (context - influence[order])
    return order, others + context, others + context + pull, own[order].mean(axis=0) + context


def log_change(counts: np.ndarray, in_goal: np.ndarray) -> np.ndarray:
    """Log fold change of mean counts per 10,000 between the cells of the states."""
    scaled = counts / counts.sum(axis=1, keepdims=True) * 1e4
    return np.log2((scaled[in_goal].mean(axis=0) + 1) / (scaled[~in_goal].mean(axis=0) + 1))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Divide by length."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def p_values(shifts: Shifts) -> dict[str, np.ndarray]:
    """P-values of every gene by each test."""
    deltas, n = shifts.means()
    paired = shifts.donors if len(set(shifts.donors)) < len(shifts.donors) else None
    null = statistics.state_null(deltas, n, shifts.vectors, shifts.is_goal, donors=paired)
    species = ["human"] * len(shifts.rank)
    matched = statistics.matched_null(null.effect, shifts.rank, shifts.detection, species)
    found = {"states shuffled over donors": null.p, "family-wise": null.p_family}
    found["both: states shuffled, matched genes"] = np.maximum(null.p, matched.p)
    if paired is None:
        for name, variant in VARIANTS.items():
            found[name] = shuffled(shifts, deltas, n, **variant)
    return found | {"matched genes": matched.p, "published rank-sum": rank_sum(shifts)}


def shuffled(
    shifts: Shifts, deltas: np.ndarray, n: np.ndarray, *, all_donors: bool, unit_vectors: bool
) -> np.ndarray:
    """P-values of variants of the test: which shifts count, and what is compared."""
    size, goals, there = len(shifts.is_goal), int(shifts.is_goal.sum()), n > 0
    values = []
    for chosen in combinations(range(size), goals):
        goal = np.isin(np.arange(size), chosen)
        means = [shifts.vectors[side].mean(axis=0) for side in (goal, ~goal)]
        direction = np.subtract(*(unit(mean) for mean in means) if unit_vectors else means)
        start = ~goal if all_donors else ~shifts.is_goal
        total = (deltas[start] @ direction * there[start]).sum(axis=0)
        values.append(np.abs(total / np.maximum(there[start].sum(axis=0), 1)))
        if (goal == shifts.is_goal).all():
            observed = values[-1]
    p = (np.array(values) >= observed * (1 - 1e-9)).mean(axis=0)
    return np.where(there[~shifts.is_goal].sum(axis=0) >= 3, p, np.nan)


def rank_sum(shifts: Shifts) -> np.ndarray:
    """The published test: shift towards the goal in each start cell, against all genes' cells."""
    goal = unit(shifts.vectors[shifts.is_goal].mean(axis=0))
    start = ~shifts.is_goal[shifts.row]
    table = goal_state_rank_sum(shifts.gene[start], shifts.delta[start] @ goal)
    p = table.set_index("Gene")["Goal_end_vs_random_pval"]
    return p.reindex(range(len(shifts.rank))).to_numpy()


def null_rates(n_sets: int, seed: int = 0) -> pd.DataFrame:
    """Share of genes called by each test where no gene moves cells to the goal."""
    worlds = {
        "random halves": World(halves=True, n_cells=15),
        "random donors": World(),
        "idle encoder": World(n_targets=40),
    }
    rows = []
    for name, world in worlds.items():
        for number in range(n_sets):
            shifts = simulate(world, np.random.default_rng([seed, number]))
            for test, p in p_values(shifts).items():
                adjusted = p if test == "family-wise" else statistics.benjamini_hochberg(p)
                called = np.nanmean(adjusted <= 0.05)
                rows.append((name, test, np.nanmean(p <= 0.05), called, called > 0))
    columns = ["world", "test", "genes p <= 0.05", "genes adjusted <= 0.05", "sets with a call"]
    grouped = pd.DataFrame(rows, columns=columns).groupby(["world", "test"], sort=False)
    means = grouped.mean()
    means.insert(1, "±", 1.96 * grouped["genes p <= 0.05"].sem())
    return means.reset_index()


def driver_precision(n_sets: int, knowledge: Iterable[float], seed: int = 1) -> pd.DataFrame:
    """Area under the precision-recall curve of drivers, by each ranking of the genes."""
    rows = []
    for strength in knowledge:
        world = World(n_targets=40, n_drivers=15, knowledge=strength)
        for number in range(n_sets):
            rng = np.random.default_rng([seed, number])
            shifts = simulate(world, rng)
            for name, ranking in rankings(shifts, rng).items():
                rows.append((strength, name, average_precision_score(shifts.is_driver, ranking)))
    table = pd.DataFrame(rows, columns=["knowledge", "ranking", "auprc"])
    grouped = table.groupby(["knowledge", "ranking"], sort=False)["auprc"]
    means = grouped.mean().to_frame()
    means["±"] = 1.96 * grouped.sem()
    return means.reset_index()


def rankings(shifts: Shifts, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Scores of genes, high first."""
    deltas, n = shifts.means()
    effect = statistics.state_null(deltas, n, shifts.vectors, shifts.is_goal).effect
    effect = np.nan_to_num(effect, nan=np.nanmin(effect))
    species = ["human"] * len(effect)
    z = statistics.matched_null(effect, shifts.rank, shifts.detection, species).z
    return {
        "effect": effect,
        "z among matched genes": np.nan_to_num(z),
        "differential expression": np.abs(shifts.log_change),
        "detection": shifts.detection,
        "random": rng.random(len(effect)),
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the simulations, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=60, help="simulated data sets of each kind")
    parser.add_argument("--out", default="nulls", help="prefix of the files")
    options = parser.parse_args(arguments)
    null = null_rates(options.sets)
    drivers = driver_precision(options.sets, (0.0, 0.5, 1.0))
    for name, table in (("null", null), ("drivers", drivers)):
        table.to_csv(f"{options.out}_{name}.csv", index=False)
        print(markdown(table) + "\n")


def markdown(table: pd.DataFrame) -> str:
    """Markdown of a table, numbers with three digits."""
    lines = [list(table.columns), ["---"] * table.shape[1]]
    for row in table.itertuples(index=False):
        lines.append([f"{value:.3f}" if isinstance(value, float) else str(value) for value in row])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
