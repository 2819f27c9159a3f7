"""From arguments to a subcommand, and from errors to messages and exit codes."""

import argparse
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from .._errors import InputError, ModelFileError, ResourceError
from ..settings import settings
from . import _annotate, _corpus, _doctor, _embed, _fine_tune, _models, _perturb, _pretrain
from ._words import in_words_of_the_shell, tell

_COMMANDS = (_embed, _annotate, _fine_tune, _perturb, _corpus, _pretrain, _models, _doctor)
_DESCRIPTION = """\
One Transformer for human and mouse single cells: embeddings, labels and in silico perturbation
from raw counts in h5ad files or zarr folders, offline."""
_EPILOG = """\
Start with `scmix doctor`, then `scmix embed cells.h5ad -o embedded.h5ad`. The options are those of
the Python functions (scmix.tl.embed, ...), where more is said about each."""

# What other packages say about formats that they write, and users of scmix can do nothing about.
_PLANS = ("Writing zarr v2 data", "Consolidated metadata is currently not part")

# What the user can mend, and what the machine refused.
_MENDABLE = (InputError, ModelFileError)
_REFUSED = (ResourceError, OSError, MemoryError, ImportError, FloatingPointError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `scmix`.

    Parameters
    ----------
    arguments
        Instead of those that the process was started with.

    Returns
    -------
    Exit code: 0, 1 when something failed, 2 when the input has to change, 130 after Ctrl-C.
    """
    args = make_parser().parse_args(arguments)
    try:
        with _ended_in_order(), warnings.catch_warnings(), _as_loud_as_wanted(args):
            _told_plainly(args)
            return args.run(args) or 0
    except KeyboardInterrupt:
        tell("scmix: stopped. No output was written.")
        return 130
    except BrokenPipeError:  # `scmix models list | head`
        sys.stderr.close()
        return 1
    except _MENDABLE as error:
        return _failed(args, str(error), 2)
    except _REFUSED as error:
        return _failed(args, str(error) or type(error).__name__, 1)
    except Exception:
        tell(traceback.format_exc())
        return _failed(args, "this is a fault of scmix. Please report it with the lines above.", 1)


def make_parser() -> argparse.ArgumentParser:
    """The options of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="scmix",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="say the version and end")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return parser


class _Version(argparse.Action):
    """Reads the version only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from .. import __version__

        sys.stdout.write(f"scmix {__version__}\n")
        parser.exit()


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM (a time limit) end the command as an error does: half-written files go."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _as_loud_as_wanted(args: argparse.Namespace) -> Iterator[None]:
    before = settings.progress, settings.verbosity
    if getattr(args, "quiet", False):
        settings.progress, settings.verbosity = False, "warning"
    try:
        yield
    finally:
        settings.progress, settings.verbosity = before


def _told_plainly(args: argparse.Namespace) -> None:
    """Show what scmix warns of as one line, and nothing of what other packages plan to change."""
    for planned in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
        warnings.simplefilter("ignore", planned)
    for plan in _PLANS:
        warnings.filterwarnings("ignore", plan)

    def show(message: Warning | str, *_: object, **__: object) -> None:
        tell(f"scmix: warning: {in_words_of_the_shell(str(message), args)}")

    warnings.showwarning = show  # type: ignore[assignment]


def _failed(args: argparse.Namespace, message: str, code: int) -> int:
    tell(f"scmix: error: {in_words_of_the_shell(message, args)}")
    return code
