"""One Transformer for human and mouse single cells, for people who work with AnnData.

`pp` prepares genes and ranks, `tl` computes, `pl` draws; `datasets` and `models` hold what ships
with the package, `pretrain` trains encoders, `settings` holds the few choices of a session.
Each is imported when it is first used.
"""

from typing import TYPE_CHECKING

from ._lazy import lazy_names

# Eager, because importing the module `scmix.settings` later would hide the object behind it.
from .settings import settings

if TYPE_CHECKING:
    from . import classifiers, datasets, models, pl, pp, pretrain, tl

    __version__: str

_PARTS = ("pp", "tl", "pl", "datasets", "models", "classifiers", "pretrain")

__all__ = ["pp", "tl", "pl", "datasets", "models", "classifiers", "pretrain"]
__all__ += ["settings", "__version__"]

_lazy, __dir__ = lazy_names(__name__, {name: name for name in _PARTS})


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("scmix")
    return _lazy(name)
