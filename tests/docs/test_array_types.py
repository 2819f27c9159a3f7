"""The table of array types is what really runs, with the same results."""

import runpy
import warnings
from pathlib import Path

import pytest

import scmix

SCRIPT = Path(__file__).parents[2] / "scripts" / "write_array_types.py"
LONG = ["tl.fine_tune", "tl.fine_tune_genes", "tl.annotate", "tl.evaluate", "tl.cross_fit"]


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(SCRIPT))


def check(script: dict, names: list[str], folder: Path) -> None:
    scmix.settings.progress = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = script["tried"](names, folder)
    table = script["read_table"]().loc[names]
    assert made.to_dict("index") == table.to_dict("index"), f"run {SCRIPT.name} again"


def test_every_function_is_in_the_table(script: dict) -> None:
    names = [f"pp.{name}" for name in scmix.pp.__all__]
    names += [f"tl.{name}" for name in scmix.tl.__all__]
    assert sorted(script["read_table"]().index) == sorted(names)


def test_short_functions(script: dict, tmp_path: Path) -> None:
    check(script, [name for name in script["FUNCTIONS"] if name not in LONG], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_long_functions(script: dict, name: str, tmp_path: Path) -> None:
    check(script, [name], tmp_path)
