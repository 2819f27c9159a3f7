"""`scmix doctor`: whether scmix works here."""

import argparse
import platform
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from . import _options
from ._words import answer, in_words_of_the_shell

_EXTRAS = ("dask", "hub", "evaluate", "lora")  # those that a function of scmix may ask for

Lines = Iterator[tuple[bool, str]]  # whether all is well, and what to say


def add(commands: _options.Commands) -> None:
    parser = _options.command(
        commands,
        "doctor",
        _run,
        "Check versions, device and models, and embed a few cells.",
        "[options]",
    )
    parser.add_argument(
        "--model", default="scmix-mini", help="name or folder of a model (default: %(default)s)"
    )
    parser.add_argument("--device", help="auto (a GPU if there is one), cpu, cuda, cuda:1, mps")


def _run(args: argparse.Namespace) -> int:
    n_faults = 0
    checks: dict[str, Callable[[], Lines]] = {
        "Packages": _packages,
        "Optional packages": _optional_packages,
        "Device": lambda: _device(args.device),
        "Models": lambda: _models(args.model),
        "Self-test": lambda: _self_test(args.model, args.device),
    }
    for title, check in checks.items():
        answer(title)
        for good, line in _caught(check, args):
            n_faults += not good
            answer(f"  {'ok  ' if good else 'FAIL'}  {line}")
    answer("All is well." if not n_faults else f"Found {n_faults} faults.")
    return 1 if n_faults else 0


def _caught(check: Callable[[], Lines], args: argparse.Namespace) -> Lines:
    """What a check says; one that fails is a line like the others."""
    try:
        yield from check()
    except Exception as error:
        yield False, in_words_of_the_shell(f"{type(error).__name__}: {error}", args)


def _packages() -> Lines:
    system = f"{platform.system()} {platform.machine()}"
    yield sys.version_info >= (3, 11), f"Python {platform.python_version()} on {system}"
    yield True, f"scmix {version('scmix')}"
    for requirement in _requirements():
        if requirement.marker is None:
            yield _stands(requirement)


def _optional_packages() -> Lines:
    for requirement in _requirements():
        for extra in _EXTRAS:
            if requirement.marker and requirement.marker.evaluate({"extra": extra}):
                yield _stands(requirement, extra)


def _requirements() -> list[Requirement]:
    return [Requirement(text) for text in requires("scmix") or []]


def _stands(requirement: Requirement, extra: str = "") -> tuple[bool, str]:
    """Whether a package is there in a version that scmix works with."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        if extra:
            return True, f'{requirement.name} is not there: pip install "scmix[{extra}]"'
        return False, f'{requirement.name} is not there: pip install "{requirement}"'
    good = requirement.specifier.contains(found, prereleases=True)
    needed = "" if good else f", expected {requirement.specifier}: pip install -U scmix"
    return good, f"{requirement.name} {found}{needed}"


def _device(device: str | None) -> Lines:
    import torch

    from .._device import choose

    chosen, dtype = choose(device)
    number = str(dtype).removeprefix("torch.")
    name = f", {torch.cuda.get_device_name(chosen)}" if chosen.type == "cuda" else ""
    yield True, f"{chosen.type}{name}, computing in {number} ({torch.get_num_threads()} threads)"


def _models(model: str) -> Lines:
    """Loading compares every file with the sha256 in the manifest."""
    from .. import checkpoints, models

    for name in dict.fromkeys([*models.list().name, model]):
        loaded = checkpoints.load(name)
        yield (
            True,
            (
                f"{loaded.name}: {loaded.n_parameters:,} parameters, all files as saved "
                f"(weights {loaded.sha256[:12]})"
            ),
        )


def _self_test(model: str, device: str | None) -> Lines:
    from ._self_test import self_test

    yield from self_test(model, device)
