"""The masked language model's loss on cells held out from training, each species for itself."""

from typing import Any

import numpy as np
import torch

from ..batches import add_special, pack
from ..genes import SPECIES
from .corpus import Corpus
from .masking import Masker
from .model import Pretraining
from .recipes import Recipe

_MOST_CELLS = 256  # of a species: as many tokens as a few steps of training


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
        Says how cells are cut and masked.
    """

    def __init__(self, corpus: Corpus, training: Corpus, recipe: Recipe) -> None:
        self.baseline: dict[str, float] = {}
        self.batches: dict[str, list[dict[str, Any]]] = {}
        rng = np.random.default_rng(0)
        for code, name in enumerate(SPECIES):
            rows = np.flatnonzero(corpus.species == code)
            if rows.size:
                rows = rng.permutation(rows)[:_MOST_CELLS]
                self.batches[name] = list(_batches(corpus, rows, recipe, rng))
                labels = torch.cat([batch["labels"] for batch in self.batches[name]]).numpy()
                chance = _frequencies(training, code, recipe.max_length)
                self.baseline[f"{name}_unigram"] = float(-np.log(chance[labels]).mean())

    @torch.no_grad()
    def __call__(self, model: Pretraining, device: torch.device, bf16: bool) -> dict[str, float]:
        """Mean cross-entropy in nats and accuracy at the masked positions, for each species."""
        was_training = model.training
        model.eval()
        out: dict[str, float] = {}
        for name, batches in self.batches.items():
            sums = np.zeros(3)
            for batch in batches:
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    sums += _evaluate(model, batch, device)
            out[f"{name}_mlm"] = float(sums[0] / sums[2])
            out[f"{name}_accuracy"] = float(sums[1] / sums[2])
        model.train(was_training)
        return {**out, **self.baseline}


def _batches(corpus: Corpus, rows: np.ndarray, recipe: Recipe, rng: np.random.Generator):
    masker = Masker(corpus.vocabulary, share=recipe.mask_share)
    cells = corpus.sequences(rows, max_genes=recipe.max_length)
    species = corpus.species[rows]
    whole = add_special(cells, corpus.vocabulary, species, max_length=recipe.max_length)
    for chosen in pack(whole.lengths, recipe.tokens_per_step):
        part = whole[chosen]
        masked = masker(part.tokens, np.repeat(species[chosen], part.lengths), rng)
        yield {
            "tokens": torch.from_numpy(masked.tokens.astype(np.int64)),
            "indptr": part.indptr.tolist(),
            "positions": torch.from_numpy(masked.positions),
            "labels": torch.from_numpy(masked.labels.astype(np.int64)),
        }


def _evaluate(model: Pretraining, batch: dict[str, Any], device: torch.device) -> np.ndarray:
    hidden = model.encoder(batch["tokens"].to(device), batch["indptr"])
    rows = hidden[batch["positions"].to(device)]
    labels = batch["labels"].to(device)
    loss = correct = 0.0
    for part, label in zip(rows.split(256), labels.split(256), strict=True):
        logits = model.encoder.logits(part).float()
        loss += float(torch.nn.functional.cross_entropy(logits, label, reduction="sum"))
        correct += float((logits.argmax(1) == label).sum())
    return np.array([loss, correct, len(labels)])


def _frequencies(
    corpus: Corpus, species: int, max_length: int, n_cells: int = 20_000
) -> np.ndarray:
    """Share of each token among those of a species' cells, one added to every count."""
    rows = np.flatnonzero(corpus.species == species)
    rows = np.random.default_rng(0).permutation(rows)[:n_cells]
    tokens = corpus.sequences(rows, max_genes=max_length).tokens
    counts = np.bincount(tokens, minlength=corpus.vocabulary.n_tokens) + 1.0
    return counts / counts.sum()
