"""Objectives: what an encoder is trained to do. One file each.

An objective is a module with a name, the views it reads (the encoder runs once for each distinct
view of a step, see `scmix.pretrain.views`), what it needs beside tokens, its own heads as
submodules, and a loss.
"""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from ..._config import Config
from ...decoders import Settings
from ...encoder import Encoder
from .._recipe import Recipe
from .masked_values import MaskedValues
from .mlm import MaskedLanguageModel
from .poisson import PoissonAutoencoder
from .restore import Restore
from .simcse import SimCSE
from .subset_contrast import SubsetContrast
from .value_autoencoder import ValueAutoencoder
from .wced import WholeCellDecoder
from .xspecies import CrossSpecies

__all__ = [
    "CrossSpecies",
    "MaskedLanguageModel",
    "MaskedValues",
    "Objective",
    "PoissonAutoencoder",
    "Restore",
    "SimCSE",
    "SubsetContrast",
    "ValueAutoencoder",
    "WholeCellDecoder",
    "make_objective",
]


class Objective(Protocol):
    """What the trainer needs of an objective."""

    name: str
    views: tuple[str, ...]
    needs: frozenset[str]

    def loss(
        self, encoder: Encoder, hidden: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (a scalar) and metrics, from the hidden states of each view.

        Metrics are scalars without gradient, logged as they are. The entry ``cells``, if there is
        one, is the loss of each cell in batch order, shape ``(n,)``: what a learned masker is
        rewarded by.
        """
        ...


_MAKERS: dict[str, Callable[[Recipe, Config], Any]] = {
    "masked_values": lambda recipe, config: MaskedValues(config.hidden_size),
    "mlm": lambda recipe, config: MaskedLanguageModel(),
    "simcse": lambda recipe, config: SimCSE(
        pool=recipe.simcse_pool,
        temperature=recipe.simcse_temperature,
        negatives=recipe.simcse_negatives,
    ),
    "subset_contrast": lambda recipe, config: SubsetContrast(
        pool="mean",
        temperature=recipe.subset_contrast_temperature,
        negatives=recipe.subset_contrast_negatives,
    ),
    "xspecies": lambda recipe, config: CrossSpecies(
        config.hidden_size, temperature=recipe.xspecies_temperature
    ),
    "wced": lambda recipe, config: WholeCellDecoder(
        config.hidden_size,
        config.vocab_size,
        pool=recipe.wced_pool,
        total=recipe.value_total,
        sets=recipe.wced_sets,
    ),
    "poisson": lambda recipe, config: PoissonAutoencoder(
        config.hidden_size,
        config.vocab_size,
        pool=recipe.poisson_pool,
        total=recipe.value_total,
        n_layers=recipe.poisson_layers,
    ),
    "value_autoencoder": lambda recipe, config: ValueAutoencoder(
        _decoder_settings("value_autoencoder", recipe),
        config,
        zero_weight=recipe.value_autoencoder_zero_weight,
        dropout=recipe.value_dropout,
    ),
    "restore": lambda recipe, config: Restore(
        _decoder_settings("restore", recipe), config, dropout=recipe.value_dropout
    ),
}


def _decoder_settings(kind: str, recipe: Recipe) -> Settings:
    return Settings(
        kind,
        width=recipe.value_decoder_width,
        num_layers=recipe.value_decoder_layers,
        num_heads=recipe.value_decoder_heads,
        intermediate_size=2 * recipe.value_decoder_width,
        n_bins=recipe.value_bins,
        total=float(recipe.value_total),
        reads_depth=kind == "value_autoencoder" and recipe.value_autoencoder_thinning > 0,
    )


def make_objective(name: str, recipe: Recipe, config: Config) -> Any:
    """Build an objective with its heads."""
    return _MAKERS[name](recipe, config)
