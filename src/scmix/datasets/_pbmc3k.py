"""Human blood."""

from pathlib import Path

import anndata as ad


def pbmc3k() -> ad.AnnData:
    """Blood of a healthy human donor: the 3k PBMCs of 10x Genomics, raw counts.

    Read from the package, so no network is needed; every call returns a new object. None of these
    cells was used to train or tune the model that ships with scmix.

    Returns
    -------
    2,700 cells x 16,634 genes.

        - `.X`: counts (UMI), CSR float32.
        - `.var_names`: gene symbols as 10x Genomics gave them in 2016, so some are old names.
        - `.obs["cell_type"]`: nine cell types for 2,638 cells, missing for the 62 cells that the
          Seurat tutorial, whose annotation this is [2]_, filtered out.
        - `.uns["source"]`: where counts and labels come from.

    Notes
    -----
    The counts are licensed CC BY 4.0 by 10x Genomics [1]_. Genes without any count are left out.
    The files that these cells were taken from, and their licences, are listed in
    `scmix/datasets/data/README.md`.

    References
    ----------
    .. [1] 10x Genomics (2016). 3k PBMCs from a healthy donor, Cell Ranger 1.1.0.
    .. [2] Satija Lab. Seurat: guided clustering tutorial.

    Examples
    --------
    >>> import scmix
    >>> adata = scmix.datasets.pbmc3k()
    >>> adata.shape
    (2700, 16634)
    >>> int(adata.obs["cell_type"].isna().sum())
    62
    """
    return ad.read_h5ad(Path(__file__).parent / "data" / "pbmc3k.h5ad")
