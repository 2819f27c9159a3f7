"""Human and mouse pancreas."""

from pathlib import Path

import anndata as ad


def pancreas() -> ad.AnnData:
    """Pancreas of human and mouse: one object, two species, raw counts.

    175 human cells of four donors (35 of each of five cell types) and 822 cells of one mouse
    (13 cell types), sequenced with inDrop [1]_. Read from the package, so no network is needed;
    every call returns a new object. None of these cells was used to train or tune the model that
    ships with scmix.

    Returns
    -------
    997 cells x 24,897 genes.

        - `.X`: counts, CSR float32. A gene of the other species has no entries.
        - `.var_names`: Ensembl ids, 11,123 human (`ENSG...`), then 13,774 mouse (`ENSMUSG...`).
        - `.var["symbol"]`, `.var["species"]`.
        - `.obs["species"]` (human, mouse), `.obs["cell_type"]` (the authors' labels, one spelling
          for both species), `.obs["donor"]`, `.obs["dataset"]`.
        - `.uns["source"]`: the publication and accession.

    Notes
    -----
    The human cells were published with 12,474 genes that have a counterpart in the mouse. Genes
    without an Ensembl id (8 human, 582 mouse) are left out, and genes that share one are summed.
    The files that these cells were taken from, and their licences, are listed in
    `scmix/datasets/data/README.md`.

    References
    ----------
    .. [1] Baron et al. (2016). A single-cell transcriptomic map of the human and mouse pancreas
       reveals inter- and intra-cell population structure. Cell Systems 3, 346-360. GEO GSE84133.

    Examples
    --------
    >>> import scmix
    >>> adata = scmix.datasets.pancreas()
    >>> adata.shape
    (997, 24897)
    >>> adata.obs["species"].value_counts().to_dict()
    {'mouse': 822, 'human': 175}
    """
    return ad.read_h5ad(Path(__file__).parent / "data" / "pancreas.h5ad")
