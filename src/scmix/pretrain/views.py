"""What the encoder reads in a step: one or more packed views of the same cells."""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ..batches import Sequences, add_special, positions
from ..genes import Vocabulary
from .corpus import Corpus
from .masking import Masker
from .recipes import Recipe
from .sampling import Sampler

VIEWS = ("masked", "again", "subset", "full", "swapped")
_SAMPLING, _VIEWS = 0, 1  # independent streams of random numbers from one seed


class Views:
    """Builds the views of some cells.

    ====== =====
    view    what it is
    ====== =====
    masked  genes hidden, as the masked language model needs them
    again   the same tokens as in ``masked``: the encoder's dropout makes it another view
    subset  a random part of the cell's genes, nothing hidden; of a share ``recipe.subset_swapped``
            of the cells, written in the other species' genes
    full    the cell as it is
    swapped the cell as one of the other species: genes become their one-to-one orthologues,
            those without one are left out, and so the species token
    ====== =====

    With ``recipe.simcse_views == "subset"`` the masked view is a random part of the genes too.
    """

    def __init__(self, vocabulary: Vocabulary, recipe: Recipe, names: Collection[str]) -> None:
        self.vocabulary = vocabulary
        self.recipe = recipe
        self.names = [name for name in VIEWS if name in names]
        self._prefixes = [*vocabulary.prefix(0), *vocabulary.prefix(1)]
        self.masker = Masker(
            vocabulary,
            share=recipe.mask_share,
            masked=recipe.mask_masked,
            replaced=recipe.mask_replaced,
        )

    def build(
        self, cells: Sequences, species: np.ndarray, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Views of the cells, with the targets of the masked one."""
        out: dict[str, Any] = {"views": {}, "species": torch.from_numpy(species.astype(np.int64))}
        first = cells
        if "subset" in self.names:
            first = random_part(cells, rng, *self.recipe.subset_share)
        for name in self.names:
            if name == "masked":
                out["views"]["masked"], out["targets"] = self._masked(first, species, rng)
            elif name == "again":
                out["views"]["again"] = out["views"]["masked"]
            elif name == "subset":
                part = random_part(cells, rng, *self.recipe.subset_share)
                swap = rng.random(len(cells)) < self.recipe.subset_swapped
                part, written = swap_species(part, species, self.vocabulary, swap)
                out["views"]["subset"] = self._view(part, written, rng)
            elif name == "full":
                out["views"]["full"] = self._view(cells, species, rng)
            else:
                other, written = swap_species(cells, species, self.vocabulary)
                out["views"]["swapped"] = self._view(other, written, rng)
        return out

    def _masked(
        self, cells: Sequences, species: np.ndarray, rng: np.random.Generator
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        whole, order = _longest_first(self._with_special(cells, species, rng))
        masked = self.masker(whole.tokens, np.repeat(species[order], whole.lengths), rng)
        targets = {
            "positions": torch.from_numpy(masked.positions),
            "labels": torch.from_numpy(masked.labels.astype(np.int64)),
        }
        return self._tensors(Sequences(masked.tokens, whole.indptr), order), targets

    def _with_special(
        self, cells: Sequences, species: np.ndarray, rng: np.random.Generator
    ) -> Sequences:
        recipe = self.recipe
        whole = add_special(
            cells,
            self.vocabulary,
            species,
            use_species=rng.random(len(cells)) >= recipe.species_token_dropout,
            max_length=recipe.max_length,
        )
        excess = np.where(whole.lengths > recipe.length_multiple, whole.lengths, 0)
        n = whole.lengths - excess % recipe.length_multiple
        return _kept(whole, positions(whole.indptr) < np.repeat(n, whole.lengths))

    def _view(
        self, cells: Sequences, species: np.ndarray, rng: np.random.Generator
    ) -> dict[str, Any]:
        return self._tensors(*_longest_first(self._with_special(cells, species, rng)))

    def _tensors(self, sequences: Sequences, order: np.ndarray) -> dict[str, Any]:
        """Tensors of one view; which tokens are pooled, where each cell's genes start.

        ``place`` says where in the view each cell of the batch stands.
        """
        tokens, indptr = sequences.tokens, sequences.indptr
        keep = ~np.isin(tokens, self.vocabulary.special_ids)
        n_kept = np.diff(np.concatenate([[0], np.cumsum(keep)])[indptr])
        keep |= np.repeat(n_kept == 0, sequences.lengths)  # a tiny cell, all masked: pool the masks
        first = indptr[:-1].copy()
        for _ in self.vocabulary.prefix(0):
            first += np.isin(tokens[np.minimum(first, tokens.size - 1)], self._prefixes)
        return {
            "tokens": torch.from_numpy(tokens.astype(np.int64)),
            "keep": torch.from_numpy(keep),
            "place": torch.from_numpy(np.argsort(order)),
            "first": torch.from_numpy(first),
            "indptr": indptr.tolist(),  # a list stays on the host, where it is needed
        }


def _longest_first(cells: Sequences) -> tuple[Sequences, np.ndarray]:
    """Sort by length, so that cells of equal length attend in one call; also the order."""
    order = np.argsort(-cells.lengths, kind="stable")
    return cells[order], order


def random_part(cells: Sequences, rng: np.random.Generator, low: float, high: float) -> Sequences:
    """Keep each gene of a cell with a probability drawn for the cell from [low, high].

    Order is kept, and at least one gene of every cell that has any.
    """
    lengths = cells.lengths
    chance = np.repeat(rng.uniform(low, high, len(cells)), lengths)
    draw = rng.random(cells.tokens.size)
    keep = draw < chance
    empty = (lengths > 0) & (np.add.reduceat(np.append(keep, False), cells.indptr[:-1]) == 0)
    keep[cells.indptr[:-1][empty]] = True
    return _kept(cells, keep)


def swap_species(
    cells: Sequences,
    species: np.ndarray,
    vocabulary: Vocabulary,
    which: np.ndarray | None = None,
) -> tuple[Sequences, np.ndarray]:
    """Replace every gene by its one-to-one orthologue in the other species, or leave it out.

    Cells that are not in ``which`` (bool, shape ``(n,)``), or that have no gene with an orthologue,
    stay as they are. Also returns the species in whose genes each cell is written now.
    """
    other = np.repeat(1 - species, cells.lengths)
    tokens = vocabulary.orthologues[other, cells.tokens]
    n_kept = np.diff(np.concatenate([[0], np.cumsum(tokens >= 0)])[cells.indptr])
    swap = (n_kept > 0) & (True if which is None else which)
    tokens = np.where(np.repeat(swap, cells.lengths), tokens, cells.tokens)
    return _kept(Sequences(tokens, cells.indptr), tokens >= 0), np.where(swap, 1 - species, species)


def _kept(cells: Sequences, keep: np.ndarray) -> Sequences:
    ends = np.concatenate([[0], np.cumsum(keep)])
    return Sequences(cells.tokens[keep], ends[cells.indptr])


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
        self.corpus, self.recipe = corpus, recipe
        self.views = Views(corpus.vocabulary, recipe, names)
        self.start, self.rank, self.world = 0, rank, world
        n_special = len(corpus.vocabulary.prefix(0)) + len(corpus.vocabulary.suffix())
        self.sampler = Sampler(
            corpus.species,
            corpus.dataset,
            np.minimum(corpus.lengths + n_special, recipe.max_length),
            tokens_per_step=recipe.tokens_per_step,
            seed=_seed(recipe.seed, _SAMPLING),
            datasets_per_step=recipe.datasets_per_step,
        )

    def __iter__(self):
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        step = self.start + first
        while True:
            yield self.batch(step)
            step += stride

    def batch(self, step: int) -> dict[str, Any]:
        """The batch that this process trains on at a step."""
        number = step * self.world + self.rank
        rows = self.sampler.rows(number)
        rng = np.random.default_rng([_seed(self.recipe.seed, _VIEWS), number])
        species = self.corpus.species[rows]
        batch = self.views.build(self.corpus.sequences(rows), species, rng)
        batch["dataset"] = torch.from_numpy(self.corpus.dataset[rows].astype(np.int64))
        return {**batch, "number": number, "rows": rows.tolist()}


def _seed(seed: int, purpose: int) -> int:
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0])
