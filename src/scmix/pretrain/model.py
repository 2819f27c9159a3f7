"""An encoder with its objectives, as one module that returns a loss."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..encoder import Config, Encoder
from ..genes import Vocabulary
from .objectives import make_objective
from .recipes import Recipe


class Pretraining(nn.Module):
    """Runs the encoder once for each view and sums the weighted losses of the objectives.

    Parameters
    ----------
    encoder
        The encoder to train.
    recipe
        Names the objectives and their weights.
    """

    def __init__(self, encoder: Encoder, recipe: Recipe) -> None:
        super().__init__()
        self.encoder = encoder
        self.objectives: Any = nn.ModuleDict(  # of Objective, which a ModuleDict cannot say
            {name: make_objective(name, recipe, encoder.config) for name in recipe.objectives}
        )
        self.weights = dict(recipe.objectives)

    @property
    def views(self) -> list[str]:
        """Names of the views that the objectives read, each once."""
        return list(dict.fromkeys(name for o in self.objectives.values() for name in o.views))

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Weighted loss, and each objective's own metrics without weights."""
        views = batch["views"]
        hidden = {
            name: self.encoder(views[name]["tokens"], views[name]["indptr"]) for name in self.views
        }
        total: Tensor | float = 0.0
        metrics: dict[str, Tensor] = {}
        for name, objective in self.objectives.items():
            loss, own = objective.loss(self.encoder, hidden, batch)
            total = total + self.weights[name] * loss
            metrics |= own
        return {"loss": total, "metrics": metrics}


def make_model(vocabulary: Vocabulary, recipe: Recipe) -> Pretraining:
    """Build a model with the random start that the recipe's seed gives."""
    torch.manual_seed(recipe.seed)
    config = Config(
        vocab_size=vocabulary.n_tokens,
        pad_token_id=vocabulary.special["<pad>"],
        **recipe.config,
    )
    uses_pooler = "simcse" in recipe.objectives and recipe.simcse_pool == "first"
    return Pretraining(Encoder(config, pooler=uses_pooler), recipe)
