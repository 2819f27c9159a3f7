"""Two processes train as one does: the same losses, the same weights, also after a kill."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import get_cosine_schedule_with_warmup

from scmix._history import read_history
from scmix._run_folder import last_checkpoint
from scmix._training import seed_of
from scmix.pretrain import Corpus, recipe, train
from scmix.pretrain._distributed import gather_with_grad, mean_over_processes
from scmix.pretrain.model import make_model
from scmix.pretrain.objectives.simcse import nt_xent
from scmix.pretrain.stream import Stream

from ._two_processes import vectors_of

WORKER = Path(__file__).with_name("_two_processes.py")
TINY = {
    "recipe": "scmix-mini",
    "num_hidden_layers": 1,
    "hidden_size": 16,
    "intermediate_size": 32,
    "max_length": 32,
    "length_multiple": 8,
    "tokens_per_step": 256,
    "datasets_per_step": 0,
    "init": "random",
    "objectives": {"mlm": 1.0},
    "precision": "fp32",
    "learning_rate": 1e-3,
    "steps": 6,
    "log_every": 1,
    "checkpoint_every": 3,
}
COUNTED = ("step", "cells", "tokens")
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="torchrun with gloo"),
    pytest.mark.filterwarnings("ignore"),
]


TORCHRUN = ("torch.distributed.run", "--nproc-per-node=2", "--standalone")
# With --multi_gpu it starts processes without a GPU too; its --cpu wants MPI.
ACCELERATE = (
    "accelerate.commands.launch",
    "--multi_gpu",
    "--num_processes=2",
    "--num_machines=1",
    "--mixed_precision=no",
    "--dynamo_backend=no",
)


def start(task: str, **options) -> int:
    """Run a task of the worker in two processes; how it ended."""
    return launch(TORCHRUN, str(WORKER), task, json.dumps(options))


def launch(launcher: tuple[str, ...], *arguments: str) -> int:
    """Run a script or module in two processes; how it ended."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *launcher, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        print(done.stderr[-4000:])
    return done.returncode


def recipe_file(folder: Path, corpus: Corpus) -> Path:
    """`TINY` as a file, with validation on the corpus itself."""
    run = {name: value for name, value in TINY.items() if name.endswith("_every")}
    options = {k: v for k, v in TINY.items() if k not in {"recipe", "objectives", *run}}
    lines = [f"[corpus]\npath = {json.dumps(str(corpus.path))}"]
    lines += [f"[validation]\npath = {json.dumps(str(corpus.path))}"]
    lines += [f"[recipe]\nname = {json.dumps(TINY['recipe'])}"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in options.items()]
    lines += ["[recipe.objectives]\nmlm = 1.0", '[run]\nout = "run"']
    lines += [f"{name} = {value}" for name, value in run.items()]
    path = folder / "recipe.toml"
    path.write_text("\n".join(lines), "utf-8")
    return path


def records(folder: Path, kind: str = "train") -> list[dict]:
    return [r for r in read_history(folder / "history.jsonl") if r["kind"] == kind]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "final" / "model.safetensors")


def assert_same_runs(one: Path, two: Path, names: tuple[str, ...]) -> None:
    for kind, keys in (("train", (*COUNTED, *names)), ("validation", ("step", *names[1:]))):
        found, expected = records(one, kind), records(two, kind)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            shared = [key for key in b if any(key.endswith(name) for name in keys)]
            assert {k: a[k] for k in shared} == pytest.approx({k: b[k] for k in shared}, rel=1e-5)
    expected = weights(two)
    for name, value in weights(one).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_one_process_gathers_nothing():
    x = torch.ones(2, 3)
    assert gather_with_grad(x) is x
    assert mean_over_processes(x) is x


@pytest.mark.slow
def test_contrast_over_two_processes_is_that_of_the_joint_batch(tmp_path):
    assert start("contrast", out=str(tmp_path)) == 0
    found = [json.loads((tmp_path / f"{rank}.json").read_text("utf-8")) for rank in range(2)]
    parts = [vectors_of(rank) for rank in range(2)]
    one, two, group = (torch.cat(columns) for columns in zip(*parts, strict=True))
    for name, groups in (("all", None), ("dataset", group)):
        weight = torch.eye(8).requires_grad_()
        loss, accuracy = nt_xent(one @ weight, two @ weight, 0.1, groups)
        loss.backward()
        for process in found:
            assert process[name][0] == pytest.approx(float(loss), rel=1e-5)
            assert process[name][1] == pytest.approx(float(accuracy))
            torch.testing.assert_close(torch.tensor(process[name][2]), weight.grad)


@pytest.fixture(scope="module")
def two(corpus: Corpus, tmp_path_factory) -> Path:
    """Two processes, one batch each, by the command that the guide gives."""
    path = recipe_file(tmp_path_factory.mktemp("two"), corpus)
    assert launch(TORCHRUN, "-m", "scmix", "pretrain", str(path)) == 0
    return path.parent / "run"


def test_masked_genes_in_two_processes_as_in_one_with_twice_the_batches(corpus, two, tmp_path):
    """The same 12 batches, two to a step, with dropout: equal to rounding."""
    train(corpus, tmp_path, **TINY, accumulation=2, validation=corpus)
    assert_same_runs(two, tmp_path, ("loss", "mlm", "mlm_accuracy", "grad_norm", "unigram"))


def test_each_process_leaves_its_part_in_a_checkpoint(two):
    step, checkpoint = last_checkpoint(two)
    assert step == 6
    noted = json.loads((checkpoint / "complete.json").read_text("utf-8"))
    assert {"rng_state_0.pth", "rng_state_1.pth", "model.safetensors"} <= set(noted)
    assert json.loads((two / "settings.json").read_text("utf-8"))["processes"] == 2


def test_another_number_of_processes_does_not_go_on_with_a_run(corpus, two, tmp_path):
    shutil.copytree(two, tmp_path / "run")
    with pytest.raises(ValueError, match="processes: 2 there, None now"):
        train(corpus, tmp_path / "run", **TINY)


def joint_steps(corpus: Corpus, settings) -> list[float]:
    """Gathered training, written out: both batches in one process, one contrast over all cells."""
    model = make_model(corpus.vocabulary, settings)
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=(0.9, settings.adam_beta2),
        weight_decay=0.0,
    )
    schedule = get_cosine_schedule_with_warmup(optimiser, 0, settings.steps)
    streams = [Stream(corpus, settings, model.views, rank=rank, world=2) for rank in range(2)]
    objective = model.objectives["simcse"]
    losses = []
    for step in range(settings.steps):
        pooled = []
        for stream in streams:
            batch = stream.batch(step)
            torch.manual_seed(seed_of(settings.seed, batch["number"], 2))
            views = batch["views"]
            pooled.append(
                [
                    model.encoder.pool(
                        model.encoder(views[name]["tokens"], views[name]["indptr"]),
                        views[name]["indptr"],
                        views[name]["keep"],
                    )[views[name]["place"]]
                    for name in objective.views
                ]
            )
        one, two = (torch.cat(view) for view in zip(*pooled, strict=True))
        loss, _ = nt_xent(one, two, settings.simcse_temperature)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimiser.step()
        schedule.step()
        losses.append(float(loss))
    return losses


def test_contrast_in_two_processes_trains_as_the_joint_batch_does(corpus, tmp_path):
    contrast = {
        **TINY,
        "objectives": {"simcse": 1.0},
        "simcse_pool": "mean",
        "simcse_negatives": "all",
        "weight_decay": 0.0,
        "warmup": 0.0,
        "steps": 4,
        "checkpoint_every": 4,
    }
    assert start("pretrain", corpus=str(corpus.path), out=str(tmp_path), options=contrast) == 0
    options = {k: v for k, v in contrast.items() if not k.endswith("_every")}
    settings = recipe(options.pop("recipe"), **options)
    found = [record["simcse"] for record in records(tmp_path)]
    assert found == pytest.approx(joint_steps(corpus, settings), rel=1e-4)


@pytest.mark.slow
def test_two_processes_killed_go_on_to_the_same_bits(corpus, two, tmp_path):
    """Several objectives; one process dies without a word, torchrun ends the other."""
    options = {
        **TINY,
        "objectives": {"mlm": 1.0, "simcse": 1.0, "xspecies": 0.3},
        "validation": str(corpus.path),
    }
    asked = {"corpus": str(corpus.path), "options": options}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start("pretrain", out=str(whole), **asked) == 0
    assert start("pretrain", out=str(killed), kill_after=3, **asked) != 0
    assert not (killed / "final").exists()
    assert last_checkpoint(killed)[0] == 3
    assert start("pretrain", out=str(killed), **asked) == 0
    expected = weights(whole)
    for name, value in weights(killed).items():
        assert torch.equal(value, expected[name]), name
    names = ("loss", "mlm", "simcse", "xspecies")
    assert_same_runs(killed, whole, names)


@pytest.mark.slow
def test_accelerate_launch_runs_the_same(corpus, two, tmp_path):
    path = recipe_file(tmp_path, corpus)
    assert launch(ACCELERATE, "-m", "scmix", "pretrain", str(path)) == 0
    assert_same_runs(tmp_path / "run", two, ("loss", "mlm"))


@pytest.mark.slow
def test_weights_spread_over_processes_give_the_same_loss_and_gradient(corpus, tmp_path):
    """FSDP's sharding itself: accelerate, which chooses it, does so on GPUs only."""
    options = {k: v for k, v in TINY.items() if not k.endswith("_every")}
    options["name"] = options.pop("recipe")
    asked = {"corpus": str(corpus.path), "out": str(tmp_path), "options": options}
    assert start("sharded", **asked) == 0
    settings = recipe(**options)
    model = make_model(corpus.vocabulary, settings).eval()
    for rank in range(2):
        found = load_file(tmp_path / f"{rank}.safetensors")
        batch = Stream(corpus, settings, model.views, rank=rank, world=2).batch(0)
        loss = model(batch)["loss"]
        (loss / 2).backward()
        torch.testing.assert_close(found.pop("loss")[0], loss.detach())
        hidden = model.encode("masked", batch["views"]["masked"])
        torch.testing.assert_close(found.pop("hidden"), hidden.detach())
        gradient = found.pop("gradient")
        for name, value in model.state_dict().items():
            torch.testing.assert_close(found[name], value)
    weight = model.encoder.bert.embeddings.word_embeddings.weight
    torch.testing.assert_close(gradient, weight.grad)
