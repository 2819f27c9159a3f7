"""Embedding of cells: scmix beside BertForMaskedLM called as Geneformer's extractor calls it.

Both have the same random weights of the published architecture (6 layers, width 256, 4 heads, 2,048
positions) over scmix's genes of both species, and embed the same cells. The extractor's way: cells
sorted by length, padded to the longest of the batch, eager attention, float32, hidden states of all
layers, logits of every token, mean of the last layer over the tokens that are not padding. It takes
100 cells at once by default, of which the logits alone would fill 27 GB; here it takes 48, which
fills 14 GB, and also fewer, with which it is faster. The goals are meant for the call as it is
published, so beside as many cells at once as memory holds; beside a dozen and less they are missed.
All take turns for some rounds, so that a machine whose speed changes is fair to all: a ratio is
that of one round; the median is printed, and the lowest and highest.

Two cores with AMX that did nothing else, 96 cells of 1,574 tokens in the mean; scmix takes 8.0
cells/s in float32 and 21.7 in bfloat16, three fifths of it in torch's attention kernel, which in
float32 runs at three quarters of the speed of its matrix products alone:

    BertForMaskedLM            float32               bfloat16
    48 at once  0.85 cells/s   9.3x (9.2 to 9.4)     25.4x (23.0 to 25.5)
    24 at once  1.18           7.0x (6.6 to 7.2)     20.2x (16.7 to 20.5)
    12 at once  1.69           4.8x (4.7 to 4.8)     13.5x (11.8 to 14.0)
     6 at once  1.64           4.9x (4.8 to 4.9)     13.1x (11.9 to 13.5)
     1 at once  2.05           3.9x (3.9 to 4.0)     10.7x (9.4 to 11.0)

    python benchmarks/bench_embed.py --cells 96 --threads 2
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM

from scmix import inference
from scmix.batches import Sequences
from scmix.encoder import Config, Encoder
from scmix.genes import Vocabulary

CONFIG = Config(Vocabulary.bundled("shared").n_tokens, attention_probs_dropout_prob=0.02)
GOALS = {"float32": 7, "bfloat16": 18}
TOLERANCES = {"float32": 1e-5, "bfloat16": 5e-2}


def make_cells(n_cells: int, rng: np.random.Generator) -> Sequences:
    """Random cells, 1,500 tokens in the mean, up to 2,048."""
    lengths = rng.normal(1_550, 400, n_cells).clip(200, CONFIG.max_position_embeddings).astype(int)
    return Sequences.from_list(
        [rng.choice(np.arange(4, CONFIG.vocab_size), n, replace=False) for n in lengths]
    )


def published_model() -> BertForMaskedLM:
    config = BertConfig(**CONFIG.to_dict(), attn_implementation="eager")
    return BertForMaskedLM(config).eval()


@torch.no_grad()
def published_way(model: BertForMaskedLM, cells: Sequences, forward_batch_size: int) -> np.ndarray:
    order = np.argsort(-cells.lengths, kind="stable")
    out = np.empty((len(cells), CONFIG.hidden_size), dtype=np.float32)
    for start in range(0, len(cells), forward_batch_size):
        rows = order[start : start + forward_batch_size]
        longest = int(cells.lengths[rows].max())
        ids = torch.full((rows.size, longest), CONFIG.pad_token_id)
        for i, row in enumerate(rows):
            ids[i, : cells.lengths[row]] = torch.from_numpy(cells[int(row)])
        mask = torch.arange(longest) < torch.from_numpy(cells.lengths[rows])[:, None]
        outputs = model(ids, attention_mask=mask.long(), output_hidden_states=True)
        kept = outputs.hidden_states[-1] * mask[..., None]
        out[rows] = (kept.sum(1) / mask.sum(1, keepdim=True)).numpy()
        del outputs  # as the extractor does: before the next logits are made
    return out


def padding(cells: Sequences, forward_batch_size: int) -> float:
    """Share of padding among the tokens that the published way computes."""
    lengths = np.sort(cells.lengths)[::-1]
    longest = lengths[np.arange(lengths.size) // forward_batch_size * forward_batch_size]
    return float(1 - lengths.sum() / longest.sum())


def timed(embed: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds of a run, and its result."""
    start = time.perf_counter()
    result = embed()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=96)
    parser.add_argument("--forward-batch-size", type=int, nargs="+", default=[48, 24, 12, 6, 1])
    parser.add_argument("--batch-tokens", type=int, default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    cells = make_cells(args.cells, np.random.default_rng(0))
    published = published_model()
    encoder = Encoder(CONFIG).eval()
    encoder.load_state_dict(published.state_dict())
    print(f"{args.cells} cells, mean {cells.lengths.mean():,.0f} tokens, {args.threads} threads")

    def embed(cells: Sequences, dtype: str) -> np.ndarray:
        return inference.run(
            encoder,
            cells,
            special_ids=[CONFIG.pad_token_id],
            dtype=dtype,
            device="cpu",
            batch_tokens=args.batch_tokens,
        )

    published_way(published, cells[:1], 1)  # warm up
    for dtype in GOALS:
        embed(cells[:1], dtype)
    base = {size: np.empty(args.rounds) for size in args.forward_batch_size}
    seconds = {dtype: np.empty(args.rounds) for dtype in GOALS}
    found = {}
    for i in range(args.rounds):
        for size in base:
            base[size][i], expected = timed(lambda size=size: published_way(published, cells, size))
        for dtype in GOALS:
            seconds[dtype][i], found[dtype] = timed(lambda dtype=dtype: embed(cells, dtype))
    for dtype in GOALS:
        cosine = (found[dtype] * expected).sum(1) / np.linalg.norm(found[dtype], axis=1)
        cosine /= np.linalg.norm(expected, axis=1)
        if np.abs(found[dtype] - expected).max() > TOLERANCES[dtype] or cosine.min() < 0.999:
            raise SystemExit(f"The vectors of scmix in {dtype} differ.")
        print(
            f"scmix {dtype:8} {len(cells) / np.median(seconds[dtype]):6.2f} cells/s, largest "
            f"difference {np.abs(found[dtype] - expected).max():.1e}, smallest cosine "
            f"{cosine.min():.5f}"
        )
    for size, taken in base.items():
        print(
            f"BertForMaskedLM, {size:2} at once {len(cells) / np.median(taken):5.2f} cells/s, "
            f"{padding(cells, size):.0%} padding"
        )
        for dtype, goal in GOALS.items():
            ratio = taken / seconds[dtype]
            print(
                f"    scmix {dtype:8} {np.median(ratio):5.1f}x "
                f"({ratio.min():.1f} to {ratio.max():.1f}; goal {goal}x)"
            )


if __name__ == "__main__":
    main()
