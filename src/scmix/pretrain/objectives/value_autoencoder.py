"""Value autoencoder: hidden values from visible ones (xTrimoGene, scFoundation)."""

from typing import Any

from torch import Tensor

from ..._config import Config
from ...decoders import Settings
from ...encoder import Encoder
from ._value_decoding import ValueDecoding, mean_by_cell, mean_where


class ValueAutoencoder(ValueDecoding):
    r"""Squared error of the values of hidden genes and of some zeros.

    The encoder reads expressed genes that are not hidden, and nothing else, so its length is their
    number; a light decoder is asked for the hidden genes. With values :math:`x` and predictions
    :math:`\hat x` of the genes asked for

    .. math:: L = \sum w (\hat x - x)^2 / \sum w, \quad w = 1\ (x > 0),\ w_0\ (x = 0)

    Published: :math:`w_0 = 1`. As many more expressed genes than zeros are hidden, in shares, as
    :math:`w_0` should be for predictions that are right on average over all genes.

    Gong et al. (2023), xTrimoGene; Hao et al. (2024), scFoundation. Different here: ordinary
    attention instead of Performer, asked genes are not read by other genes, no random or kept
    values among the hidden ones, ranks enter as positions unless the recipe says otherwise, and
    depths are added to every gene instead of being tokens of their own.

    Parameters
    ----------
    settings
        Sizes of the decoder.
    config
        Of the encoder.
    zero_weight
        :math:`w_0`.
    dropout
        Chance that a cell goes without its values.
    """

    name = "value_autoencoder"

    def __init__(
        self, settings: Settings, config: Config, *, zero_weight: float, dropout: float
    ) -> None:
        super().__init__(settings, config, view="visible", dropout=dropout)
        self.zero_weight = zero_weight

    def loss(
        self, encoder: Encoder, hidden: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted squared error, and without weights that of expressed genes and of zeros."""
        found, truth, cell = self.predict(encoder, hidden, batch)
        errors = (found - truth).square()
        zero = truth == 0
        weights = 1 + (self.zero_weight - 1) * zero
        loss = (weights * errors).sum() / weights.sum().clamp(min=1e-6)
        return loss, {
            "value_autoencoder": loss.detach(),
            "value_autoencoder_expressed": mean_where(errors, ~zero),
            "value_autoencoder_zero": mean_where(errors, zero),
            "cells": mean_by_cell(errors, cell, len(batch["species"])),
        }
