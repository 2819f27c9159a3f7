"""One fixed uniform mask: the only loss by which different maskers can be compared."""

from dataclasses import replace

import numpy as np
import torch

from ._held_out import batches_of, to_device
from ._recipe import Recipe
from .corpus import Corpus
from .model import Pretraining
from .stream import Stream


def loss_on_uniform_mask(
    model: Pretraining,
    corpus: Corpus,
    rows: np.ndarray,
    recipe: Recipe,
    *,
    share: float = 0.3,
) -> dict[str, float]:
    """Metrics of a model when genes are hidden at random, the same ones at every call.

    A masker that chooses what is easy has a low loss in training, one that chooses what is hard a
    high one, and neither says how much the model knows. Here the masker of the recipe is set aside.

    Parameters
    ----------
    model
        A model that was trained by the recipe.
    corpus
        Cells, best held out from training.
    rows
        Which of them.
    recipe
        Says what the objectives read.
    share
        Share of each cell's genes to hide.

    Returns
    -------
    Each objective's metrics, averaged over cells.
    """
    fair = replace(
        recipe,
        masker="uniform",
        part_masker="uniform",
        mask_share=share,
        species_token_dropout=0.0,
        subset_swapped=0.0,
    )
    device = next(model.parameters()).device
    stream, sums = Stream(corpus, fair, model.views), dict[str, float]()
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for batch in batches_of(stream, np.asarray(rows)):
            for name, value in model(to_device(batch, device))["metrics"].items():
                sums[name] = sums.get(name, 0.0) + len(batch["rows"]) * float(value)
    model.train(was_training)
    return {name: value / len(rows) for name, value in sums.items()}
