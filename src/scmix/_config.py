"""Sizes of an encoder, in the words of transformers' BertConfig."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scmix._errors import IncompatibleModelError


def _in_place(activation: Callable[..., Tensor], x: Tensor) -> Tensor:
    """Without gradients no memory is taken for the result; nobody reads what goes in again."""
    return activation(x, inplace=not torch.is_grad_enabled())


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": partial(_in_place, F.silu),
    "swish": partial(_in_place, F.silu),
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": partial(_in_place, F.relu),
}

# Keys of a transformers config.json that choose another computation, and the only value we compute.
_FIXED = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "tie_word_embeddings": True,
    "quantization_config": None,
}
# What a config.json must say itself: BertConfig's defaults are those of another model.
_SIZES = {
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
}


@dataclass(frozen=True)
class Config:
    """Sizes of an encoder, named as in ``transformers.BertConfig``.

    Examples
    --------
    >>> Config(vocab_size=100, num_hidden_layers=2).to_dict()["num_hidden_layers"]
    2
    """

    vocab_size: int
    hidden_size: int = 256
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    intermediate_size: int = 512
    hidden_act: str = "silu"
    hidden_dropout_prob: float = 0.1
    # Above 0, attention leaves its fast kernels in training, and memory grows with the square of
    # the length.
    attention_probs_dropout_prob: float = 0.0
    max_position_embeddings: int = 2048
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise IncompatibleModelError(
                f"hidden_size={self.hidden_size} is not a multiple of "
                f"num_attention_heads={self.num_attention_heads}."
            )
        if self.hidden_act not in ACTIVATIONS:
            raise IncompatibleModelError(
                f"Found hidden_act={self.hidden_act!r}, expected one of {', '.join(ACTIVATIONS)}."
            )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise IncompatibleModelError(
                    f"Found {name}={getattr(self, name)}, expected 0 <= {name} < 1."
                )

    def to_dict(self) -> dict[str, Any]:
        """All fields, with what ``transformers`` needs to open them as ``BertForMaskedLM``."""
        return {"architectures": ["BertForMaskedLM"], "model_type": "bert", **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """Read a BERT ``config.json``; settings that would change the computation are refused."""
        for name, expected in _FIXED.items():
            if values.get(name, expected) != expected:
                raise IncompatibleModelError(
                    f"Found {name}={values[name]!r} in the model configuration; scmix computes "
                    f"{name}={expected!r} only."
                )
        names = {field.name for field in fields(cls)}
        missing = sorted(_SIZES - set(values))
        if missing:
            raise IncompatibleModelError(f"The model configuration lacks {', '.join(missing)}.")
        return cls(**{name: value for name, value in values.items() if name in names})
