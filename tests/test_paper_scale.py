"""What the paper-scale plan counts is what training computes."""

import runpy
from pathlib import Path

import pytest

from scmix.encoder import Config

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "paper_scale.py"))
TINY = Config(
    vocab_size=300,
    hidden_size=32,
    num_hidden_layers=2,
    intermediate_size=64,
    hidden_dropout_prob=0.0,
)


@pytest.mark.parametrize("length", [64, 200])
def test_the_count_is_what_torch_counts(length):
    own = SCRIPT["count"](TINY, length).total
    assert own == pytest.approx(SCRIPT["count_by_torch"](TINY, length), rel=0.01)


def test_views_cost_passes_and_the_head_is_paid_once():
    one, two = (SCRIPT["count"](TINY, 100, passes=n) for n in (1, 2))
    assert (two.layers, two.attention) == (2 * one.layers, 2 * one.attention)
    assert two.head == one.head


def test_the_page_holds_what_the_script_counts():
    page = SCRIPT["PAGE"].read_text("utf-8")
    for name in ("compute_table", "parts_table", "bytes_table"):
        assert SCRIPT[name]() in page
    assert "| bfloat16 |" in page  # measured
