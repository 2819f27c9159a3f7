"""An encoder with its objectives, as one module that returns a loss."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..decoders import ValueDecoder
from ..encoder import Config, Encoder
from ..genes import Vocabulary
from ._model_checks import check_vocabulary
from ._recipe import Recipe
from .corpus import Corpus
from .maskers.learned import LearnedMask
from .objectives import make_objective
from .value_inputs import make_value_input


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
        self.value_input = make_value_input(recipe, encoder.config.hidden_size)
        self.objectives: Any = nn.ModuleDict(  # of Objective, which a ModuleDict cannot say
            {name: make_objective(name, recipe, encoder.config) for name in recipe.objectives}
        )
        self.weights = dict(recipe.objectives)
        if "mlm" not in recipe.objectives:  # data-parallel training refuses what gets no gradient
            encoder.cls.requires_grad_(False)
        self.masker = LearnedMask(recipe, encoder.config) if recipe.masker == "mam" else None

    @property
    def views(self) -> list[str]:
        """Names of the views that the objectives read, each once."""
        return list(dict.fromkeys(name for o in self.objectives.values() for name in o.views))

    @property
    def decoder(self) -> ValueDecoder | None:
        """The value decoder that is saved beside the encoder; None without such an objective."""
        decoders = (getattr(objective, "decoder", None) for objective in self.objectives.values())
        return next((one for one in decoders if one is not None), None)

    def start(self, corpus: Corpus) -> None:
        """Let objectives that can begin with the means of genes do so, before the first step."""
        for objective in self.objectives.values():
            if hasattr(objective, "start"):
                objective.start(corpus)

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Weighted loss, and each objective's own metrics without weights."""
        choice = None
        if self.masker is not None:
            batch, choice = self.masker.hide(self.encoder, batch)
        hidden = {name: self.encode(name, batch["views"][name]) for name in self.views}
        total: Tensor | float = 0.0
        metrics: dict[str, Tensor] = {}
        for name, objective in self.objectives.items():
            loss, own = objective.loss(self.encoder, hidden, batch)
            total = total + self.weights[name] * loss
            cells = own.pop("cells", None)
            if choice is not None and self.masker is not None and name == self.masker.objective:
                reward, more = self.masker.loss(choice, cells, batch)
                total, own = total + reward, own | more
            metrics |= own
        return {"loss": total, "metrics": metrics}

    def encode(self, name: str, view: Mapping[str, Any]) -> Tensor:
        """Hidden states of a view, shape ``(T, H)``.

        An objective with its own way to read values (a method ``added``, from a view to a vector
        for each token) goes before that of the recipe. It reads whole cells too.
        """
        readers = [
            o
            for o in self.objectives.values()
            if hasattr(o, "added") and name in (*o.views, "full")
        ]
        if readers:
            added = readers[0].added(view)
        elif self.value_input is not None:
            added = self.value_input(view["values"]) * view["keep"][:, None]
        else:
            added = None
        if "context" in view:  # of the published masker
            added = view["context"] if added is None else added + view["context"]
        return self.encoder(view["tokens"], view["indptr"], added=added)


def make_model(vocabulary: Vocabulary, recipe: Recipe) -> Pretraining:
    """Build a model with the random start that the recipe's seed gives."""
    check_vocabulary(vocabulary, recipe)
    torch.manual_seed(recipe.seed)
    config = Config(
        vocab_size=vocabulary.n_tokens,
        pad_token_id=vocabulary.special["<pad>"],
        **recipe.config,
    )
    uses_pooler = "simcse" in recipe.objectives and recipe.simcse_pool == "first"
    model = Pretraining(Encoder(config, pooler=uses_pooler), recipe)
    if not recipe.positions:
        model.encoder.bert.embeddings.position_embeddings.weight.requires_grad_(False).zero_()
    return model
