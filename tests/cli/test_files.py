"""What commands read and write: the same cells with the result, whole or not at all."""

import errno
import os
import signal
import subprocess
import sys

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scmix import settings as scmix_settings
from scmix import tl
from scmix.cli import _cells, _output

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2")


def as_arrays(adata):
    return (adata.X.toarray(), adata.layers["twice"].toarray(), adata.obs, adata.var)


def assert_same_cells(found, expected):
    for one, other in zip(as_arrays(found), as_arrays(expected), strict=True):
        if isinstance(one, pd.DataFrame):
            assert list(one.columns) == list(other.columns)
            assert one.astype(str).equals(other.astype(str))
        else:
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
@pytest.mark.parametrize("source", ["h5ad", "zarr"])
def test_embed_writes_what_the_function_writes(cells, model, scmix, source, ending):
    if source == "zarr":
        cells.write_zarr("in.zarr")
    code, out, err = scmix("embed", f"in.{source}", "-o", f"out.{ending}", "--model", model, "-q")
    assert (code, out, err) == (0, "", "")
    found = ad.read_h5ad("out.h5ad") if ending == "h5ad" else ad.read_zarr("out.zarr")
    tl.embed(cells, model)
    np.testing.assert_array_equal(found.obsm["X_scmix"], cells.obsm["X_scmix"])
    assert found.uns["X_scmix"]["params"]["model_sha256"]
    assert found.uns["X_scmix"]["params"].keys() == cells.uns["X_scmix"]["params"].keys()
    assert_same_cells(found, cells)
    assert sorted(os.listdir()) == sorted({"in.h5ad", f"in.{source}", f"out.{ending}"})


def test_what_is_not_touched_is_copied_as_it_is(cells, model, scmix):
    assert scmix("embed", "in.h5ad", "-o", "out.h5ad", "--model", model, "-q")[0] == 0
    with h5py.File("in.h5ad") as before, h5py.File("out.h5ad") as after:
        for part in ("X/data", "X/indices", "layers/twice/data", "obs/cell_type/codes"):
            assert after[part].compression == before[part].compression
            np.testing.assert_array_equal(after[part][:], before[part][:])
        assert set(after["obsm"]) - set(before["obsm"]) == {"X_scmix"}


def test_counts_of_a_layer_and_of_raw(cells, model, scmix):
    cells.raw = cells[:, ::-1].copy()
    cells.X = np.log1p(cells.X)
    cells.write_h5ad("in.h5ad")
    scmix_settings.progress = False
    for layer in ("twice", "raw"):
        code, _, err = scmix(
            "embed", "in.h5ad", "-o", "out.h5ad", "--model", model, "--layer", layer, "-q",
            "--force",
        )  # fmt: skip
        assert (code, err) == (0, "")
        tl.embed(cells, model, layer=layer)
        found = ad.read_h5ad("out.h5ad")
        np.testing.assert_allclose(found.obsm["X_scmix"], cells.obsm["X_scmix"], atol=1e-6)


@pytest.mark.parametrize("path", ["in.h5ad", "in.zarr"])
def test_counts_stay_in_the_file(cells, path):
    cells.raw = cells.copy()
    cells.write_h5ad("in.h5ad")
    cells.write_zarr("in.zarr")
    with _cells.opened(path) as file:
        assert isinstance(file.adata.X, ad.abc.CSRDataset)
        assert isinstance(file.adata.layers["twice"], ad.abc.CSRDataset)
        assert isinstance(file.adata.raw._X, ad.abc.CSRDataset)
        np.testing.assert_array_equal(file.adata.X[2:4].toarray(), cells.X[2:4].toarray())


def test_dense_and_by_columns(cells, model, scmix):
    expected = tl.embed(cells, model, copy=True).obsm["X_scmix"]
    for matrix in (cells.X.toarray(), sp.csc_matrix(cells.X)):
        cells.X = matrix
        cells.write_h5ad("in.h5ad")
        assert scmix("embed", "in.h5ad", "-o", "o.h5ad", "--model", model, "-q", "--force")[0] == 0
        np.testing.assert_allclose(ad.read_h5ad("o.h5ad").obsm["X_scmix"], expected, atol=1e-6)


def test_nothing_is_overwritten_unasked(cells, model, scmix, here):
    (here / "out.h5ad").write_text("precious")
    typed = ["embed", "in.h5ad", "-o", "out.h5ad", "--model", model, "-q"]
    code, _, err = scmix(*typed)
    assert (code, err) == (
        2, "scmix: error: out.h5ad exists already. Pass --force to replace it, or another name.\n"
    )  # fmt: skip
    assert (here / "out.h5ad").read_text() == "precious"
    assert scmix(*typed, "--force")[0] == 0
    assert "X_scmix" in ad.read_h5ad("out.h5ad").obsm
    assert scmix("embed", "in.h5ad", "-o", "in.h5ad", "--model", model, "-q")[0] == 2
    assert scmix("embed", "in.h5ad", "-o", "in.h5ad", "--model", model, "-q", "--force")[0] == 0
    assert_same_cells(ad.read_h5ad("in.h5ad"), cells)


def test_a_zarr_folder_is_replaced_whole(cells, model, scmix, here):
    typed = ["embed", "in.h5ad", "-o", "out.zarr", "--model", model, "-q"]
    assert scmix(*typed)[0] == 0
    (here / "out.zarr" / "left").write_text("from before")
    assert scmix(*typed)[0] == 2
    assert scmix(*typed, "--force")[0] == 0
    assert not (here / "out.zarr" / "left").exists()
    assert sorted(os.listdir()) == ["in.h5ad", "out.zarr"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("out.csv", "Found the output 'out.csv'; expected a name that ends in .h5ad or .zarr."),
        ("nowhere/out.h5ad", "There is no folder nowhere for out.h5ad. Make it first."),
    ],
)
def test_output_is_checked_before_any_work(cells, scmix, output, message):
    assert scmix("embed", "in.h5ad", "-o", output) == (2, "", f"scmix: error: {message}\n")


@pytest.mark.parametrize("force", [False, True])
def test_a_full_disk_leaves_everything_as_it_was(cells, model, scmix, here, monkeypatch, force):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if force:
        (here / "out.h5ad").write_text("precious")
    monkeypatch.setattr(_cells, "_write", full)
    code, _, err = scmix("embed", "in.h5ad", "-o", "out.h5ad", "--model", model, "-q", "--force")
    assert code == 1
    assert err == (
        "scmix: error: Could not write out.h5ad: No space left on device. Nothing was changed; "
        "choose another folder or free some space.\n"
    )
    assert sorted(os.listdir()) == ["in.h5ad", *["out.h5ad"][: int(force)]]
    if force:
        assert (here / "out.h5ad").read_text() == "precious"


KILLED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell starts us behind
import numpy as np
from scmix import tl
from scmix.cli import main, _cells
def embed(adata, **options):  # no torch, for speed
    adata.obsm["X_scmix"] = np.zeros((adata.n_obs, 2))
tl.embed = embed
write = _cells._write
def killed(*arguments):
    write(*arguments)
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
_cells._write = killed
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_killed_halfway_there_is_no_broken_output(cells, here, name):
    (here / "out.h5ad").write_text("precious")
    typed = ["embed", "in.h5ad", "-o", "out.h5ad", "--force", "-q"]
    done = subprocess.run([sys.executable, "-c", KILLED, name, *typed], capture_output=True)
    expected = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143, "SIGINT": 130}
    assert done.returncode == expected[name], done.stderr
    assert (here / "out.h5ad").read_text() == "precious"
    left = set(os.listdir()) - {"in.h5ad", "out.h5ad"}
    assert len(left) == (name == "SIGKILL")
    assert all(path.startswith(".out.partial-") for path in left)


def test_of_several_processes_one_writes(cells, scmix, monkeypatch):
    def embed(adata, **options):
        adata.obsm["X_scmix"] = np.zeros((adata.n_obs, 2))

    monkeypatch.setattr(tl, "embed", embed)
    typed = ["embed", "in.h5ad", "-o", "out.h5ad"]
    monkeypatch.setenv("RANK", "1")  # as torchrun sets it
    assert scmix(*typed) == (0, "", "")
    assert os.listdir() == ["in.h5ad"]
    monkeypatch.setenv("RANK", "0")
    assert scmix(*typed) == (0, "", "")
    assert "X_scmix" in ad.read_h5ad("out.h5ad").obsm


def test_results_of_an_earlier_run_are_replaced(cells, model, scmix):
    typed = ["embed", "in.h5ad", "-o", "out.h5ad", "--model", model, "-q", "--force"]
    assert scmix(*typed, "--n-genes", "20")[0] == 0
    assert scmix(*[t.replace("in.", "out.") for t in typed], "--n-genes", "10")[0] == 0
    assert ad.read_h5ad("out.h5ad").uns["X_scmix"]["params"]["n_genes"] == 10
    other = ad.read_h5ad("in.h5ad")
    other.obsm["X_scmix"] = np.zeros((24, 2))
    other.write_h5ad("in.h5ad")
    code, _, err = scmix(*typed)
    assert code == 2
    assert 'obsm["X_scmix"] exists already. Pass --overwrite, or another --key-added.' in err
    assert scmix(*typed, "--overwrite")[0] == 0
    assert ad.read_h5ad("out.h5ad").obsm["X_scmix"].shape[1] == 8


def test_files_without_encodings_are_read_whole(cells, model, scmix):
    with h5py.File("in.h5ad", "r+") as file:
        del file.attrs["encoding-type"], file.attrs["encoding-version"]
    assert scmix("embed", "in.h5ad", "-o", "out.h5ad", "--model", model, "-q")[0] == 0
    found = ad.read_h5ad("out.h5ad")
    assert_same_cells(found, cells)
    assert found.obsm["X_scmix"].shape == (24, 8)


@pytest.mark.parametrize("content", [b"", b"not a file of cells", b"\x89HDF\r\n\x1a\n truncated"])
def test_damaged_input(here, scmix, content):
    (here / "in.h5ad").write_bytes(content)
    code, out, err = scmix("embed", "in.h5ad", "-o", "out.h5ad")
    assert (code, out) == (2, "")
    assert err.startswith("scmix: error: in.h5ad cannot be read: ")
    assert "Expected a file that AnnData has written" in err


def test_there_is_no_input(here, scmix):
    assert scmix("embed", "no.h5ad", "-o", "out.h5ad") == (
        2, "", "scmix: error: There is no no.h5ad. Expected an .h5ad file or a .zarr folder.\n"
    )  # fmt: skip
    code, _, err = scmix("embed", "cells.mtx", "-o", "out.h5ad")
    assert code == 2
    assert "Found the input 'cells.mtx'; expected a name that ends in .h5ad or .zarr." in err


def test_fields_are_there_after_an_exchange_that_failed(here, monkeypatch):
    (here / "new").mkdir()
    (here / "old").mkdir()
    (here / "old" / "file").write_text("precious")
    replace = os.replace

    def failing(source, target):
        if str(source).endswith("new"):
            raise OSError(errno.EIO, "broken")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="broken"):
        _output._exchange(here / "new", here / "old")
    assert (here / "old" / "file").read_text() == "precious"
