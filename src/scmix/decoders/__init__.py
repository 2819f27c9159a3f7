"""Value decoders: from an encoder's hidden states to the expression of any gene of a cell.

A model that was trained with the objectives `value_autoencoder` or `restore` has one, and
`scmix.tl.impute` reads it. Expression is ``log1p(10,000 x count / all counts of the cell)``.
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._predict import predict
    from ._profiles import Profiles
    from ._settings import Settings
    from ._value_decoder import ValueDecoder

__all__ = ["Profiles", "Settings", "ValueDecoder", "predict"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Profiles": "_profiles",
        "Settings": "_settings",
        "ValueDecoder": "_value_decoder",
        "predict": "_predict",
    },
)
