"""Training learns, stops at NaN, and a killed run that goes on equals one never interrupted."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from scmix import _training, checkpoints
from scmix._errors import InputError, ResourceError
from scmix._history import read_history
from scmix._run_folder import last_checkpoint, sole_run
from scmix.pretrain import Corpus, build_corpus, train
from scmix.pretrain import model as model_module

TINY = {
    "recipe": "scmix-mini",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_length": 32,
    "length_multiple": 8,
    "tokens_per_step": 512,
    "datasets_per_step": 0,
    "init": "random",
    "objectives": {"mlm": 1.0, "subset_contrast": 1.0},
    "subset_swapped": 0.5,
    "learning_rate": 1e-3,
    "log_every": 2,
    "checkpoint_every": 4,
}
LONG = {
    **TINY,
    "tokens_per_step": 2048,
    "steps": 200,
    "objectives": {"mlm": 1.0},
    "hidden_dropout_prob": 0.0,
    "learning_rate": 5e-3,
    "log_every": 10,
    "checkpoint_every": 50,
}
SPEED = {"seconds", "steps_per_second"}


def history_of(folder: Path) -> list[dict]:
    """The history without what depends on the clock."""
    records = read_history(folder / "history.jsonl")
    return [{k: v for k, v in record.items() if k not in SPEED} for record in records]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "final" / "model.safetensors")


def assert_equal_runs(one: Path, two: Path) -> None:
    assert history_of(one) == history_of(two)
    expected, found = weights_of(two), weights_of(one)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


KILLED = """
import os, signal
from scmix.pretrain import train
from scmix._history import History

add = History.add

def add_and_die(self, record):
    add(self, record)
    if record["step"] >= 6:  # so the run is past the checkpoint of step 4
        os.kill(os.getpid(), signal.SIGKILL)

History.add = add_and_die
"""


def run_until_killed(corpus: Corpus, out: Path, options: dict) -> None:
    call = f"train({str(corpus.path)!r}, {str(out)!r}, **{options!r})"
    # sums are in another order with another number of threads
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED + call],
        stderr=subprocess.DEVNULL,
        env=one_thread,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_goes_on_to_the_same_bits(corpus, tmp_path):
    options = {**TINY, "steps": 12, "accumulation": 2}
    options["objectives"] = {"mlm": 1.0, "simcse": 1.0, "subset_contrast": 0.5, "xspecies": 0.3}
    options["validation"], options["validate_every"] = str(corpus.path), 2
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(corpus, whole, **options)
    run_until_killed(corpus, killed, options)
    assert not (killed / "final").exists()
    step, _ = last_checkpoint(killed)
    assert 4 <= step < 12
    train(corpus, killed, **options)
    assert_equal_runs(killed, whole)


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(corpus, out, **LONG, validation=corpus, licence="BSD-3-Clause")
    return out


def test_the_loss_falls_well_below_chance_and_gene_frequencies(trained, corpus):
    records = history_of(trained)
    first, *_, last = (r for r in records if r["kind"] == "train")
    chance = np.log(corpus.vocabulary.n_tokens)
    assert first["mlm"] > 0.8 * chance
    assert last["mlm"] < 0.7 * chance
    held_out = [r for r in records if r["kind"] == "validation"]
    assert [r["step"] for r in held_out] == [0, 50, 100, 150, 200]
    for species in ("human", "mouse"):
        assert held_out[-1][f"{species}_mlm"] < held_out[-1][f"{species}_unigram"] - 0.5
        assert held_out[-1][f"{species}_mlm"] < held_out[0][f"{species}_mlm"]


def test_what_a_run_leaves_behind(trained, corpus):
    names = {path.name for path in trained.iterdir() if not path.name.startswith(".")}
    assert names == {
        "settings.json", "history.jsonl", "checkpoint-150", "checkpoint-200", "final"
    }  # fmt: skip
    model = checkpoints.load(trained / "final")
    assert model.vocabulary.sha256 == corpus.vocabulary.sha256
    assert model.manifest["recipe"]["learning_rate"] == 5e-3
    assert model.manifest["recipe"]["name"] == "scmix-mini"
    assert [source["name"] for source in model.manifest["training_data"]] == ["blood", "spleen"]
    assert model.manifest["licence"] == "BSD-3-Clause"


def test_a_record_holds_losses_speed_and_schedule(trained):
    record = next(r for r in read_history(trained / "history.jsonl") if r["step"] == 100)
    assert {"loss", "mlm", "mlm_accuracy", "grad_norm", "learning_rate", "cells", "tokens"} <= set(
        record
    )
    assert record["loss"] == pytest.approx(record["mlm"], rel=1e-3)
    assert 0.7 * 2048 * 10 < record["tokens"] <= 2048 * 10
    assert record["steps_per_second"] > 0


def test_a_finished_run_is_not_run_again(trained, corpus):
    before = (trained / "history.jsonl").read_bytes()
    final = train(corpus, trained, **LONG)
    assert final == trained / "final"
    assert (trained / "history.jsonl").read_bytes() == before


def test_other_settings_are_named_and_refused(trained, corpus):
    with pytest.raises(InputError, match=r"learning_rate: 0\.005 there, 0\.001 now"):
        train(corpus, trained, **TINY)
    with pytest.raises(InputError, match="holds a run"):
        train(corpus, trained, **TINY, resume=False)


def test_a_run_killed_before_its_end_was_saved_is_saved(corpus, tmp_path):
    options = {**TINY, "steps": 4, "objectives": {"mlm": 1.0}}
    train(corpus, tmp_path, **options)
    again = tmp_path / "again"
    shutil.copytree(tmp_path, again)
    shutil.rmtree(again / "final")
    train(corpus, again, **options)
    assert_equal_runs(again, tmp_path)


def break_at(step: int, where: str):
    """An encoder that gives, or whose gradient is, NaN at one step."""
    original = model_module.Pretraining.forward
    calls = []

    def forward(self, batch):
        out = original(self, batch)
        calls.append(batch["rows"])
        if len(calls) == step:
            loss = out["loss"]
            out["loss"] = loss * torch.nan if where == "loss" else loss + (loss - loss).sqrt()
        return out

    return forward, calls


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_stops_the_run_names_the_cells_and_keeps_the_checkpoint(
    corpus, tmp_path, monkeypatch, where
):
    forward, calls = break_at(7, where)
    monkeypatch.setattr(model_module.Pretraining, "forward", forward)
    options = {**TINY, "steps": 10, "objectives": {"mlm": 1.0}, "precision": "fp32"}
    with pytest.raises(FloatingPointError, match=rf"step 7: the {where}.*(blood|spleen)\[\d+\]"):
        train(corpus, tmp_path, **options)
    assert len(calls) == 7
    step, checkpoint = last_checkpoint(tmp_path)
    assert step == 4
    weights = load_file(checkpoint / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())
    monkeypatch.undo()
    # with the fault gone, the run goes on and equals one that never had it
    train(corpus, tmp_path, **options)
    train(corpus, tmp_path / "whole", **options)
    assert_equal_runs(tmp_path, tmp_path / "whole")


def test_ctrl_c_keeps_the_checkpoint_and_the_same_call_goes_on(corpus, tmp_path, monkeypatch):
    original, calls = model_module.Pretraining.forward, []

    def interrupted(self, batch):
        calls.append(batch["number"])
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(self, batch)

    options = {**TINY, "steps": 8, "objectives": {"mlm": 1.0}}
    monkeypatch.setattr(model_module.Pretraining, "forward", interrupted)
    seed_global_states()
    expected = draw_from_global_states()
    seed_global_states()
    with pytest.raises(KeyboardInterrupt):
        train(corpus, tmp_path / "run", **options)
    assert draw_from_global_states() == expected
    monkeypatch.undo()
    assert last_checkpoint(tmp_path / "run")[0] == 4
    train(corpus, tmp_path / "run", **options)
    train(corpus, tmp_path / "whole", **options)
    assert_equal_runs(tmp_path / "run", tmp_path / "whole")


def cut_short(checkpoint: Path) -> None:
    file = checkpoint / "optimizer.pt"
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def kill_before_the_end(checkpoint: Path) -> None:
    (checkpoint / "complete.json").unlink()


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, kill_before_the_end])
def test_a_checkpoint_that_is_not_whole_is_not_chosen(trained, tmp_path, damage):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    damage(run / "checkpoint-200")
    assert last_checkpoint(run) == (150, run / "checkpoint-150")
    assert not (run / "checkpoint-200").exists()
    damage(run / "checkpoint-150")
    assert last_checkpoint(run) is None


def test_a_full_disk_is_said_and_the_run_goes_on_afterwards(corpus, tmp_path, monkeypatch):
    def full(checkpoint):
        (checkpoint / "complete.json.partial").write_text("{", "utf-8")
        raise OSError(errno.ENOSPC, "No space left on device")

    options = {**TINY, "steps": 4, "objectives": {"mlm": 1.0}}
    monkeypatch.setattr(_training, "mark_complete", full)
    with pytest.raises(ResourceError, match=r"No space left.*same call again"):
        train(corpus, tmp_path, **options)
    monkeypatch.undo()
    assert last_checkpoint(tmp_path) is None
    assert train(corpus, tmp_path, **options).is_dir()


@pytest.mark.skipif(
    sys.platform == "win32", reason="the lock is tested through a second descriptor"
)
def test_one_run_at_a_time(corpus, tmp_path):
    with sole_run(tmp_path, 0), pytest.raises(InputError, match="Another process"):
        train(corpus, tmp_path, **TINY, steps=1)
    with sole_run(tmp_path, 0):
        pass


def draw_from_global_states() -> tuple[float, float, float]:
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def seed_global_states() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)


def test_global_random_states_and_stdout_are_left_alone(corpus, tmp_path, capsys):
    seed_global_states()
    expected = draw_from_global_states()
    seed_global_states()
    train(corpus, tmp_path, **{**TINY, "steps": 2, "objectives": {"mlm": 1.0}})
    assert draw_from_global_states() == expected
    assert capsys.readouterr().out == ""


def test_a_corpus_that_does_not_fit_is_refused(corpus, files, separate, tmp_path):
    with pytest.raises(InputError, match="vocabulary='shared'"):
        train(corpus, tmp_path / "run", "mix-geneformer", steps=1)
    other = build_corpus(files, tmp_path / "other", vocabulary=separate, min_genes=5)
    with pytest.raises(InputError, match="different vocabularies"):
        train(corpus, tmp_path / "run", **TINY, validation=other)
    with pytest.raises(InputError, match="multiple"):
        train(corpus, tmp_path / "run", **{**TINY, "checkpoint_every": 3})
    with pytest.raises(InputError, match="keep=1"):
        train(corpus, tmp_path / "run", **TINY, keep=1)
    assert not (tmp_path / "run").exists()


def test_the_published_recipe_trains(files, separate, tmp_path):
    """Separate tokens, dropout views, and the pooler on the first gene."""
    corpus = build_corpus(files, tmp_path / "corpus", vocabulary=separate, min_genes=5)
    other = ("recipe", "init", "length_multiple", "objectives", "subset_swapped")
    sizes = {name: value for name, value in TINY.items() if name not in other}
    final = train(corpus, tmp_path / "run", "mix-geneformer", **sizes, steps=2)
    model = checkpoints.load(final)
    assert model.encoder.has_pooler
    assert model.vocabulary.mode == "separate"
