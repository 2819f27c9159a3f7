"""The command `scmix`: parses arguments, calls the Python functions; nobody imports it.

One file per subcommand, with `add` (its options) and a function that runs it. Nothing here loads
torch before a command that computes has been chosen, so that `scmix --help` answers at once.
"""

from ._main import main

__all__ = ["main"]
