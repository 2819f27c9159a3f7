"""Objectives: what an encoder is trained to do. One file each.

An objective is a module with a name, the views it reads (the encoder runs once for each distinct
view of a step, see `scmix.pretrain.views`), its own heads as submodules, and a loss.
"""

from typing import Any, Protocol

from torch import Tensor

from ...encoder import Config, Encoder
from ..recipes import Recipe
from .mlm import MaskedLanguageModel
from .simcse import SimCSE
from .xspecies import CrossSpecies

__all__ = ["CrossSpecies", "MaskedLanguageModel", "Objective", "SimCSE", "make_objective"]


class Objective(Protocol):
    """What the trainer needs of an objective."""

    name: str
    views: tuple[str, ...]

    def loss(
        self, encoder: Encoder, hidden: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (a scalar) and metrics, from the hidden states of each view."""
        ...


def make_objective(name: str, recipe: Recipe, config: Config) -> Any:
    """Build an objective with its heads."""
    if name == "mlm":
        return MaskedLanguageModel()
    if name == "simcse":
        return SimCSE(
            views=recipe.simcse_views,
            pool=recipe.simcse_pool,
            temperature=recipe.simcse_temperature,
            negatives=recipe.simcse_negatives,
        )
    return CrossSpecies(config.hidden_size, temperature=recipe.xspecies_temperature)
