"""The modules of the encoder: BERT on packed sequences, with the parameter names of transformers.

A module is named and nested as in ``transformers.BertForMaskedLM``, so that a state dict of one
fits the other. ``Bert`` is what ``encoder.Encoder`` runs layer by layer, ``Head`` its masked
language model head.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._config import ACTIVATIONS, Config
from .attention import attention, dropout


class Packing:
    """Where the sequences of a batch lie, computed once for all layers."""

    def __init__(
        self,
        indptr: Tensor | Sequence[int],
        device: torch.device,
        key_bias: Tensor | None = None,
    ) -> None:
        self.key_bias = key_bias
        bounds = torch.as_tensor(indptr).to(device="cpu", dtype=torch.int64)
        lengths = bounds.diff()
        self.n_tokens = int(bounds[-1])
        self.lengths: list[int] = lengths.tolist()
        starts = bounds[:-1].repeat_interleave(lengths)
        self.positions = (torch.arange(self.n_tokens) - starts).to(device)
        self.cu_seqlens = bounds.to(device, torch.int32)


class Embeddings(nn.Module):
    """Hidden state 0: words, positions and the one token type, summed."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout_p = config.hidden_dropout_prob

    def forward(self, tokens: Tensor, positions: Tensor, added: Tensor | None = None) -> Tensor:
        x = self.word_embeddings(tokens) + self.token_type_embeddings.weight[0]
        x = x if added is None else x + added
        x = self.LayerNorm(x + self.position_embeddings(positions))
        return dropout(x, self.dropout_p, self.training)


class SelfAttention(nn.Module):
    """Every token looks at the tokens of its own cell."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.n_heads = config.num_attention_heads
        self.dropout_p = config.attention_probs_dropout_prob

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        parts = (self.query, self.key, self.value)
        q, k, v = (part(x).unflatten(-1, (self.n_heads, -1)) for part in parts)
        p = self.dropout_p if self.training else 0.0
        return attention(
            q,
            k,
            v,
            packing.cu_seqlens,
            packing.lengths,
            dropout_p=p,
            key_bias=packing.key_bias,
        ).flatten(1)


class Output(nn.Module):
    """Back to the residual stream: dense, dropout, sum, LayerNorm."""

    def __init__(self, n_in: int, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(n_in, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout_p = config.hidden_dropout_prob

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(residual + dropout(self.dense(x), self.dropout_p, self.training))


class Attention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Output(config.hidden_size, config)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        return self.output(self.self(x, packing), x)


class Dense(nn.Module):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.dense = nn.Linear(n_in, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x)


class Layer(nn.Module):
    """From one hidden state to the next: attention, then two dense layers."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Dense(config.hidden_size, config.intermediate_size)
        self.output = Output(config.intermediate_size, config)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        x = self.attention(x, packing)
        return self.output(self.activation(self.intermediate(x)), x)


class Layers(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))


class Bert(nn.Module):
    def __init__(self, config: Config, pooler: bool) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Layers(config)
        self.pooler = Dense(config.hidden_size, config.hidden_size) if pooler else None


class Transform(nn.Module):
    """What the language model head does before it compares with the word embeddings."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(self.activation(self.dense(x)))


class Predictions(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.transform = Transform(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))


class Head(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.predictions = Predictions(config)
