"""Links between files of the repository lead somewhere (`make linkcheck` follows the others)."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<!`)\]\((?!https?:|mailto:|#)([^)\s#]+)(?:#[^)]*)?\)")
FENCED = re.compile(r"^(```+|~~~+).*?^\1", re.MULTILINE | re.DOTALL)
FOLDERS = ("docs", "tutorials", "src/scmix/resources", "src/scmix/datasets/data", ".github")


def pages() -> list[Path]:
    found = list(ROOT.glob("*.md"))
    for folder in FOLDERS:
        for ending in ("md", "ipynb"):
            found += (ROOT / folder).rglob(f"*.{ending}")
    made = (ROOT / "docs" / "_build", ROOT / "docs" / "api" / "generated")
    return sorted(
        path
        for path in found
        if not any(path.is_relative_to(folder) for folder in made)
        and not (path.suffix == ".ipynb" and path.is_relative_to(ROOT / "docs"))
    )


def prose(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return FENCED.sub("", text)


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    missing = [link for link in LINK.findall(prose(path)) if not leads(path, link)]
    assert not missing


def leads(path: Path, link: str) -> bool:
    """Whether the target is there; the site's copies of notebooks stand for the notebooks."""
    target = (path.parent / link).resolve()
    copies = ROOT / "docs" / "tutorials"
    if target.suffix == ".ipynb" and target.is_relative_to(copies):
        target = ROOT / "tutorials" / target.relative_to(copies)
    return target.exists()
