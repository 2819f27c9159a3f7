"""The learned masker at work: it hides genes of a view that the loader left whole."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..._config import Config
from ...encoder import Encoder
from .._recipe import Recipe
from .mam import Choice, MultinomialAttention, Segments

_N_WAVES = 8

Batch = Mapping[str, Any]


class LearnedMask(nn.Module):
    """Chooses with :class:`MultinomialAttention` which genes an objective must predict.

    What a gene is judged by leaves out what is to be predicted: its rank where the gene is
    predicted, the gene where its value is; in the published form its value.

    Parameters
    ----------
    recipe
        Says which objective reads the masked view, and how.
    config
        Configuration of the encoder.
    """

    def __init__(self, recipe: Recipe, config: Config) -> None:
        super().__init__()
        self.objective = "masked_values" if "masked_values" in recipe.objectives else "mlm"
        self.view = "valued" if self.objective == "masked_values" else "masked"
        published = recipe.mam_mode == "published"
        self.keys = "value" if published else "rank" if self.objective == "mlm" else "gene"
        widths = {"value": 1, "rank": 2 * _N_WAVES, "gene": config.hidden_size}
        self.attention = MultinomialAttention(
            widths[self.keys],
            config.hidden_size,
            share=recipe.mask_share,
            mode=recipe.mam_mode,
            n_latents=recipe.mam_latents,
            latent_width=recipe.mam_width,
        )

    def hide(self, encoder: Encoder, batch: Batch) -> tuple[Batch, Choice | None]:
        """Hide genes of the view; a view in which some are hidden already keeps these.

        Then the published form reads the visible genes only, so that such a mask is a fair test.
        """
        view = batch["views"][self.view]
        hidden_before = "targets" in batch or "hidden" in view
        genes = view["keep"] & ~view["hidden"] if "hidden" in view else view["keep"]
        choice = self.attention(self._keys(encoder, view), view["indptr"], genes)
        changed, targets = {self.view: view}, {}
        if not hidden_before and self.view == "valued":
            changed = {"valued": {**view, "hidden": choice.hidden}}
        elif not hidden_before:
            where = choice.hidden.nonzero().squeeze(1)
            targets = {"targets": {"positions": where, "labels": view["tokens"][where]}}
            changed = {"masked": without(view, choice.hidden, batch["mask_id"])}
        context = self.attention.context(choice, view["indptr"])
        if context is not None:
            changed[self.view] = {**changed[self.view], "context": context}
        if "again" in batch["views"] and self.view == "masked":
            changed["again"] = changed["masked"]
        views = {**batch["views"], **changed}
        return {**batch, **targets, "views": views}, None if hidden_before else choice

    def loss(self, choice: Choice, cells: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The masker's own loss, from the loss of each cell in batch order, and metrics.

        ``mam_entropy`` is the entropy of the distribution, 1 where it is uniform.
        """
        place = batch["views"][self.view]["place"]
        n_genes = Segments(batch["views"][self.view]["indptr"], place.device).sum(
            (choice.chance > 0).float()
        )
        entropy = (choice.entropy / n_genes.clamp(min=2).log()).mean().detach()
        loss = self.attention.loss(choice, cells[place.argsort()])
        return loss, {"mam": loss.detach(), "mam_entropy": entropy}

    def _keys(self, encoder: Encoder, view: Batch) -> Tensor:
        if self.keys == "value":
            return view["values"][:, None]
        if self.keys == "rank":
            return rank_waves(Segments(view["indptr"], view["tokens"].device).position)
        embedded = encoder.bert.embeddings.word_embeddings.weight.detach()[view["tokens"]]
        return F.layer_norm(embedded.float(), embedded.shape[-1:])


def without(view: Batch, hidden: Tensor, mask_id: int) -> Batch:
    """The view with ``<mask>`` where genes are hidden."""
    shown = {"tokens": view["tokens"].masked_fill(hidden, mask_id), "keep": view["keep"] & ~hidden}
    if "values" in view:
        shown["values"] = view["values"].masked_fill(hidden, 0)
    return {**view, **shown}


def rank_waves(position: Tensor) -> Tensor:
    """Sines and cosines of the logarithm of the rank: shape ``(T,)`` to ``(T, 16)``."""
    octaves = torch.log2(1.0 + position)
    rates = math.pi / 8 * 2 ** torch.arange(_N_WAVES, device=position.device).div(2)
    angles = octaves[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
