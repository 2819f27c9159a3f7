"""The choices of a session: where models run, and how much scmix says."""

import logging
import re
from typing import Literal, get_args

Verbosity = Literal["error", "warning", "info", "debug"]
_DEVICE = re.compile(r"auto|cpu|mps|xpu|cuda(:\d+)?")

logger = logging.getLogger("scmix")


class Settings:
    """Session-wide defaults; an argument given to a function always wins.

    Attributes
    ----------
    device
        Where models run when a function gets no `device`: `"auto"` (a GPU if there is one, else
        the processor), `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`, `"xpu"`.
    progress
        Whether long loops show a progress bar.
    verbosity
        What is said on standard error: `"error"`, `"warning"`, `"info"` (also which slots were
        written and how many genes matched) or `"debug"`. It is the level of the logger `scmix`;
        an application that configures logging itself gets the messages in its own handlers.

    Examples
    --------
    >>> import scmix
    >>> scmix.settings.device = "cpu"
    >>> scmix.settings
    Settings(device='cpu', progress=True, verbosity='info')
    >>> scmix.settings.device = "auto"
    """

    __slots__ = ("_device", "_progress")

    def __init__(self) -> None:
        self.device = "auto"
        self.progress = True
        self.verbosity = "info"

    @property
    def device(self) -> str:
        return self._device

    @device.setter
    def device(self, value: str) -> None:
        if not isinstance(value, str) or not _DEVICE.fullmatch(value):
            raise ValueError(
                f"Found settings.device = {value!r}; expected 'auto', 'cpu', 'cuda', 'cuda:<n>', "
                "'mps' or 'xpu'."
            )
        self._device = value

    @property
    def progress(self) -> bool:
        return self._progress

    @progress.setter
    def progress(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"Found settings.progress = {value!r}; expected True or False.")
        self._progress = value

    @property
    def verbosity(self) -> str:
        return logging.getLevelName(logger.level).lower()

    @verbosity.setter
    def verbosity(self, value: Verbosity | str) -> None:
        if value not in get_args(Verbosity):
            known = ", ".join(repr(name) for name in get_args(Verbosity))
            raise ValueError(f"Found settings.verbosity = {value!r}; expected one of {known}.")
        logger.setLevel(str(value).upper())

    def __repr__(self) -> str:
        values = (f"{name}={getattr(self, name)!r}" for name in ("device", "progress", "verbosity"))
        return f"Settings({', '.join(values)})"


def _root_is_silent(_: logging.LogRecord) -> bool:
    return not logging.getLogger().handlers


# Say things in a plain notebook, but leave it to the application once that has set up logging.
_handler = logging.StreamHandler()
_handler.addFilter(_root_is_silent)
logger.addHandler(_handler)

settings = Settings()
