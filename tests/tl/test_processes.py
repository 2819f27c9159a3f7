"""Under torchrun the cells of `tl.embed` are shared by the processes; each gets all vectors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import scmix
from scmix import _processes, checkpoints, tl
from scmix._processes import Team

OPTIONS = {"species_key": "species", "device": "cpu", "dtype": "float32"}
SCRIPT = Path(__file__).with_name("_embed_in_two_processes.py")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun with gloo")


@pytest.fixture
def run(both, tiny, tmp_path):
    """What two processes wrote down, and the cells as one process embeds them."""
    scmix.settings.progress = False
    both.X = both.X.toarray()
    both.write_h5ad(tmp_path / "cells.h5ad")
    checkpoints.save(
        tmp_path / "model", tiny.encoder, tiny.vocabulary,
        recipe={}, training_data=[], licence="BSD-3-Clause", dtype="float32",
    )  # fmt: skip
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *command, str(SCRIPT), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[:6000]
    arrays = [dict(np.load(tmp_path / f"{rank}.npz")) for rank in (0, 1)]
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    return arrays, said, both


@pytest.mark.slow
def test_two_processes_give_what_one_gives(run, tiny):
    arrays, said, cells = run
    for name in arrays[0]:
        assert np.array_equal(arrays[0][name], arrays[1][name], equal_nan=True), name
    found = arrays[0]
    whole = tl.embed(cells, tiny, **OPTIONS, copy=True).obsm["X_scmix"]
    for name in ("first", "again", "own group"):
        np.testing.assert_allclose(found[name], whole, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(found["one cell"], whole[:1], atol=1e-5)
    half = cells.n_obs // 2 + 1
    assert np.isnan(found["half empty"][:half]).all()
    np.testing.assert_allclose(found["half empty"][half:], whole[half:], atol=1e-5)

    query, reference = cells[:12].copy(), cells[4:12].copy()
    reference.obs_names = [f"reference{i}" for i in range(8)]
    tl.transfer_labels(query, reference, "cell_type", model=tiny, **OPTIONS)
    assert np.array_equal(found["transferred"], query.obsm["scmix_label_probabilities"])

    for rank in (0, 1):
        assert said[rank]["group_is_gone"]
        assert said[rank]["group_stays"]
        assert "No cell has a count of a gene" in said[rank]["all empty"]
        assert said[rank]["different options"].startswith("InputError: Found options {")
    assert said[1]["faulty"].startswith("InputError: Found 1 negative values in .X")
    assert said[0]["faulty"].startswith(
        "ResourceError: Process 1 of the run failed with InputError: Found 1 negative values"
    )
    assert said[0]["different cells"] == (
        "InputError: Found cells 10 in process 0 and 11 in process 1; expected the same call in "
        "every process of the run."
    )


@pytest.mark.parametrize(("n", "size"), [(0, 3), (2, 3), (10, 3), (7, 7), (1_000_003, 8)])
def test_shares_cover_all_cells_once_and_evenly(n, size):
    shares = [Team(rank, size, None).share(n) for rank in range(size)]
    assert [share.start for share in shares] == [0, *[share.stop for share in shares[:-1]]]
    assert shares[-1].stop == n
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_a_process_on_its_own_is_no_team():
    with _processes.team() as team:
        assert team is None


def test_gpus_are_divided(monkeypatch):
    import torch

    monkeypatch.setenv("LOCAL_RANK", "5")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(
        _processes, "choose", lambda device: (torch.device(device.replace("auto", "cuda:0")), None)
    )
    assert _processes.own_device("auto") == "cuda:1"
    assert _processes.own_device("cuda") == "cuda:1"
    assert _processes.own_device("cuda:0") == "cuda:0"
    assert _processes.own_device("cpu") == "cpu"
