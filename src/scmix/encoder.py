"""The Transformer encoder: BERT on packed sequences, with the parameter names of transformers.

``Encoder`` computes what ``transformers.BertForMaskedLM`` computes, from the same state dict, but
takes all cells as one flat row of tokens and runs only the layers that are asked for. The masked
language model head runs on the rows it is given, never on every token. Its modules are in `_bert`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._bert import Bert, Head, Packing
from ._config import Config
from ._errors import IncompatibleModelError, InputError

__all__ = ["Config", "Encoder"]


class Encoder(nn.Module):
    """BERT encoder over packed cells, with its masked language model head.

    Parameters
    ----------
    config
        Sizes.
    pooler
        Whether there is a pooler (a dense layer with tanh on the first token).

    Examples
    --------
    Two cells, of three and two genes:

    >>> encoder = Encoder(Config(vocab_size=50, hidden_size=16, num_hidden_layers=2)).eval()
    >>> hidden = encoder(torch.tensor([7, 8, 9, 4, 5]), [0, 3, 5])
    >>> hidden.shape
    torch.Size([5, 16])
    >>> encoder.logits(hidden[[1]]).shape
    torch.Size([1, 50])
    """

    def __init__(self, config: Config, *, pooler: bool = False) -> None:
        super().__init__()
        self.config = config
        self.bert = Bert(config, pooler)
        self.cls = Head(config)
        self.apply(self._init_weights)

    @property
    def has_pooler(self) -> bool:
        """Whether the encoder has a pooler."""
        return self.bert.pooler is not None

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(0.0, self.config.initializer_range)
        if isinstance(module, nn.Linear):
            module.bias.zero_()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight[module.padding_idx].zero_()

    @overload
    def forward(
        self,
        tokens: Tensor,
        indptr: Tensor | Sequence[int],
        *,
        layer: int = -1,
        all_layers: Literal[False] = False,
        added: Tensor | None = None,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        tokens: Tensor,
        indptr: Tensor | Sequence[int],
        *,
        layer: int = -1,
        all_layers: Literal[True],
        added: Tensor | None = None,
    ) -> list[Tensor]: ...
    def forward(
        self,
        tokens: Tensor,
        indptr: Tensor | Sequence[int],
        *,
        layer: int = -1,
        all_layers: bool = False,
        added: Tensor | None = None,
    ) -> Tensor | list[Tensor]:
        """Hidden states of every token.

        Parameters
        ----------
        tokens
            Token ids of all cells, int64 or int32, shape ``(T,)``.
        indptr
            Where each cell starts and the last ends, shape ``(n + 1,)``. Best left on the CPU: the
            lengths are needed there.
        layer
            Index into the hidden states as in transformers: 0 is the embedding layer,
            ``num_hidden_layers`` or -1 the last. Layers above are not run.
        all_layers
            Return the hidden states of every layer up to ``layer``.
        added
            What is added to the word embeddings before their LayerNorm, such as embedded
            expression values: shape ``(T, hidden_size)``. None: nothing.

        Returns
        -------
        Shape ``(T, hidden_size)``, or a list of such.
        """
        n_run = self.resolve_layer(layer)
        packing = Packing(indptr, tokens.device)
        self._check(tokens, packing)
        hidden = [self.bert.embeddings(tokens, packing.positions, added)]
        for block in self.bert.encoder.layer[:n_run]:
            x = block(hidden[-1], packing)
            hidden = [*hidden, x] if all_layers else [x]
        return hidden if all_layers else hidden[0]

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Hidden state 0 of tokens at some positions, both ``(T,)``: shape ``(T, H)``."""
        return self.bert.embeddings(tokens, positions)

    def from_embeddings(
        self,
        embedded: Tensor,
        indptr: Tensor | Sequence[int],
        *,
        layer: int = -1,
        key_bias: Tensor | None = None,
        first: int = 0,
    ) -> Tensor:
        """Hidden states of every token from hidden state 0, which may carry a gradient.

        Parameters
        ----------
        embedded
            As :meth:`embed` returns it, shape ``(T, H)``.
        indptr, layer
            As in :meth:`forward`.
        key_bias
            Logarithm of the weight with which each token is attended to, shape ``(T,)``; None:
            all have weight one.
        first
            Which hidden state `embedded` is, if not 0: layers up to it have been run.
        """
        packing = Packing(indptr, embedded.device, key_bias)
        for block in self.bert.encoder.layer[first : self.resolve_layer(layer)]:
            embedded = block(embedded, packing)
        return embedded

    def logits(self, hidden: Tensor) -> Tensor:
        """Score of every token of the vocabulary at given rows: ``(M, H)`` to ``(M, vocab)``."""
        head = self.cls.predictions
        decoder = self.bert.embeddings.word_embeddings.weight  # tied
        return F.linear(head.transform(hidden), decoder, head.bias)

    def pool(
        self,
        hidden: Tensor,
        indptr: Tensor | Sequence[int],
        keep: Tensor | None = None,
    ) -> Tensor:
        """Mean over the tokens of each cell, in fp32.

        Parameters
        ----------
        hidden
            Shape ``(T, H)``.
        indptr
            Shape ``(n + 1,)``.
        keep
            Which tokens count, bool, shape ``(T,)``; None: all.

        Returns
        -------
        Shape ``(n, H)``, float32. A cell with no token that counts is NaN.
        """
        x = hidden.float()
        offsets = torch.as_tensor(indptr).to(x.device, torch.int64)
        weights = x.new_ones(len(x)) if keep is None else keep.to(x)
        total = torch.segment_reduce(weights, "sum", offsets=offsets)
        # embedding_bag sums rows as segment_reduce does, 13 times as fast
        rows = torch.arange(len(x), device=x.device)
        sums = F.embedding_bag(
            rows, x, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
        )
        return sums / total[:, None]

    def pooler(self, first: Tensor) -> Tensor:
        """The pooler's output for the hidden states of first tokens, ``(n, H)``."""
        if self.bert.pooler is None:
            raise InputError('This model has no pooler. Use pool="mean".')
        return torch.tanh(self.bert.pooler(first))

    def resolve_layer(self, layer: int) -> int:
        """Number of layers to run for ``hidden_states[layer]``."""
        n = self.config.num_hidden_layers
        if not -n - 1 <= layer <= n:
            raise InputError(
                f"Found layer={layer}; this model has hidden states 0 (embeddings) to {n}, "
                f"or {-n - 1} to -1 counted from the last."
            )
        return layer % (n + 1)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load parameters; a ``BertForMaskedLM`` state dict is taken as it is.

        Its tied decoder, buffers and, when this encoder has none, pooler are left out.
        A decoder that is not tied to the word embeddings is refused.
        """
        kept = _without_duplicates(state_dict)
        if not self.has_pooler:
            kept = {k: v for k, v in kept.items() if not k.startswith("bert.pooler.")}
        return super().load_state_dict(kept, strict=strict, assign=assign)

    def _check(self, tokens: Tensor, packing: Packing) -> None:
        if packing.n_tokens != tokens.numel():
            raise InputError(
                f"indptr ends at {packing.n_tokens:,}, but there are {tokens.numel():,} tokens."
            )
        longest = max(packing.lengths, default=0)
        if longest > self.config.max_position_embeddings:
            raise InputError(
                f"Found a sequence of {longest:,} tokens; this model takes at most "
                f"{self.config.max_position_embeddings:,}. Encode fewer genes per cell."
            )


def _without_duplicates(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tied = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    for copy, original in tied.items():
        both = copy in state_dict and original in state_dict
        if both and not torch.equal(state_dict[copy], state_dict[original]):
            raise IncompatibleModelError(
                f"{copy} differs from {original}; scmix computes tied weights only."
            )
    dropped = {*tied, "bert.embeddings.position_ids", "bert.embeddings.token_type_ids"}
    return {name: value for name, value in state_dict.items() if name not in dropped}
