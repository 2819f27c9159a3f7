"""What each of several processes runs; `test_distributed` starts them with torchrun.

python -m torch.distributed.run --nproc-per-node 2 _two_processes.py <task> <options as JSON>
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from scmix._history import History
from scmix.pretrain import Corpus, recipe, train
from scmix.pretrain import _distributed as distributed
from scmix.pretrain._sharding import whole
from scmix.pretrain.model import make_model
from scmix.pretrain.objectives.simcse import nt_xent
from scmix.pretrain.stream import Stream

RANK = int(os.environ.get("RANK", "0"))


def vectors_of(rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two views of as many cells as the rank says, and the data set of each cell."""
    generator = torch.Generator().manual_seed(rank)
    n = 4 + 3 * rank
    one, two = (torch.randn(n, 8, generator=generator) for _ in range(2))
    return one, two, torch.arange(n) % 2


def contrast(out: str) -> None:
    """The loss over the cells of all processes, and the gradient that training would take."""
    dist.init_process_group("gloo")
    one, two, group = vectors_of(RANK)
    weight = torch.eye(8).requires_grad_()
    results = {}
    for name, groups in (("all", None), ("dataset", group)):
        views = (distributed.gather_with_grad(view @ weight) for view in (one, two))
        groups = None if groups is None else distributed.gather_with_grad(groups)
        loss, accuracy = nt_xent(*views, 0.1, groups)
        (gradient,) = torch.autograd.grad(loss, weight)
        mean = distributed.mean_over_processes(gradient)
        results[name] = [loss.item(), float(accuracy), mean.tolist()]
    Path(out, f"{RANK}.json").write_text(json.dumps(results), "utf-8")


def pretrain(corpus: str, out: str, options: dict, kill_after: int | None = None) -> None:
    """A run; one process is killed once a later step than `kill_after` is recorded."""
    if kill_after is not None and RANK == 0:
        add = History.add

        def add_and_die(self, record):
            add(self, record)
            if record["step"] > kill_after:
                os.kill(os.getpid(), signal.SIGKILL)

        History.add = add_and_die
    train(corpus, out, **options)


def sharded(corpus: str, out: str, options: dict) -> None:
    """Loss, a gradient, parts called on their own and the whole weights, with FSDP's shards."""
    dist.init_process_group("gloo")
    opened, settings = Corpus.open(corpus), recipe(**options)
    model = make_model(opened.vocabulary, settings).eval()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.encoder.bert.encoder.layer:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    batch = Stream(opened, settings, model.views, rank=RANK, world=2).batch(0)
    loss = model(batch)["loss"]
    loss.backward()
    gradient = model.encoder.bert.embeddings.word_embeddings.weight.grad.full_tensor()
    with whole(model), torch.no_grad():
        hidden = model.encode("masked", batch["views"]["masked"])
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    results = {"loss": loss.detach()[None], "gradient": gradient, "hidden": hidden, **state}
    save_file(results, Path(out, f"{RANK}.safetensors"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"contrast": contrast, "pretrain": pretrain, "sharded": sharded}[sys.argv[1]](
        **json.loads(sys.argv[2])
    )
    if dist.is_initialized():  # threads of gloo that are left at exit may abort the process
        dist.destroy_process_group()
