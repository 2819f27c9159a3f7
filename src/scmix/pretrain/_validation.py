"""What a model in training does on cells held out from it: losses, and probes without training."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from .._training import seed_of
from ..genes import SPECIES
from ._held_out import batches_of, some_of, to_device
from ._probes import Labels, Probes
from ._recipe import Recipe
from .corpus import Corpus
from .model import Pretraining
from .stream import Stream

_MOST_CELLS = 256  # of a species: as many tokens as a few steps of training
# Every recipe is judged by the same mask, whatever it hides in training.
_MASK: dict[str, Any] = {
    "mask_share": 0.15,
    "masker": "uniform",
    "part_masker": "uniform",
    "species_token_dropout": 0.0,
    "subset_swapped": 0.0,
}


class Validation:
    """Held-out cells with masks that are the same at every call.

    Parameters
    ----------
    corpus
        Held-out cells, in the vocabulary of the training corpus.
    training
        The training corpus, whose gene frequencies make the baseline ``unigram``: the loss of
        somebody who knows how often each gene occurs in the species and nothing about the cell.
    recipe
        Says how cells are cut and what is trained.
    model
        Its objectives say what they read.
    labels
        Labels of the held-out cells for the probes; see :func:`scmix.pretrain.train`.
    """

    def __init__(
        self,
        corpus: Corpus,
        training: Corpus,
        recipe: Recipe,
        model: Pretraining,
        labels: Labels = None,
    ) -> None:
        self.baseline: dict[str, float] = {}
        self.batches: dict[tuple[str, str], list[dict[str, Any]]] = {}
        fixed = replace(recipe, **_MASK)
        for code, species in enumerate(SPECIES):
            rows = some_of(np.flatnonzero(corpus.species == code), _MOST_CELLS)
            for name, objective in model.objectives.items() if rows.size else ():
                stream = Stream(corpus, fixed, objective.views)
                self.batches[species, name] = list(batches_of(stream, rows))
            if (species, "mlm") in self.batches:
                chance = _frequencies(training, code, recipe.max_length)
                self.baseline[f"{species}_unigram"] = self._unigram(species, chance)
        self.probes = Probes(corpus, recipe, labels)

    def _unigram(self, species: str, chance: np.ndarray) -> float:
        batches = self.batches[species, "mlm"]
        labels = torch.cat([batch["targets"]["labels"] for batch in batches]).numpy()
        return float(-np.log(chance[labels]).mean())

    @torch.no_grad()
    def __call__(self, model: Pretraining, device: torch.device, bf16: bool) -> dict[str, float]:
        """Metrics of every objective for each species, the baseline, and scores of the probes."""
        was_training = model.training
        out: dict[str, float] = {}
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for (species, name), batches in self.batches.items():
                # the same tokens read twice differ by dropout only
                model.train("again" in model.objectives[name].views)
                metrics = _mean_metrics(model, name, batches, device)
                out |= {f"{species}_{key}": value for key, value in metrics.items()}
            model.eval()
            scores = self.probes(model, device)
        model.train(was_training)
        return {**out, **self.baseline, **scores}


def _mean_metrics(
    model: Pretraining, name: str, batches: list[dict[str, Any]], device: torch.device
) -> dict[str, float]:
    """Means over batches, weighed by what was predicted: genes, or cells."""
    sums: dict[str, float] = defaultdict(float)
    total = 0
    for number, batch in enumerate(batches):
        torch.manual_seed(seed_of(0, number, 3))
        here = to_device(batch, device)
        hidden = {view: model.encode(view, content) for view, content in here["views"].items()}
        _, metrics = model.objectives[name].loss(model.encoder, hidden, here)
        metrics.pop("cells", None)
        weight = len(batch["targets"]["labels"]) if "targets" in batch else len(batch["rows"])
        total += weight
        for key, value in metrics.items():
            sums[key] += weight * float(value)
    return {key: value / total for key, value in sums.items()}


def _frequencies(
    corpus: Corpus, species: int, max_length: int, n_cells: int = 20_000
) -> np.ndarray:
    """Share of each token among those of a species' cells, one added to every count."""
    rows = np.sort(some_of(np.flatnonzero(corpus.species == species), n_cells))
    tokens = corpus.sequences(rows, max_genes=max_length).tokens
    counts = np.bincount(tokens, minlength=corpus.vocabulary.n_tokens) + 1.0
    return counts / counts.sum()
