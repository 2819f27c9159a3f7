"""An encoder with a head for each label key, as one module."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import dropout
from ..batches import Sequences, ranges
from ..encoder import Encoder
from ..genes import Vocabulary
from ._expression import expression
from ._recipes import Recipe

Batch = dict[str, Any]  # of `as_batch`

_VOTE_RATE = 0.02  # of the head's learning rate: a cell's votes are many, and log counts are large


class Network(nn.Module):
    """Logits of cells for one or several label keys.

    Parameters
    ----------
    encoder
        The encoder; it is changed by training.
    sizes
        Number of classes of each key.
    pool
        "mean" over the genes, or "pooler".
    hidden_layer
        Hidden state that is pooled, counted from 0.
    gene_votes
        Whether genes vote for classes directly.
    dropout
        Share of the pooled vector dropped in training.
    """

    def __init__(
        self,
        encoder: Encoder,
        sizes: Sequence[int],
        *,
        pool: str,
        hidden_layer: int,
        gene_votes: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        config = encoder.config
        self.encoder, self.pool, self.hidden_layer = encoder, pool, hidden_layer
        self.dropout_p = dropout
        heads = [nn.Linear(config.hidden_size, n) for n in sizes]
        for head in heads:
            nn.init.normal_(head.weight, std=config.initializer_range)
            nn.init.zeros_(head.bias)
        self.heads: Any = nn.ModuleList(heads)  # of Linear, which a ModuleList cannot say
        voted = sizes if gene_votes else ()
        self.votes = nn.ParameterList(torch.zeros(config.vocab_size, n) for n in voted)

    def forward(self, batch: Batch) -> list[Tensor]:
        """Logits (n, n_classes) for each key; `batch` is that of :func:`as_batch`."""
        hidden = self.encoder(batch["tokens"], batch["indptr"], layer=self.hidden_layer)
        pooled = dropout(self._pooled(hidden, batch), self.dropout_p, self.training)
        logits = [head(pooled) for head in self.heads]
        if not self.votes:
            return logits
        genes, starts, weights = (batch[name] for name in ("genes", "starts", "weights"))
        return [
            scores + F.embedding_bag(genes, votes, starts, per_sample_weights=weights, mode="sum")
            for scores, votes in zip(logits, self.votes, strict=True)
        ]

    def _pooled(self, hidden: Tensor, batch: Batch) -> Tensor:
        if self.pool == "mean":
            return self.encoder.pool(hidden, batch["indptr"], batch["is_gene"])
        starts = torch.as_tensor(batch["indptr"][:-1], device=hidden.device)
        return self.encoder.pooler(hidden[starts]).float()


def as_batch(sequences: Sequences, vocabulary: Vocabulary, n_positions: int) -> Batch:
    """The tensors that a network reads, for cells that have genes.

    Parameters
    ----------
    sequences
        Tokens of the cells, special ones included. Votes read all of them.
    vocabulary
        Of the tokens.
    n_positions
        Tokens of a cell that the encoder reads.
    """
    read = first_tokens(sequences, n_positions)
    return {
        "tokens": torch.from_numpy(read.tokens.astype(np.int64)),
        "is_gene": torch.from_numpy(~np.isin(read.tokens, vocabulary.special_ids)),
        "indptr": read.indptr.tolist(),  # a list stays on the host, where it is needed
        "genes": torch.from_numpy(sequences.tokens.astype(np.int64)),
        "starts": torch.from_numpy(sequences.indptr[:-1].copy()),
        "weights": torch.from_numpy(expression(sequences, vocabulary)),
    }


def first_tokens(sequences: Sequences, n: int) -> Sequences:
    """Sequences cut to their first `n` tokens."""
    lengths = np.minimum(sequences.lengths, n)
    tokens = sequences.tokens[ranges(sequences.indptr[:-1], lengths)]
    return Sequences(tokens, np.concatenate([[0], np.cumsum(lengths)]))


def with_pooler(encoder: Encoder, pooler: bool, seed: int) -> Encoder:
    """A copy of an encoder to train; a pooler that it lacks starts at random, by the seed."""
    if not pooler or encoder.has_pooler:
        return copy.deepcopy(encoder)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        grown = Encoder(encoder.config, pooler=True)
    grown.load_state_dict(encoder.state_dict(), strict=False)
    return grown


def cross_entropy(
    logits: list[Tensor], codes: Tensor, weights: list[Tensor] | None = None
) -> Tensor:
    """Sum over the keys of the mean cross-entropy of the cells that have a label.

    Parameters
    ----------
    logits
        (n, n_classes) for each key.
    codes
        (n, n_keys), -1 where a cell has no label.
    weights
        Weight of each class, for each key.
    """
    total = logits[0].new_zeros(())
    for i, scores in enumerate(logits):
        labelled = codes[:, i] >= 0
        if labelled.any():
            weight = None if weights is None else weights[i].to(scores)
            total = total + F.cross_entropy(scores[labelled], codes[labelled, i], weight=weight)
    return total


def freeze(network: Network, n_layers: int) -> None:
    """Leave the embeddings and the lowest layers as they are; -1: the whole encoder.

    What the output does not depend on (the masked language model head, layers above the pooled
    one) is left as well.
    """
    bert, used = network.encoder.bert, network.hidden_layer
    frozen = used if n_layers == -1 else min(n_layers, used)
    network.encoder.cls.requires_grad_(False)
    bert.encoder.layer[used:].requires_grad_(False)
    if n_layers:
        bert.embeddings.requires_grad_(False)
        bert.encoder.layer[:frozen].requires_grad_(False)


def parameter_groups(network: Network, recipe: Recipe) -> list[dict]:
    """Weights that are trained, by learning rate and decay; biases and norms do not decay."""
    head = recipe.head_learning_rate or recipe.learning_rate
    rates = dict.fromkeys(map(id, network.heads.parameters()), head)
    rates |= dict.fromkeys(map(id, network.votes.parameters()), head * _VOTE_RATE)
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            rate = rates.get(id(parameter), recipe.learning_rate)
            groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": members, "lr": rate, "weight_decay": recipe.weight_decay if decays else 0.0}
        for (rate, decays), members in groups.items()
    ]
