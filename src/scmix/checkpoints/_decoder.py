"""The value decoder of a checkpoint: decoder.json with its sizes, decoder.safetensors."""

import torch

from .._config import Config
from .._errors import InputError
from ..decoders import ValueDecoder
from ..encoder import Encoder
from ._contents import Contents
from ._manifest import DECODER, DECODER_SETTINGS, to_text
from ._tensors import read_tensors, weights_bytes


def files_of(decoder: ValueDecoder, dtype: torch.dtype) -> dict[str, bytes]:
    """The files of a decoder, by name."""
    return {
        DECODER: weights_bytes(decoder.state_dict(), dtype),
        DECODER_SETTINGS: to_text(decoder.settings.to_dict(), "the sizes of the decoder"),
    }


def read(contents: Contents, config: Config) -> ValueDecoder | None:
    """The decoder in evaluation mode, float32, on the CPU; None where there is none."""
    if contents.decoder is None:
        return None
    entries, content, _ = contents.decoder_weights()
    tensors = read_tensors(entries, content, contents.folder / DECODER)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        decoder = ValueDecoder(contents.decoder, config)
    decoder.load_state_dict(tensors, assign=True)
    return decoder.eval()


def check_fit(decoder: ValueDecoder, encoder: Encoder) -> None:
    """Refuse a decoder that was made for another encoder."""
    found = (decoder.memory.in_features, decoder.mean.shape[1])
    expected = (encoder.config.hidden_size, encoder.config.vocab_size)
    if found != expected:
        raise InputError(
            f"Found a decoder for width {found[0]:,} and {found[1]:,} tokens, and an encoder of "
            f"width {expected[0]:,} with {expected[1]:,} tokens. Save the decoder with the encoder "
            "that it was trained with."
        )
