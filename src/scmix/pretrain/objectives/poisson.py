"""Poisson masked autoencoder: every gene's count from a few visible genes (TxFM)."""

import math
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
from ._whole_cells import WholeCells

_START = 0.02  # standard deviation of the last layer's start, as of the encoder's
_BIAS = 0.1  # its bias: at 0 half of the outputs would start where the rectifier is flat


class PoissonAutoencoder(nn.Module):
    r"""A cell's vector becomes the rate of every gene; the loss is Poisson's.

    The encoder sees some genes of the cell. With counts scaled to the total :math:`L`,
    :math:`x = \log(1 + y)`, and a residual network's output :math:`z` for each measured gene

    .. math::

        \hat x = \log(1 + L)\, \mathrm{ReLU}(\tanh(z / 4e)), \qquad
        \mathrm{loss} = \mathrm{mean}\,( e^{\hat x} - \hat x e^x )

    which is the negative log-likelihood of the shifted count :math:`1 + y` at log-rate
    :math:`\hat x`, up to a constant, and smallest at :math:`\hat x = x`. ``poisson_excess`` is what
    lies above that smallest value.

    Parameters
    ----------
    width
        Width of the encoder.
    n_tokens
        Size of the vocabulary.
    pool
        "mean" or "cls".
    total
        Counts are scaled to this total; published: 100,000.
    n_layers
        Residual blocks; published: 4.
    """

    name = "poisson"
    views: tuple[str, ...] = ("part",)
    needs: frozenset[str] = frozenset({"values"})

    def __init__(
        self, width: int, n_tokens: int, *, pool: str, total: float, n_layers: int
    ) -> None:
        super().__init__()
        self.pool, self.total = pool, total
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(n_layers)), nn.LayerNorm(width))
        self.head = nn.Linear(width, n_tokens)
        nn.init.normal_(self.head.weight, std=_START)
        nn.init.constant_(self.head.bias, _BIAS)

    @torch.no_grad()
    def start(self, corpus: Corpus) -> None:
        """Begin with the mean count of each gene."""
        rates = np.log1p(gene_means(corpus, self.total).count)
        z = 4 * math.e * np.arctanh(rates / math.log1p(self.total))
        self.head.bias.copy_(torch.from_numpy(np.maximum(z, _BIAS)))

    def loss(
        self, encoder: Encoder, hidden: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over all measured genes of the batch, and its distance from the smallest value."""
        vectors = pooled(encoder, hidden["part"], batch["views"]["part"], self.pool)
        cells = WholeCells(batch["profile"], self.total)
        n_measured = cells.n_measured.sum()

        def loss_of(outputs: Tensor, start: int, stop: int) -> Tensor:
            shifted = 1 + cells.counts(start, stop)
            losses = poisson_loss(rectified_tanh(outputs, self.total), shifted)
            return losses.masked_fill(~cells.measured(start, stop), 0).sum(1) / n_measured

        rows = self.blocks(vectors)
        loss = through_linear(rows, self.head.weight, self.head.bias, loss_of)
        own = loss.detach()
        return loss, {"poisson": own, "poisson_excess": own - _smallest(cells) / n_measured}

    def predict(self, vectors: Tensor) -> Tensor:
        """Logarithm of one plus the scaled count of every gene, shape ``(n, n_tokens)``."""
        return rectified_tanh(self.head(self.blocks(vectors)).float(), self.total)


def rectified_tanh(z: Tensor, total: float) -> Tensor:
    """``log(1 + total) * ReLU(tanh(z / 4e))``, with a gradient that can lift a flat output.

    Values lie between 0 and the largest possible one, exact zeros included. Where the rectifier is
    flat, a gradient that would raise the output passes as if it were not: else a gene that is
    pushed below zero in every cell could never be learned again.

    Examples
    --------
    >>> rectified_tanh(torch.tensor([-3.0, 0.0, 1e3]), 99999).tolist()
    [0.0, 0.0, 11.512925148010254]
    """
    return math.log1p(total) * _Rectifier.apply(torch.tanh(z / (4 * math.e)))


def poisson_loss(log_rate: Tensor, shifted: Tensor) -> Tensor:
    """``exp(log_rate) - log_rate * shifted`` for each gene; ``shifted`` is one plus the count."""
    return log_rate.exp() - log_rate * shifted


def _smallest(cells: WholeCells) -> Tensor:
    """Sum over measured genes of the loss at the true values; a zero gene's is 1."""
    lengths = torch.tensor(cells.profile["indptr"], device=cells.scale.device).diff()
    shifted = 1 + cells.profile["counts"] * cells.scale.repeat_interleave(lengths)
    return (shifted - shifted * shifted.log() - 1).sum() + cells.n_measured.sum()


class _Rectifier(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return grads[0] * ((x > 0) | (grads[0] < 0))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.dense = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.silu(self.dense(self.norm(x)))
