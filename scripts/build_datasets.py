"""Write the data sets that ship with scmix (src/scmix/datasets/data/) from collected h5ad files.

Usage: SCMIX_DATA=<folder with data/*.h5ad> python scripts/build_datasets.py

Where every cell comes from, and under which licence, is in src/scmix/datasets/data/README.md.
"""

import os
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

OUT = Path(__file__).parents[1] / "src" / "scmix" / "datasets" / "data"

# One spelling for both species; the labels are the original authors'.
CELL_TYPES = {
    "activated_stellate": "activated stellate",
    "quiescent_stellate": "quiescent stellate",
    "immune_other": "immune other",
    "schwann": "Schwann",
    "B_cell": "B cell",
    "T_cell": "T cell",
}


def by_ensembl_id(cells: ad.AnnData, species: str) -> ad.AnnData:
    """One column per Ensembl id: genes without one are left out, columns that share one summed."""
    ids = cells.var["ensembl_id"].astype(str).to_numpy()
    keep = np.flatnonzero(ids != "")
    unique, column = np.unique(ids[keep], return_inverse=True)
    merge = sp.csr_array(
        (np.ones(len(keep), np.int64), (keep, column)), shape=(len(ids), len(unique))
    )
    symbols = pd.Series(cells.var_names.to_numpy()[keep]).groupby(unique[column]).agg("|".join)
    var = pd.DataFrame({"symbol": symbols.to_numpy(), "species": species}, index=unique)
    return ad.AnnData(sp.csr_matrix(cells.X.astype(np.int64) @ merge), obs=cells.obs, var=var)


def pancreas(folder: Path) -> ad.AnnData:
    human = by_ensembl_id(ad.read_h5ad(folder / "baron_human_cider.h5ad"), "human")
    mouse = by_ensembl_id(ad.read_h5ad(folder / "baron_mouse1.h5ad"), "mouse")
    obs = pd.concat([human.obs, mouse.obs])
    obs = pd.DataFrame(
        {
            "species": pd.Categorical(obs["organism"].astype(str)),
            "cell_type": pd.Categorical(obs["cell_type"].astype(str).replace(CELL_TYPES)),
            "donor": pd.Categorical(obs["batch"].astype(str).replace("baron_mouse1", "mouse1")),
            "dataset": pd.Categorical(obs["dataset"].astype(str)),
        },
        index=obs.index,
    )
    counts = sp.block_diag([human.X, mouse.X], format="csr", dtype=np.float32)
    var = pd.concat([human.var, mouse.var])
    var["species"] = pd.Categorical(var["species"])
    source = "Baron et al. 2016, Cell Systems, doi:10.1016/j.cels.2016.08.011; GEO GSE84133"
    return ad.AnnData(counts, obs=obs, var=var, uns={"source": source})


def pbmc3k(folder: Path) -> ad.AnnData:
    cells = ad.read_h5ad(folder / "pbmc3k.h5ad")
    labels = cells.obs["cell_type"].astype(str).replace("unlabeled", np.nan)
    obs = pd.DataFrame({"cell_type": pd.Categorical(labels)}, index=cells.obs_names)
    source = "3k PBMCs from a healthy donor, 10x Genomics (CC BY 4.0); labels: Seurat tutorial"
    return ad.AnnData(
        sp.csr_matrix(cells.X, dtype=np.float32),
        obs=obs,
        var=pd.DataFrame(index=cells.var_names),
        uns={"source": source},
    )


def main() -> None:
    if "SCMIX_DATA" not in os.environ:
        sys.exit("Set SCMIX_DATA to the folder that holds data/*.h5ad.")
    folder = Path(os.environ["SCMIX_DATA"]) / "data"
    OUT.mkdir(parents=True, exist_ok=True)
    for name, build in {"pancreas": pancreas, "pbmc3k": pbmc3k}.items():
        adata = build(folder)
        path = OUT / f"{name}.h5ad"
        adata.write_h5ad(path, compression="gzip", compression_opts=9)
        print(f"{path.name}: {adata.n_obs} cells x {adata.n_vars} genes, {path.stat().st_size:,} B")


if __name__ == "__main__":
    main()
