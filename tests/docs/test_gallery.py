"""The gallery has a picture of every plot, and is small."""

import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import scmix

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "docs" / "gallery"
MOST_BYTES = 1_000_000


@pytest.mark.parametrize("name", scmix.pl.__all__)
def test_every_plot_has_a_picture_on_the_page(name: str) -> None:
    page = (GALLERY / "index.md").read_text(encoding="utf-8")
    assert f"]({name}.png)" in page
    assert f"## {{func}}`scmix.pl.{name}`" in page
    height, width, _ = plt.imread(GALLERY / f"{name}.png").shape
    assert min(height, width) >= 300


def test_the_script_draws_all_of_them() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "draw_gallery.py"))
    assert set(script["PICTURES"]) == set(scmix.pl.__all__)


def test_pictures_are_small_together() -> None:
    assert sum(path.stat().st_size for path in GALLERY.glob("*.png")) < MOST_BYTES
