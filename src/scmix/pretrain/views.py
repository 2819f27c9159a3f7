"""What the encoder reads in a step: one or more packed views of the same cells."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch

from ..batches import Sequences, add_special, positions, ranges
from ..genes import Vocabulary
from ._cells import Cells, swap_species
from ._recipe import Recipe
from .maskers import Masked, Masker, NonzeroZero, Subset, Uniform, make_part_masker, masked_as
from .profiles import Profile
from .value_views import Asked, expressed, panel

View = dict[str, Any]


class Views:
    """Builds the views of some cells.

    ====== =====
    view    what it is
    ====== =====
    masked  genes hidden in place, as the masked language model needs them
    again   the same tokens as in ``masked``: the encoder's dropout makes it another view
    subset  a random part of the cell's genes, nothing hidden; of a share ``recipe.subset_swapped``
            of the cells, written in the other species' genes
    valued  the cell as it is, with ``hidden``: genes of which the value is to be predicted
    part    the genes that ``recipe.part_masker`` leaves visible, and nothing else
    visible expressed genes that are not hidden, of some cells with thinned counts (`expressed` in
            `value_views`)
    panel   a random choice of measured genes, zeros too, of which a part is hidden (`panel` there)
    full    the cell as it is
    swapped the cell as one of the other species: genes become their one-to-one orthologues,
            those without one are left out, and so the species token
    ====== =====

    With ``subset`` among the names the masked view is a random part of the genes too.

    Parameters
    ----------
    vocabulary
        Says which tokens are special, and which species has which gene.
    recipe
        Says how genes are hidden, and how long a view may be.
    names
        Views to build.
    """

    def __init__(self, vocabulary: Vocabulary, recipe: Recipe, names: Collection[str]) -> None:
        self.vocabulary, self.recipe = vocabulary, recipe
        builders: dict[str, Callable[..., None]] = {
            "masked": self._masked,
            "again": self._again,
            "subset": self._subset,
            "part": self._part,
            "valued": self._valued,
            "visible": self._visible,
            "panel": self._panel,
            "full": self._full,
            "swapped": self._swapped,
        }
        self.builders = {name: build for name, build in builders.items() if name in names}
        self._prefixes = [*vocabulary.prefix(0), *vocabulary.prefix(1)]
        self._random_part = Subset(*recipe.subset_share)
        self.part_masker = make_part_masker(recipe)
        self.masker = Masker(
            vocabulary,
            share=recipe.mask_share,
            masked=recipe.mask_masked,
            replaced=recipe.mask_replaced,
        )

    def build(
        self,
        cells: Sequences,
        species: np.ndarray,
        rng: np.random.Generator,
        profile: Profile | None = None,
    ) -> dict[str, Any]:
        """Views of the cells, with what is to be predicted from them.

        Parameters
        ----------
        cells
            Gene tokens by rank.
        species
            Species code of each cell.
        rng
            Source of all choices.
        profile
            The same cells with their counts, for recipes that need values.

        Returns
        -------
        ``views``: for each its ``tokens``, which of them are pooled (``keep``), where each cell of
        the batch stands (``place``), where its genes start (``first``), ``indptr``, and with a
        profile ``values``, zero where no gene is shown. ``targets``: positions and labels of the
        masked view. ``hidden``: tokens (and values) of each cell's genes that ``part`` does not
        show. ``profile``: see :class:`Profile`. ``species``.
        """
        out: dict[str, Any] = {"views": {}, "species": torch.from_numpy(species.astype(np.int64))}
        values = None if profile is None else profile.values(self.recipe.value_total)
        whole = Cells(cells, values)
        for build in self.builders.values():
            build(out, whole, species, rng, profile)
        if profile is not None:
            out["profile"] = profile.tensors()
        return out

    def _masked(self, out, cells, species, rng, profile) -> None:
        if "subset" in self.builders:
            cells = self._a_part(cells, rng)
        whole, order = _longest_first(self._with_special(cells, species, rng))
        if self.recipe.masker == "mam":  # hides later, in the model
            out["mask_id"] = self.vocabulary.special["<mask>"]
            out["views"]["masked"] = self._tensors(whole, order)
            return
        tokens = whole.genes.tokens
        if self.recipe.masker == "uniform":
            mask_id = self.vocabulary.special["<mask>"]
            masked = masked_as(tokens, self._hidden_evenly(whole.genes, rng), mask_id)
        else:
            masked = self.masker(tokens, np.repeat(species[order], whole.lengths), rng)
        out["targets"] = _targets(masked)
        out["views"]["masked"] = self._tensors(whole.shown_as(masked.tokens), order)

    def _valued(self, out, cells, species, rng, profile) -> None:
        whole, order = _longest_first(self._with_special(cells, species, rng))
        view = self._tensors(whole, order)
        if self.recipe.masker == "uniform":
            view["hidden"] = torch.from_numpy(self._hidden_evenly(whole.genes, rng))
        out["views"]["valued"] = view

    def _hidden_evenly(self, whole: Sequences, rng: np.random.Generator) -> np.ndarray:
        genes = ~self._is_special(whole.tokens)
        hidden = np.zeros(genes.size, bool)
        hidden[genes] = Uniform(self.recipe.mask_share)(Cells(whole).kept(genes).genes, rng)
        return hidden

    def _again(self, out, cells, species, rng, profile) -> None:
        out["views"]["again"] = out["views"]["masked"]

    def _subset(self, out, cells, species, rng, profile) -> None:
        part = self._a_part(cells, rng)
        swap = rng.random(len(species)) < self.recipe.subset_swapped
        part, written = swap_species(part, species, self.vocabulary, swap)
        out["views"]["subset"] = self._view(part, written, rng)

    def _part(self, out, cells, species, rng, profile) -> None:
        hidden = self.part_masker(cells.genes, rng)
        out["views"]["part"] = self._view(cells.kept(~hidden), species, rng)
        out["hidden"] = self._hidden(cells.kept(hidden), profile, rng)

    def _visible(self, out, cells, species, rng, profile) -> None:
        asked = expressed(profile, species, self.vocabulary, self.recipe, rng)
        out["views"]["visible"] = self._asked(asked, species, rng)

    def _panel(self, out, cells, species, rng, profile) -> None:
        asked = panel(profile, self.recipe, rng)
        out["views"]["panel"] = self._asked(asked, species, rng)

    def _asked(self, asked: Asked, species: np.ndarray, rng: np.random.Generator) -> View:
        view = self._view(asked.shown, species, rng)
        depth = torch.from_numpy(asked.depth)
        return {**view, "hidden": asked.hidden.tensors(), "depth": depth}

    def _full(self, out, cells, species, rng, profile) -> None:
        out["views"]["full"] = self._view(cells, species, rng)

    def _swapped(self, out, cells, species, rng, profile) -> None:
        other, written = swap_species(cells, species, self.vocabulary)
        out["views"]["swapped"] = self._view(other, written, rng)

    def _a_part(self, cells: Cells, rng: np.random.Generator) -> Cells:
        return cells.kept(~self._random_part(cells.genes, rng))

    def _hidden(
        self, hidden: Cells, profile: Profile | None, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Genes of each cell that are not shown, and with ``nonzero_zero`` some of its zeros."""
        if profile is not None and isinstance(self.part_masker, NonzeroZero):
            measured = profile.measured[profile.group]
            hidden = hidden.with_zeros(self.part_masker.zeros(profile.genes, measured, rng))
        return hidden.tensors()

    def _with_special(self, cells: Cells, species: np.ndarray, rng: np.random.Generator) -> Cells:
        recipe = self.recipe
        whole = add_special(
            cells.genes,
            self.vocabulary,
            species,
            use_species=rng.random(len(species)) >= recipe.species_token_dropout,
            max_length=recipe.max_length,
        )
        excess = np.where(whole.lengths > recipe.length_multiple, whole.lengths, 0)
        n = whole.lengths - excess % recipe.length_multiple
        placed = Cells(whole, self._placed(cells, whole))
        return placed.kept(positions(whole.indptr) < np.repeat(n, whole.lengths))

    def _placed(self, cells: Cells, whole: Sequences) -> np.ndarray | None:
        """Values of the genes where :func:`add_special` put them, zero at special tokens."""
        if cells.values is None:
            return None
        genes = ~self._is_special(whole.tokens)
        n = np.diff(np.concatenate([[0], np.cumsum(genes)])[whole.indptr])
        values = np.zeros(genes.size, np.float32)
        values[genes] = cells.values[ranges(cells.genes.indptr[:-1], n)]
        return values

    def _is_special(self, tokens: np.ndarray) -> np.ndarray:
        return np.isin(tokens, self.vocabulary.special_ids)

    def _view(self, cells: Cells, species: np.ndarray, rng: np.random.Generator) -> View:
        return self._tensors(*_longest_first(self._with_special(cells, species, rng)))

    def _tensors(self, cells: Cells, order: np.ndarray) -> View:
        tokens, indptr = cells.genes.tokens, cells.genes.indptr
        genes = ~self._is_special(tokens)
        n_genes = np.diff(np.concatenate([[0], np.cumsum(genes)])[indptr])
        keep = genes | np.repeat(n_genes == 0, cells.lengths)  # tiny, all masked: pool the masks
        first = indptr[:-1].copy()
        for _ in self.vocabulary.prefix(0):
            first += np.isin(tokens[np.minimum(first, tokens.size - 1)], self._prefixes)
        view = {
            "tokens": torch.from_numpy(tokens.astype(np.int64)),
            "keep": torch.from_numpy(keep),
            "place": torch.from_numpy(np.argsort(order)),
            "first": torch.from_numpy(first),
            "indptr": indptr.tolist(),  # a list stays on the host, where it is needed
        }
        if cells.values is not None:
            view["values"] = torch.from_numpy(np.where(genes, cells.values, 0).astype(np.float32))
        return view


def _targets(masked: Masked) -> dict[str, torch.Tensor]:
    return {
        "positions": torch.from_numpy(masked.positions),
        "labels": torch.from_numpy(masked.labels.astype(np.int64)),
    }


def _longest_first(cells: Cells) -> tuple[Cells, np.ndarray]:
    """Sort by length, so that cells of equal length attend in one call; also the order."""
    order = np.argsort(-cells.lengths, kind="stable")
    return cells.at(order), order
