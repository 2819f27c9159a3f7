"""Checkpoints: folders with weights, configuration, vocabulary and manifest; nothing is code.

A checkpoint is also a `transformers.BertForMaskedLM` folder, and such a folder opens here when
the vocabulary is given. What a file says is believed only after it has been checked: sizes and
hashes against the manifest, tensor names and shapes against the configuration.
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._model import Model, load, save, untrained

__all__ = ["Model", "load", "save", "untrained"]

__getattr__, __dir__ = lazy_names(__name__, dict.fromkeys(__all__, "_model"))
