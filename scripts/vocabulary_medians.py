"""Medians of the bundled vocabulary: measured in counts, or filled in where counts are few."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scmix.genes import SPECIES, Vocabulary, match

HELD_OUT = (
    "baron_human_cider", "baron_mouse1", "pbmc3k", "zeisel_cortex_sub",
    "lung_celllines_scmixology", "bone_marrow_cytosimplex",
)  # fmt: skip
MIN_GENES = 5_000  # smaller files hold genes that somebody selected
MAX_CELLS = 1_000  # per data set, so that none dominates the medians
MAX_COUNTS = 50_000  # median of a cell; more are reads of full-length protocols, not molecules
MIN_OBSERVATIONS = 10  # a median of fewer counts is not used


def read(folder: Path, name: str, **options) -> pd.DataFrame:
    return pd.read_csv(folder / "genes" / name, dtype=str, keep_default_na=False, **options)


def published(folder: Path, name: str) -> pd.DataFrame:
    table = read(folder, f"geneformer_gc{name}_vocabulary.csv.gz").set_index("gene_id")
    table = table[~table.index.str.startswith("<")]
    return table.assign(median=table["median"].astype(float))


def counts(folder: Path, vocabulary: Vocabulary) -> tuple[dict[str, list], pd.DataFrame]:
    """Counts per 10,000 (cells x genes) of every usable data set, at most MAX_CELLS cells each."""
    rng = np.random.default_rng(0)
    blocks: dict[str, list] = {name: [] for name in SPECIES}
    used, barcodes = [], set()
    for path in sorted((folder / "data").glob("*.h5ad")):
        if path.stem in HELD_OUT:
            continue
        adata = ad.read_h5ad(path)
        depth = float(np.median(np.asarray(adata.X.sum(axis=1))))
        if adata.n_vars <= MIN_GENES or depth > MAX_COUNTS:
            continue
        if path.stem.startswith("kang"):
            fresh = ~adata.obs.barcode.duplicated() & ~adata.obs.barcode.isin(barcodes)
            barcodes |= set(adata.obs.barcode)
            adata = adata[fresh.to_numpy()]
        chosen = np.sort(rng.permutation(adata.n_obs)[:MAX_CELLS])
        species = str(adata.obs.organism.iloc[0])
        blocks[species].append(block(adata[chosen], vocabulary, species))
        used.append((path.stem, species, len(chosen), adata.n_vars))
    return blocks, pd.DataFrame(used, columns=["data set", "species", "cells", "genes"])


def block(adata: ad.AnnData, vocabulary: Vocabulary, species: str) -> sp.csr_matrix:
    found = match(adata.var_names, vocabulary, species=species, on_duplicate="sum")
    position = pd.Index(vocabulary.genes.ensembl_id).get_indexer(found.ensembl_id)
    kept = np.flatnonzero(position >= 0)
    x = sp.csr_matrix(adata.X).astype(np.float64)
    scale = sp.diags(10_000 / np.asarray(x.sum(axis=1)).ravel().clip(1))
    place = sp.csr_matrix(
        (np.ones(len(kept)), (kept, position[kept])), (adata.n_vars, len(vocabulary.genes))
    )
    return (scale @ x @ place).tocsr()


def nonzero_medians(blocks: list[sp.csr_matrix]) -> tuple[np.ndarray, np.ndarray]:
    """Exact median of the values above zero of every column, and their number."""
    x = sp.vstack(blocks).tocsc()
    values = pd.Series(x.data).groupby(np.repeat(np.arange(x.shape[1]), np.diff(x.indptr)))
    every = range(x.shape[1])
    return values.median().reindex(every).to_numpy(), np.diff(x.indptr)


def rescaled(source: pd.Series, target: pd.Series) -> tuple[pd.Series, str]:
    """Source on the target's scale: robust line through the logarithms of the shared genes."""
    both = pd.concat([np.log(source), np.log(target)], axis=1, keys=["x", "y"]).dropna()
    slope, level = np.polyfit(both.x, both.y, 1)
    for _ in range(20):  # least squares without the 5 % of genes that fit worst
        off = (both.y - level - slope * both.x).abs()
        inside = both[off <= off.quantile(0.95)]
        slope, level = np.polyfit(inside.x, inside.y, 1)
    text = f"exp({level:.3f}) * median ** {slope:.3f}, {len(both):,} shared genes"
    return np.exp(level + slope * np.log(source)), text


def fill(
    genes: pd.DataFrame, measured: pd.Series, n: pd.Series, folder: Path
) -> tuple[pd.Series, pd.Series, list[str]]:
    """Medians for all genes, and where each comes from."""
    known = measured.where(n >= MIN_OBSERVATIONS)
    steps = [("counts", known)]
    lines = []
    for name in ("30M", "95M"):
        human = published(folder, name)["median"]
        often = known[n >= 100].reindex(human.index).dropna()
        estimate, text = rescaled(human, often)
        # Some published medians are 1e-6: one count of such a gene would outrank the whole cell.
        believed = estimate.where(estimate >= often.min())
        steps.append((f"Geneformer {name}, rescaled", believed))
        left = int(believed.isna().sum())
        lines.append(f"Geneformer {name}: {text}; {left} below {often.min():.2f} not used")
    median = chain(genes, steps)
    for source, target in (SPECIES, SPECIES[::-1]):
        of = genes[genes.group != ""].pivot(index="group", columns="species", values="ensembl_id")
        of = of.dropna()
        estimate = pd.Series(median[of[source]].to_numpy(), of[target].to_numpy())
        ratio = float((known[of[target]].to_numpy() / estimate).median())
        steps.append((f"{source} orthologue, times {ratio:.3f}", estimate * ratio))
    rare = known[(n >= MIN_OBSERVATIONS) & (n < 100)]
    typical = rare.groupby(genes.set_index("ensembl_id").species).median()
    every = genes.set_index("ensembl_id").species.map(typical)
    steps.append(("typical of rarely seen genes", every))
    median = chain(genes, steps)
    source = pd.Series("", index=median.index)
    for name, values in steps:
        source = source.where((source != "") | values.reindex(source.index).isna(), name)
    return median, source, lines


def chain(genes: pd.DataFrame, steps: list[tuple[str, pd.Series]]) -> pd.Series:
    median = pd.Series(np.nan, index=genes.ensembl_id.to_numpy())
    for _, values in steps:
        median = median.fillna(values)
    return median


def correlations(folder: Path, measured: pd.Series, n: pd.Series) -> pd.DataFrame:
    rows = []
    for name in ("30M", "95M"):
        theirs = published(folder, name)["median"]
        for least in (MIN_OBSERVATIONS, 100, 1000):
            ours = measured[n >= least]
            both = pd.concat([np.log(ours), np.log(theirs)], axis=1).dropna()
            rows.append(
                (f"Geneformer {name}", least, len(both), both.corr().iloc[0, 1],
                 both.corr("spearman").iloc[0, 1])
            )  # fmt: skip
    both = pd.concat([np.log(published(folder, name)["median"]) for name in ("30M", "95M")], axis=1)
    both = both.dropna()
    rows.append(
        ("Geneformer 30M with 95M", "all", len(both), both.corr().iloc[0, 1],
         both.corr("spearman").iloc[0, 1])
    )  # fmt: skip
    return pd.DataFrame(
        rows, columns=["published", "counts above zero, at least", "genes", "Pearson", "Spearman"]
    )
