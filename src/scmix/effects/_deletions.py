"""Cells without one of their genes: what the first layer computes for all of them at once.

Deleting a gene leaves the tokens in front of it as they are and moves those behind it up by one
position. So every token enters the first layer in one of two ways, wherever the gene stood, and
queries, keys, values and attention weights are computed once for a cell. Let `moved` be the tokens
as they stand behind a deleted gene and `stays` as they are in front of one: with both laid out as
`[moved, stays]`, the cell without token `p` is the slice from `p + 1` to `n + p`, and attention
within it the product of a square block of the weights with the values.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batches import Sequences
from ..encoder import Encoder

FEWEST = 60  # edits of a cell; for fewer, preparing (0.1 s at 1,024 tokens) costs too much


class Deletions:
    """A cell, and its hidden states without single tokens.

    Parameters
    ----------
    encoder
        Ready for inference, on the CPU.
    tokens
        All tokens that are read before or after a deletion, in order, `(n,)`.
    layer
        Index into the hidden states, at least 1 when resolved.
    """

    @torch.inference_mode()
    def __init__(self, encoder: Encoder, tokens: np.ndarray, layer: int) -> None:
        self.encoder, self.layer, self.n = encoder, layer, len(tokens)
        layers: Any = encoder.bert.encoder.layer
        block = layers[0].attention.self
        self.embedded = _both(encoder, torch.from_numpy(tokens))
        parts = (block.query, block.key, block.value)
        q, k, v = (
            part(self.embedded).unflatten(1, (block.n_heads, -1)).transpose(0, 1) for part in parts
        )
        scores = ((q * q.shape[-1] ** -0.5) @ k.transpose(1, 2)).float()
        self.weights = scores.sub_(scores.amax(dim=-1, keepdim=True)).exp_()
        ones = torch.ones(*v.shape[:2], 1)  # their sum is what is divided by
        self.values = torch.cat([v.float(), ones], dim=2)
        # in double, head by head: what is left of a sum is small where a token had most attention
        rest = slice(1, self.n)
        pairs = zip(self.weights, self.values, strict=True)
        self.mixed = torch.stack([w[:, rest].double() @ v[rest].double() for w, v in pairs])
        self.place = 0

    @torch.inference_mode()
    def hidden(self, places: np.ndarray) -> Tensor:
        """Hidden states of the cell without each of some tokens: `(m * (n - 1), H)`, in order.

        Fast where places rise from call to call: what one deletion mixes is made from the last.
        """
        first: Any = self.encoder.bert.encoder.layer[0]
        x = self.embedded.new_empty(len(places), self.n - 1, self.embedded.shape[1])
        mixed = torch.empty_like(x)
        for p, of_x, of_mixed in zip(places.tolist(), x, mixed, strict=True):
            self._mix(p)
            for rows, to in self._in_order(p):
                of_x[to] = self.embedded[rows]
                parts = self.mixed[:, rows].transpose(0, 1)
                out = of_mixed[to].unflatten(1, (parts.shape[1], -1))
                torch.div(parts[:, :, :-1], parts[:, :, -1:], out=out)
        x, mixed = x.flatten(0, 1), mixed.flatten(0, 1)
        x = first.attention.output(mixed, x)
        x = first.output(first.activation(first.intermediate(x)), x)
        bounds = torch.arange(len(places) + 1) * (self.n - 1)
        return self.encoder.from_embeddings(x, bounds, layer=self.layer, first=1).float()

    def _mix(self, place: int) -> None:
        """Attention of the first layer without one token, before it is divided."""
        low, high = sorted((self.place, place))
        if low == high:
            return
        leaves, comes = slice(low + 1, high + 1), slice(self.n + low, self.n + high)
        weights = torch.cat([self.weights[:, :, comes], self.weights[:, :, leaves]], dim=2)
        values = torch.cat([self.values[:, comes], -self.values[:, leaves]], dim=1)
        sign = 1 if place == high else -1
        self.mixed.baddbmm_(weights.double(), values.double(), alpha=sign)
        self.place = place

    def _in_order(self, place: int) -> Iterator[tuple[slice, slice]]:
        """Rows of both layouts in front of a token and behind it, and where the cell has them."""
        yield slice(self.n, self.n + place), slice(0, place)
        yield slice(place + 1, self.n), slice(place, self.n - 1)


class Latest:
    """The deletions of one cell at a time, made when they are asked for.

    Parameters
    ----------
    encoder, layer
        As in :class:`Deletions`.
    cells
        All tokens that are read before or after a deletion, of some cells.
    """

    def __init__(self, encoder: Encoder, layer: int, cells: Sequences) -> None:
        self.encoder, self.layer, self.cells = encoder, layer, cells
        self._made: tuple[int, Deletions] | None = None

    def of(self, cell: int) -> Deletions:
        """Those of a cell."""
        if self._made is None or self._made[0] != cell:
            self._made = None  # free its memory first
            self._made = cell, Deletions(self.encoder, self.cells[cell], self.layer)
        return self._made[1]


def _both(encoder: Encoder, tokens: Tensor) -> Tensor:
    """Embeddings of tokens moved up, and where they are: `(2 n, H)`."""
    place = torch.arange(len(tokens))
    last = encoder.config.max_position_embeddings - 1  # what is let in is only read moved up
    moved = encoder.embed(tokens, (place - 1).clamp(min=0))
    return torch.cat([moved, encoder.embed(tokens, place.clamp(max=last))])
