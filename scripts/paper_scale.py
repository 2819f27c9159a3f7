"""Count what a pretraining of tens of millions of cells takes, and check the count by measuring.

    python scripts/paper_scale.py --write            # tables into docs/paper_scale.md
    python scripts/paper_scale.py --measure --write  # and the check on this machine, about a minute

Counted are multiplications and additions of matrix products (2 per pair), as is usual; a backward
costs twice a forward. What is not counted (LayerNorm, softmax, dropout, AdamW) costs time but few
FLOPs; it lowers the share of the peak that is reached, and so is in the measurement.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from scmix import pretrain
from scmix.encoder import Config, Encoder
from scmix.pretrain.objectives.mlm import linear_cross_entropy

PAGE = Path(__file__).parents[1] / "docs" / "paper_scale.md"
CELLS, EPOCHS, LENGTH, VOCABULARY = 50_000_000, 10, 2048, 49_564
# bf16 without sparsity, from the makers' data sheets; shares of it that training reaches are
# assumptions, and the plan shows both.
GPUS = {"A100 (312 TFLOP/s)": 312e12, "H100 (989 TFLOP/s)": 989e12}
SHARES = (0.2, 0.4)
SHARD_TOKENS = 1 << 29
PASSES = {"mix-geneformer": 2, "mix-geneformer-x": 4, "mlm alone": 1}  # of the encoder, for a cell


@dataclass(frozen=True)
class Count:
    """FLOPs of training on one cell: forward and backward."""

    layers: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        return self.layers + self.attention + self.head


def count(config: Config, length: int, *, passes: int = 1, masked: float = 0.15) -> Count:
    """FLOPs of training on one cell of some length.

    Parameters
    ----------
    config
        Sizes of the encoder.
    length
        Tokens of the cell.
    passes
        Views that the encoder reads.
    masked
        Share of tokens that the head predicts, in one of the views.
    """
    width, inner = config.hidden_size, config.intermediate_size
    n = config.num_hidden_layers
    layers = n * 2 * length * (4 * width**2 + 2 * width * inner)
    attention = n * 4 * length**2 * width
    head = 2 * masked * length * (width**2 + width * config.vocab_size)
    return Count(3 * passes * layers, 3 * passes * attention, 3 * head)


def count_by_torch(config: Config, length: int, n_cells: int = 2) -> float:
    """FLOPs of the same, as torch counts them while it trains; for one cell."""
    # torch does not count its fused attention on CPU; with dropout the products are written out
    step = _step(replace(config, attention_probs_dropout_prob=0.01), length, n_cells)
    counter = FlopCounterMode(display=False)
    with counter:
        step()
    return counter.get_total_flops() / n_cells


def _step(config: Config, length: int, n_cells: int, *, bf16: bool = False) -> Callable[[], None]:
    encoder = Encoder(config).train()
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, config.vocab_size, (n_cells * length,), generator=rng)
    indptr = list(range(0, n_cells * length + 1, length))
    chosen = torch.randperm(len(tokens), generator=rng)[: round(0.15 * len(tokens))]

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            hidden = encoder(tokens, indptr)
            head = encoder.cls.predictions
            weight = encoder.bert.embeddings.word_embeddings.weight
            rows = head.transform(hidden[chosen])
            loss = linear_cross_entropy(rows, weight, head.bias, tokens[chosen])[0]
        loss.backward()

    return step


def measure(config: Config, length: int, n_cells: int, *, bf16: bool) -> dict[str, float]:
    """FLOP per second of processor that a training step reaches, beside a large product's."""
    step = _step(config, length, n_cells, bf16=bf16)
    step()
    dtype = torch.bfloat16 if bf16 else torch.float32
    a, b = (torch.randn(2048, 2048, dtype=dtype) for _ in range(2))
    rates: dict[str, list[float]] = {"product": [], "step": []}
    for _ in range(3):  # in turn, so that both see the same machine
        started = time.process_time()
        for _ in range(4):
            a @ b
        rates["product"].append(4 * 2 * 2048**3 / (time.process_time() - started))
        started = time.process_time()
        step()
        flops = n_cells * count(config, length).total
        rates["step"].append(flops / (time.process_time() - started))
    return {name: float(np.median(values)) for name, values in rates.items()}


def compute_table() -> str:
    """GPU hours of the recipes."""
    columns = [f"{gpu}, {share:.0%}" for gpu in GPUS for share in SHARES]
    lines = [
        "| recipe | passes | FLOPs of a cell | FLOPs of the run | "
        + " | ".join(f"hours: {name}" for name in columns)
        + " |",
        "|" + "---|" * (4 + len(columns)),
    ]
    for name, passes in PASSES.items():
        one = count(_config(name), LENGTH, passes=passes).total
        run = one * CELLS * EPOCHS
        hours = [run / (peak * share) / 3600 for peak in GPUS.values() for share in SHARES]
        lines.append(
            f"| {name} | {passes} | {one:.2e} | {run:.2e} | "
            + " | ".join(f"{value:,.0f}" for value in hours)
            + " |"
        )
    return "\n".join(lines)


def parts_table() -> str:
    """Where the FLOPs of a cell go, by its length."""
    lines = ["| tokens of a cell | layers | attention | head | together |", "|---|---|---|---|---|"]
    for length in (512, 1024, 2048, 4096):
        one = count(_config("mix-geneformer"), length)
        lines.append(
            f"| {length:,} | {one.layers:.2e} | {one.attention:.2e} | {one.head:.2e} "
            f"| {one.total:.2e} |"
        )
    return "\n".join(lines)


def bytes_table() -> str:
    """Bytes on disk and in memory."""
    config = _config("mix-geneformer")
    n_parameters = sum(p.numel() for p in Encoder(config).parameters())
    tokens = CELLS * LENGTH
    masked, n_shards = round(0.15 * 16_384), -(-tokens // SHARD_TOKENS)
    rows = {
        "tokens, 2 bytes each": f"{2 * tokens / 1e9:,.0f} GB",
        "shards of 2^29 tokens": f"{n_shards:,} of {2 * SHARD_TOKENS / 1e9:.2f} GB",
        "counts, where an objective reads values, 2 bytes each": f"{2 * tokens / 1e9:,.0f} GB more",
        "where cells start, species, data set, total": f"{CELLS * 17 / 1e9:.2f} GB",
        "parameters": f"{n_parameters / 1e6:.1f} million",
        "a checkpoint: weights and two moments, 4 bytes each": f"{12 * n_parameters / 1e9:.2f} GB",
        "logits of a step, if all were held (16,384 tokens x vocabulary)": (
            f"{4 * 16_384 * config.vocab_size / 1e9:.1f} GB, and as much for the gradient"
        ),
        "logits that scmix holds (256 rows at a time)": (
            f"{4 * 256 * config.vocab_size / 1e6:.0f} MB, of {masked:,} masked rows"
        ),
    }
    lines = ["| what | how much |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())]
    return "\n".join(lines)


def check_table() -> str:
    """The count beside torch's, and the speed that it predicts beside the speed measured."""
    config = _config("mix-geneformer")
    lines = ["| tokens of a cell | counted | counted by torch | ratio |", "|---|---|---|---|"]
    for length in (128, 512):
        own, torchs = count(config, length).total, count_by_torch(config, length)
        lines.append(f"| {length} | {own:.4e} | {torchs:.4e} | {own / torchs:.3f} |")
    lines += [
        "",
        "| tokens of a cell | type | a 2,048 x 2,048 product | a training step | share | "
        "tokens per second |",
        "|---|---|---|---|---|---|",
    ]
    for length, n_cells in ((512, 8), (2048, 2)):
        for bf16 in (False, True):
            found = measure(config, length, n_cells, bf16=bf16)
            speed = found["step"] / count(config, length).total * length
            lines.append(
                f"| {length:,} | {'bfloat16' if bf16 else 'float32'} "
                f"| {found['product'] / 1e9:,.0f} GFLOP/s | {found['step'] / 1e9:,.0f} GFLOP/s "
                f"| {found['step'] / found['product']:.0%} | {speed:,.0f} |"
            )
    lines += ["", f"One thread of the processor, torch {torch.__version__}."]
    return "\n".join(lines)


def _config(name: str) -> Config:
    recipe = pretrain.recipe(name if name in pretrain.RECIPES else "mix-geneformer")
    # the fast attention of GPUs has no dropout of its weights; a count has none either
    sizes = recipe.config | {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    return Config(vocab_size=VOCABULARY, **sizes)


def insert(page: str, name: str, table: str) -> str:
    """Put a table between its two marks."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, _, rest = page.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n{table}\n{end}{tail}"


def main() -> None:
    """Print or write the tables."""
    options = _options()
    torch.set_num_threads(1)
    tables = {"compute": compute_table(), "parts": parts_table(), "bytes": bytes_table()}
    if options.measure:
        tables["check"] = check_table()
    if not options.write:
        print("\n\n".join(tables.values()))
        return
    page = PAGE.read_text("utf-8")
    for name, table in tables.items():
        page = insert(page, name, table)
    PAGE.write_text(page, "utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="check the count on this machine")
    parser.add_argument("--write", action="store_true", help="into docs/paper_scale.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
