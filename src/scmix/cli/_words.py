"""What the command says, in options of the shell instead of arguments of Python."""

import argparse
import os
import re
import shlex
import sys

_VALUE = r"\"[^\"]*\"|'[^']*'|\[[^\]]*\]|[\w+-]+(?:\.\w+)*"
_TAKE_NONE = ("--screen", "--max-cells")
_FUNCTIONS = {
    "scmix.models.list()": "`scmix models list`",
}


def tell(text: str) -> None:
    """Print a line for the person who watches."""
    sys.stderr.write(f"{text}\n")


def answer(text: str) -> None:
    """Print what was asked for, once where several processes share a run."""
    if is_first_process():
        sys.stdout.write(f"{text}\n")


def is_first_process() -> bool:
    """Whether this is the process of a run (of `torchrun`) that speaks and writes."""
    return os.environ.get("RANK", "0") == "0"


def in_words_of_the_shell(message: str, args: argparse.Namespace) -> str:
    """A message of a function, such as `Pass layer="counts"`, for somebody who types `--layer`."""
    for name, words in _FUNCTIONS.items():
        message = message.replace(name, words)
    flags = {name: flag_of(name, args) for name in vars(args) if name not in ("input", "run")}
    names = "|".join(sorted(flags, key=len, reverse=True))
    given = re.compile(rf"(?<![\w.\"'(-])({names})=({_VALUE})")
    message = given.sub(lambda found: _option(flags[found[1]], found[2]), message)
    message = re.sub(rf"(?<![\w.\"'(-])({names})=(?=[\s.,;])", lambda m: flags[m[1]], message)
    named = re.compile(rf"(?<![\w.\"'\[-])({names})(?=[\s.,;:)]|$)")
    return named.sub(lambda found: flags[found[1]] if "_" in found[1] else found[0], message)


def flag_of(name: str, args: argparse.Namespace) -> str:
    """How an argument of a function is given in the shell."""
    renamed: dict[str, str] = getattr(args, "renamed", {})
    return renamed.get(name, f"--{name.replace('_', '-')}")


def _option(flag: str, value: str) -> str:
    if value in ("True", "None"):
        return flag if value == "True" else f"{flag} none" if flag in _TAKE_NONE else f"no {flag}"
    return f"{flag} {shlex.quote(value.strip(chr(34) + chr(39)))}"
