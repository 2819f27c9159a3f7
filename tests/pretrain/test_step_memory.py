"""A training step never holds logits of all masked genes, let alone of all tokens."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scmix.encoder import Config, Encoder
from scmix.pretrain import recipe
from scmix.pretrain.model import Pretraining
from scmix.pretrain.objectives.mlm import CHUNK

VOCABULARY, WIDTH, LENGTH = 5000, 16, 100


class Largest(TorchDispatchMode):
    """Remembers the largest storage that any operation gave back, in bytes."""

    n_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [x.untyped_storage().nbytes() for x in tree_leaves(out) if isinstance(x, Tensor)]
        self.n_bytes = max([self.n_bytes, *sizes])
        return out


def largest_of_a_step(n_cells: int) -> int:
    config = Config(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=1, intermediate_size=WIDTH,
        max_position_embeddings=LENGTH,
    )  # fmt: skip
    model = Pretraining(Encoder(config), recipe("scmix-mini", objectives={"mlm": 1.0}))
    n = n_cells * LENGTH
    view = {"tokens": torch.arange(n) % VOCABULARY, "indptr": list(range(0, n + 1, LENGTH))}
    view["place"] = torch.arange(n_cells)
    positions = torch.arange(0, n, 6)
    targets = {"positions": positions, "labels": view["tokens"][positions]}
    batch = {"views": {"masked": view}, "targets": targets}
    with Largest() as seen:
        model(batch)["loss"].backward()
    return seen.n_bytes


@pytest.mark.parametrize("n_cells", [40, 160])
def test_the_largest_tensor_is_a_chunk_of_logits_however_many_cells(n_cells):
    n_masked = n_cells * LENGTH // 6
    assert n_masked > 2 * CHUNK
    assert largest_of_a_step(n_cells) <= 4 * CHUNK * VOCABULARY < 4 * n_masked * VOCABULARY / 2
