"""Batches of a corpus, each a function of the seed and its number."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ._recipe import Recipe
from .corpus import Corpus
from .profiles import Profile, check_values
from .sampling import Sampler
from .views import Views

_SAMPLING, _VIEWS = 0, 1  # independent streams of random numbers from one seed


class Stream(IterableDataset):
    """Batches of a corpus from step ``start`` on; batch ``i`` depends on the seed and ``i`` only.

    With several processes, process ``rank`` of ``world`` takes batches ``rank``, ``rank + world``,
    and so on; workers of a data loader share a process's batches in turn.
    """

    def __init__(
        self,
        corpus: Corpus,
        recipe: Recipe,
        names: Collection[str],
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        check_values(corpus, recipe)
        self.corpus, self.recipe = corpus, recipe
        self.views = Views(corpus.vocabulary, recipe, names)
        self.start, self.rank, self.world = 0, rank, world
        n_special = len(corpus.vocabulary.prefix(0)) + len(corpus.vocabulary.suffix())
        self.sampler = Sampler(
            corpus.species,
            corpus.stratum,
            view_lengths(corpus.lengths, recipe, names, n_special),
            tokens_per_step=recipe.tokens_per_step,
            seed=_seed(recipe.seed, _SAMPLING),
            datasets_per_step=recipe.datasets_per_step,
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        step = self.start + first
        while True:
            yield self.batch(step)
            step += stride

    def batch(self, step: int) -> dict[str, Any]:
        """The batch that this process trains on at a step."""
        number = step * self.world + self.rank
        rng = np.random.default_rng([_seed(self.recipe.seed, _VIEWS), number])
        return {**self.assemble(self.sampler.rows(number), rng), "number": number}

    def assemble(self, rows: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        """The batch of some cells."""
        species = self.corpus.species[rows]
        with_values = "values" in self.recipe.needs
        profile = Profile.read(self.corpus, rows) if with_values else None
        cells = self.corpus.sequences(rows) if profile is None else profile.genes
        batch = self.views.build(cells, species, rng, profile)
        batch["dataset"] = torch.from_numpy(self.corpus.dataset[rows].astype(np.int64))
        return {**batch, "rows": rows.tolist()}


def view_lengths(
    lengths: np.ndarray, recipe: Recipe, names: Collection[str], n_special: int
) -> np.ndarray:
    """Tokens of each cell in the longest view, int64.

    A view that shows a part is counted with the part's size where it is known beforehand, as far as
    it is read alone: the other views hold the whole cell, or nearly.
    """
    whole = np.minimum(lengths + n_special, recipe.max_length)
    if set(names) == {"panel"}:
        n_shown = float(np.mean(recipe.restore_genes)) * (1 - float(np.mean(recipe.restore_share)))
        return np.full_like(whole, min(round(n_shown) + n_special, recipe.max_length))
    if set(names) == {"visible"}:
        shown = np.rint(lengths * (1 - recipe.hide_nonzero)).astype(np.int64)
        return np.minimum(np.maximum(shown, 1) + n_special, recipe.max_length)
    if set(names) == {"part"}:
        shares = {
            "keep_k": np.minimum(1.0, recipe.keep_k / np.maximum(lengths, 1)),
            "subset": np.full(lengths.shape, np.mean(recipe.subset_share)),
            "uniform": np.full(lengths.shape, 1 - recipe.mask_share),
            "nonzero_zero": np.full(lengths.shape, 1 - recipe.hide_nonzero),
        }
        part = np.rint(lengths * shares[recipe.part_masker]).astype(np.int64)
        return np.minimum(np.maximum(part, 1) + n_special, recipe.max_length)
    return whole


def _seed(seed: int, purpose: int) -> int:
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0])
