"""The tokens (and counts) of the cells that stay; with medians of the corpus, ranked by them."""

from pathlib import Path
from typing import Any

import numpy as np

from ..._counts import csr
from ...batches import Sequences
from ...genes import Vocabulary
from ...ranks import rank_encode
from .._store import file_entries
from .arrays import growing_arrays
from .cells import Kept
from .counts import aligned_counts
from .plan import Plan


def write_shard(
    plan: Plan,
    kept: Kept,
    vocabulary: Vocabulary,
    bounds: tuple[int, int],
    folder: Path,
) -> None:
    """Write the cells from the first of ``bounds`` to before the second.

    Parameters
    ----------
    plan, kept
        What is built, and which cells stay.
    vocabulary
        Whose medians genes are ranked by, if parts are to be ranked again.
    bounds
        Numbers of cells, counted over all parts.
    folder
        Where to.
    """
    dtypes: dict[str, Any] = {"tokens": plan.token_dtype}
    if plan.values:
        dtypes["counts"] = counts_dtype(kept)
    with growing_arrays(folder, dtypes) as arrays:
        for part, rows in kept.between(*bounds):
            for some, cells, counts in part.read(rows):
                if plan.ranks_again:
                    species = part.array("species")[some]
                    cells, counts = _rank(cells, counts, species, vocabulary, plan)
                arrays["tokens"].append(cells.tokens)
                if plan.values:
                    arrays["counts"].append(counts)
    plan.note(folder.stem, {"files": file_entries(folder)})


def counts_dtype(kept: Kept) -> np.dtype:
    """The smallest type that holds the counts of all parts."""
    reports = [part.report for part in kept.parts]
    if not all(report["whole"] for report in reports):
        return np.dtype(np.float32)
    largest = max(report["largest"] for report in reports)
    return np.dtype(np.uint16 if largest < 2**16 else np.uint32)


def _rank(
    cells: Sequences, counts: np.ndarray, species: np.ndarray, vocabulary: Vocabulary, plan: Plan
) -> tuple[Sequences, np.ndarray]:
    """Rank whole cells by other medians."""
    shape = (len(cells), vocabulary.n_tokens)
    # no gene twice in a cell; that genes are not in order does not matter to ranking
    matrix = csr(counts, cells.tokens, cells.indptr, shape, canonical=True)
    tokens = np.arange(vocabulary.n_tokens, dtype=np.int32)
    ranks = rank_encode(
        matrix, tokens, vocabulary.medians, species, n_genes=plan.n_genes or plan.part_genes
    )
    return ranks, aligned_counts(matrix, tokens, ranks)
