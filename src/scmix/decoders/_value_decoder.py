"""The decoder: genes of a cell ask what the encoder made of the cell's visible genes."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._config import Config
from ._settings import Settings
from ._value_embeddings import FixedBins, SoftBins

_SPREAD = 0.02
_SHARPNESS = 3.0  # of queries and keys at the start


class ValueDecoder(nn.Module):
    """Predicts the expression of genes of a cell from the encoder's output for its visible genes.

    A gene to be predicted is a query, made of the encoder's own vector of that gene. Queries
    attend to the visible genes (and to one learned vector that is always there), never to each
    other, so that a prediction does not depend on what else is predicted: a few sampled genes in
    training and all genes in blocks later give the same numbers as all genes at once. A published
    dense decoder lets the masked genes see each other and the zeros.

    Where it starts matters for small models. The last layer starts at zero and its output is in
    standard deviations from the gene's mean, so that before any training the mean is predicted.
    Queries and keys start alike, so that a gene first looks at genes with vectors like its own
    (with the start from co-expression: those it is expressed with).

    Parameters
    ----------
    settings
        Sizes.
    config
        Of the encoder.

    Attributes
    ----------
    mean, scale
        Mean and standard deviation of each gene in each species, float32, shape ``(2, vocab)``.
    """

    mean: nn.Parameter
    scale: Tensor

    def __init__(self, settings: Settings, config: Config) -> None:
        super().__init__()
        self.settings = settings
        width, hidden, vocab = settings.width, config.hidden_size, config.vocab_size
        self.values: SoftBins | FixedBins = (
            SoftBins(settings.n_bins, hidden, math.log1p(settings.total))
            if settings.kind == "value_autoencoder"
            else FixedBins(settings.n_bins, hidden, math.log1p(settings.total))
        )
        self.depth = nn.Linear(2, hidden) if settings.reads_depth else None
        self.memory = nn.Linear(hidden, width)
        self.query = nn.Linear(hidden, width)
        self.anchor = nn.Parameter(torch.zeros(width))
        self.layers = nn.ModuleList(_Layer(settings) for _ in range(settings.num_layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)
        self.mean = nn.Parameter(torch.zeros(2, vocab))
        self.register_buffer("scale", torch.ones(2, vocab))
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        self.anchor.normal_()
        self.head.weight.zero_()
        self.head.bias.zero_()
        self.query.load_state_dict(self.memory.state_dict())
        if self.depth is not None:
            self.depth.weight.normal_(0.0, _SPREAD)

    def added(self, values: Tensor, known: Tensor, depth: Tensor | None = None) -> Tensor:
        """What an encoder adds to the embeddings of its tokens.

        Parameters
        ----------
        values
            Expression of each token, shape ``(T,)``.
        known
            Where a value is added, bool, shape ``(T,)``: not at special tokens.
        depth
            Decimal logarithm of the counts of each token's cell, as shown and as wanted, shape
            ``(T, 2)``; for a decoder that reads it.

        Returns
        -------
        Shape ``(T, hidden_size)``.
        """
        vectors = self.values(values)
        if self.depth is not None and depth is not None:
            vectors = vectors + self.depth(depth - 4)  # about zero for cells of 10,000 counts
        return torch.where(known[:, None], vectors, 0)

    def remember(
        self, hidden: Tensor, indptr: Tensor | Sequence[int]
    ) -> tuple[list[Tensor], Tensor]:
        """What queries attend to in each layer, and where it is more than padding.

        Parameters
        ----------
        hidden
            The encoder's output, shape ``(T, hidden_size)``.
        indptr
            Where each cell starts, shape ``(n + 1,)``.

        Returns
        -------
        For each layer, shape ``(n, L, width)``; and bool, shape ``(n, L)``. L is one more than
        the longest cell has tokens.
        """
        memory, real = _padded(self.memory(hidden), indptr)
        anchor = self.anchor.to(memory).expand(len(memory), 1, -1)
        memory = torch.cat([anchor, memory], 1)
        real = F.pad(real, (1, 0), value=True)
        if self.settings.kind == "restore":
            return [memory] * len(self.layers), real
        memories = [memory]
        for layer in self.layers[:-1]:
            memories.append(layer(memories[-1], memories[-1], real))
        return memories, real

    def decode(self, genes: Tensor, memories: list[Tensor], real: Tensor) -> Tensor:
        """Standard deviations from the mean: genes ``(n or 1, M, hidden_size)`` to ``(n, M)``.

        Parameters
        ----------
        genes
            The encoder's vectors of the genes.
        memories, real
            From :meth:`remember`.
        """
        x = self.query(F.layer_norm(genes, genes.shape[-1:])).expand(len(real), -1, -1)
        for layer, memory in zip(self.layers, memories, strict=True):
            x = layer(x, memory, real)
        return self.head(self.norm(x))[..., 0]

    def forward(
        self,
        words: nn.Embedding,
        memories: list[Tensor],
        real: Tensor,
        genes: Tensor,
        bounds: Sequence[int],
        species: Tensor,
    ) -> Tensor:
        """Expression of some genes of each cell.

        Parameters
        ----------
        words
            The encoder's word embeddings.
        memories, real
            From :meth:`remember`.
        genes
            Tokens, those of cell i at ``bounds[i]:bounds[i + 1]``, shape ``(M,)``.
        bounds
            Shape ``(n + 1,)``.
        species
            Species code of each cell, shape ``(n,)``.

        Returns
        -------
        Shape ``(M,)``, float32.
        """
        queries, wanted = _padded(words(genes), bounds)
        z = self.decode(queries, memories, real)[wanted].float()
        rows = species.repeat_interleave(torch.as_tensor(bounds, device=genes.device).diff())
        return self.mean[rows, genes] + self.scale[rows, genes] * z


class _Layer(nn.Module):
    """Attention to the memory, then a dense part; both on what LayerNorm leaves of their input."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width, inner = settings.width, settings.intermediate_size
        self.n_heads = settings.num_heads
        self.before_attention = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.before_dense = nn.LayerNorm(width)
        self.wide = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)
        with torch.no_grad():
            self.query.weight.mul_(_SHARPNESS)
        self.key.load_state_dict(self.query.state_dict())

    def forward(self, x: Tensor, memory: Tensor, real: Tensor) -> Tensor:
        asked, known = self.before_attention(x), self.before_attention(memory)
        q, k, v = (
            part(y).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for part, y in ((self.query, asked), (self.key, known), (self.value, known))
        )
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None])
        x = x + self.output(seen.transpose(1, 2).flatten(2))
        return x + self.narrow(F.silu(self.wide(self.before_dense(x))))


def _padded(rows: Tensor, indptr: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
    """Packed rows ``(T, W)`` as ``(n, longest, W)``, and where they are, bool ``(n, longest)``."""
    lengths = torch.as_tensor(indptr).to(rows.device).diff()
    real = torch.arange(int(lengths.max()), device=rows.device) < lengths[:, None]
    out = rows.new_zeros(*real.shape, rows.shape[1])
    return out.index_put(torch.where(real), rows), real
