"""Every page of results names the script that prints its numbers, and every script is named."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
SCRIPT = re.compile(r"\b((?:benchmarks|scripts)/\w+\.py)")


@pytest.mark.parametrize("page", sorted(RESULTS.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_of_results_names_its_script(page: Path) -> None:
    assert SCRIPT.search(page.read_text(encoding="utf-8")) or page.stem == "index"


def test_scripts_that_are_named_exist() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    named = {script for page in pages for script in SCRIPT.findall(page.read_text("utf-8"))}
    assert not [script for script in sorted(named) if not (ROOT / script).exists()]


def test_every_benchmark_is_in_the_table() -> None:
    table = (RESULTS / "index.md").read_text(encoding="utf-8")
    scripts = [path.name for path in (ROOT / "benchmarks").glob("bench_*.py")]
    assert not [name for name in scripts if f"`{name}" not in table]
