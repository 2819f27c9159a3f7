"""Run by torchrun: embeds the same cells in each process and writes down what each one got."""

import json
import os
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import torch.distributed as dist

import scmix
from scmix import tl
from scmix._errors import InputError, ResourceError

OPTIONS = {"species_key": "species", "device": "cpu", "dtype": "float32"}


def main(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    model = scmix.models.load(folder / "model")
    scmix.settings.progress = False
    arrays, said = {}, {}

    def cells() -> ad.AnnData:
        return ad.read_h5ad(folder / "cells.h5ad", backed="r")

    def embedded(adata: ad.AnnData, **options) -> np.ndarray:
        tl.embed(adata, model, **OPTIONS, **options)
        return adata.obsm["X_scmix"]

    arrays["first"] = embedded(cells())
    arrays["again"] = embedded(cells())
    said["group_is_gone"] = not dist.is_initialized()

    one = cells()[[0]].to_memory()
    arrays["one cell"] = embedded(one)

    half_empty = cells().to_memory()
    half_empty.X[: half_empty.n_obs // 2 + 1] = 0
    arrays["half empty"] = embedded(half_empty)
    half_empty.X[:] = 0
    said["all empty"] = error_of(embedded, half_empty)

    faulty = cells().to_memory()
    faulty.X[-1, 3] = -1
    said["faulty"] = error_of(embedded, faulty)
    said["different cells"] = error_of(embedded, cells()[: 10 + rank].to_memory())
    said["different options"] = error_of(embedded, cells()[:10].to_memory(), n_genes=20 + rank)

    query, reference = cells()[:12].to_memory(), cells()[4:12].to_memory()
    reference.obs_names = [f"reference{i}" for i in range(8)]
    tl.transfer_labels(query, reference, "cell_type", model=model, **OPTIONS)
    arrays["transferred"] = query.obsm["scmix_label_probabilities"]

    dist.init_process_group("gloo")
    arrays["own group"] = embedded(cells())
    said["group_stays"] = dist.is_initialized()
    dist.destroy_process_group()

    np.savez(folder / f"{rank}.npz", **arrays)
    (folder / f"{rank}.json").write_text(json.dumps(said))


def error_of(call, *arguments, **options) -> str:
    try:
        call(*arguments, **options)
    except (InputError, ResourceError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
