"""Whole-cell expression decoder: every gene of a cell from one vector (BMFM-RNA)."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...encoder import Encoder
from ..corpus import Corpus
from ._gene_means import gene_means
from ._pooling import pooled
from ._through_linear import through_linear
from ._whole_cells import Shown, WholeCells

_START = 0.02  # standard deviation of the decoder's start, as of the encoder's


class WholeCellDecoder(nn.Module):
    r"""One linear layer from a cell's vector to the value and the absence of every gene.

    The encoder sees a part of the cell's genes. As there is no hidden layer behind the vector, the
    encoder does the work, and the vector can be read linearly. With values
    :math:`x = \log(1 + 10^4 c / C)`, prediction :math:`\hat x` and logit :math:`\hat z`, for each
    set of measured genes

    .. math:: L = \mathrm{mean}_{x > 0} (\hat x - x)^2 + \mathrm{mean}\, BCE(\hat z, 1[x = 0])

    A gene that the data set does not have is neither value nor zero: it does not count.

    Parameters
    ----------
    width
        Width of the encoder.
    n_tokens
        Size of the vocabulary.
    pool
        "mean" or "cls".
    total
        Counts are scaled to this total.
    sets
        "all": one set, all genes (second version). "split": genes that the encoder saw, and those
        that it did not, added (first version).
    """

    name = "wced"
    views: tuple[str, ...] = ("part",)
    needs: frozenset[str] = frozenset({"values"})

    def __init__(self, width: int, n_tokens: int, *, pool: str, total: float, sets: str) -> None:
        super().__init__()
        self.pool, self.total, self.sets = pool, total, sets
        self.head = nn.Linear(width, 2 * n_tokens)
        nn.init.normal_(self.head.weight, std=_START)
        nn.init.zeros_(self.head.bias)

    @torch.no_grad()
    def start(self, corpus: Corpus) -> None:
        """Begin with the mean value and the share of zeros of each gene."""
        means = gene_means(corpus, self.total)
        absent = np.log(means.absent) - np.log1p(-means.absent)
        self.head.bias.copy_(torch.from_numpy(np.concatenate([means.value, absent])))

    def loss(
        self, encoder: Encoder, hidden: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error plus binary cross-entropy, and each for itself."""
        view = batch["views"]["part"]
        vectors = pooled(encoder, hidden["part"], view, self.pool)
        cells = WholeCells(batch["profile"], self.total)
        shown = Shown(view, cells.n_tokens) if self.sets == "split" else None
        errors = _Errors(cells, shown)
        loss = through_linear(vectors, self.head.weight, self.head.bias, errors)
        metrics = {"wced_mse": errors.squared, "wced_bce": errors.absence}
        return loss, {"wced": loss.detach(), **metrics}

    def predict(self, vectors: Tensor) -> Tensor:
        """Expected value of every gene, ``(n, H)`` to ``(n, n_tokens)``: value x presence."""
        value, absent = self.head(vectors).float().chunk(2, dim=1)
        return value.clamp(min=0) * torch.sigmoid(-absent)


class _Errors:
    """Losses of some cells from the decoder's outputs; sums of its two parts.

    Means are over all genes of a set in the batch, so the sizes of sets are counted first.
    """

    def __init__(self, cells: WholeCells, shown: Shown | None) -> None:
        self.cells, self.shown = cells, shown
        self.sizes = _sizes(cells, shown)
        zero = cells.scale.new_zeros(())
        self.squared, self.absence = zero, zero.clone()

    def __call__(self, outputs: Tensor, start: int, stop: int) -> Tensor:
        value, absent = outputs.chunk(2, dim=1)
        measured = self.cells.measured(start, stop)
        truth = torch.log1p(self.cells.counts(start, stop))
        zero = truth == 0
        squared = (value - truth).square().masked_fill(zero, 0)
        absence = F.binary_cross_entropy_with_logits(absent, zero.to(absent), reduction="none")
        absence = absence.masked_fill(~measured, 0)
        shares = self._shares(start, stop)
        parts = [
            (error * share).sum(1) for error, share in zip((squared, absence), shares, strict=True)
        ]
        self.squared = self.squared + parts[0].detach().sum()
        self.absence = self.absence + parts[1].detach().sum()
        return parts[0] + parts[1]

    def _shares(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """What one gene counts in each mean: one over the size of its set."""
        each = 1 / self.sizes.clamp(min=1)
        if self.shown is None:
            return each[0], each[1]
        shown = self.shown(start, stop)
        return torch.where(shown, each[2], each[0]), torch.where(shown, each[3], each[1])


def _sizes(cells: WholeCells, shown: Shown | None) -> Tensor:
    """Expressed and measured genes of the (unseen) set, then of the seen one."""
    n_expressed = (cells.profile["counts"] > 0).sum()
    n_measured = cells.n_measured.sum()
    n_shown = 0 if shown is None else len(shown.tokens)
    rest = torch.stack([n_expressed - n_shown, n_measured - n_shown])
    return torch.cat([rest, torch.full_like(rest, n_shown)]).float()
