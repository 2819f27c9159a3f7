"""Mask and restore on random subsets of the genes that were measured (GexBERT)."""

from typing import Any

from torch import Tensor

from ..._config import Config
from ...decoders import Settings
from ...encoder import Encoder
from ._value_decoding import ValueDecoding, mean_by_cell, mean_where


class Restore(ValueDecoding):
    r"""Squared error of hidden genes, in standard deviations of each gene.

    Genes are drawn from those that the cell's data set measured; a part is shown to the encoder
    with binned values, zeros with a bin of their own, and queries of the others ask the encoder's
    output. A gene that was not measured is neither shown nor asked for. With the gene's standard
    deviation :math:`\sigma` in the corpus

    .. math:: L = \mathrm{mean}\, ((\hat x - x) / \sigma)^2

    so that predicting every gene's mean gives about one.

    Jiang & Hassanpour (2025), GexBERT; sizes and the loss are not published in full and are a
    reconstruction. Made for bulk samples, where few genes are zero.

    Parameters
    ----------
    settings
        Sizes of the decoder.
    config
        Of the encoder.
    dropout
        Chance that a cell goes without its values.
    """

    name = "restore"

    def __init__(self, settings: Settings, config: Config, *, dropout: float) -> None:
        super().__init__(settings, config, view="panel", dropout=dropout)

    def loss(
        self, encoder: Encoder, hidden: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error in standard deviations, and that of expressed genes alone."""
        found, truth, cell = self.predict(encoder, hidden, batch)
        rows = batch["species"][cell]
        scale = self.decoder.scale[rows, batch["views"]["panel"]["hidden"]["tokens"]]
        errors = ((found - truth) / scale).square()
        loss = errors.mean()
        return loss, {
            "restore": loss.detach(),
            "restore_expressed": mean_where(errors, truth > 0),
            "cells": mean_by_cell(errors, cell, len(batch["species"])),
        }
