"""Build the bundled vocabulary from public gene tables and counts.

    python scripts/build_vocabulary.py --data FOLDER

FOLDER (or the environment variable SCMIX_DATA) has `genes/` (annotation, orthologue and published
vocabulary tables) and `data/` (count matrices as h5ad). Writes `vocabulary.csv.gz` and its
provenance, `vocabulary.md`, to `src/scmix/resources/`. The same input gives the same bytes.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
import vocabulary_medians as medians
from vocabulary_medians import published, read

from scmix.genes import SPECIES, Vocabulary

TEMPLATE = Path(__file__).parent / "vocabulary.md.template"
OUT = Path(__file__).parents[1] / "src" / "scmix" / "resources"
CHROMOSOMES = {
    "human": [*map(str, range(1, 23)), "X", "Y", "MT"],
    "mouse": [*map(str, range(1, 20)), "X", "Y", "MT"],
}
MAX_ALIASES = 12
BAD_ALIAS = r"[|,\"\s#]|^$|^-$"


def annotation(folder: Path, species: str) -> pd.DataFrame:
    """One row per Ensembl gene: the row on a chromosome before those on patches."""
    name = {"human": "annotables_grch38.csv.gz", "mouse": "annotables_grcm38.csv.gz"}[species]
    table = read(folder, name)
    table["primary"] = table.chr.isin(CHROMOSOMES[species])
    table["entrez"] = table.entrez.replace("NA", "")
    table["symbol"] = table.symbol.replace("NA", "")
    table = table.sort_values(["ensgene", "primary"], ascending=[True, False], kind="stable")
    return table.drop_duplicates("ensgene").set_index("ensgene")


def former_ids(folder: Path, genes: pd.Index, annotated: pd.DataFrame) -> pd.Series:
    """Ids that Ensembl retired in favour of another gene of the list: old id to current id."""
    table = read(folder, "geneformer_gc95M_ensembl_map.csv.gz").set_index("name").gene_id
    table = table[table.index.str.match(r"ENSG\d{11}$") & (table.index != table)]
    current = table.isin(genes) & ~table.isin(table.index)
    return table[current & ~table.index.isin(annotated.index[annotated.primary])]


def human_genes(folder: Path, annotated: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    v1, v2 = published(folder, "30M"), published(folder, "95M")
    coding = annotated.index[annotated.primary & (annotated.biotype == "protein_coding")]
    every = v1.index.union(v2.index).union(coding)
    old = former_ids(folder, every, annotated)
    ids = every.difference(old.index)
    rows = annotated.reindex(ids)
    fallback = [v1.symbol, *other_symbols(folder, "human").values(), v2.symbol]
    symbol = rows.symbol.fillna("")
    for names in fallback:
        symbol = symbol.where(
            symbol != "", names[~names.index.duplicated()].reindex(ids).fillna("")
        )
    table = pd.DataFrame(
        {"symbol": symbol, "biotype": rows.biotype.fillna("retired"), "entrez": rows.entrez},
        index=ids,
    ).fillna("")
    # The gene that keeps a symbol which several claim: current, then on a chromosome, then known.
    table["merit"] = (
        ids.isin(v2.index) * 4 + rows.primary.eq(True).to_numpy() * 2 + ids.isin(v1.index) * 1
    )
    return table, old


def mouse_genes(folder: Path, annotated: pd.DataFrame, biotypes: list[str]) -> pd.DataFrame:
    rows = annotated[annotated.primary & annotated.biotype.isin(biotypes)].sort_index()
    symbol = rows.symbol
    for names in other_symbols(folder, "mouse").values():
        symbol = symbol.where(
            symbol != "", names[~names.index.duplicated()].reindex(rows.index).fillna("")
        )
    pairs = read(folder, "one2one_hcop_derived.csv.gz")
    has_orthologue = rows.index.isin(pairs.mouse_ensembl)
    merit = has_orthologue * 4 + (rows.entrez != "") * 2 + (rows.biotype == "protein_coding")
    return pd.DataFrame(
        {"symbol": symbol, "biotype": rows.biotype, "entrez": rows.entrez, "merit": merit}
    )


def other_symbols(folder: Path, species: str) -> dict[str, pd.Series]:
    """Symbols of other releases, by Ensembl id."""
    biomart = read(folder, f"biomart_{species}_scvelo.txt.gz", sep="\t")
    seurat = read(folder, f"seuratextend_{species}_ensembl_symbol.csv.gz")
    pairs = read(folder, "one2one_hcop_derived.csv.gz")
    hcop = read(folder, "hcop_human_mouse.csv.gz")
    columns = [f"{species}_ensembl", f"{species}_symbol"]
    tables = {
        "biomart": biomart, "seuratextend": seurat, "one2one": pairs[columns], "hcop": hcop[columns]
    }  # fmt: skip
    series = {n: t.drop_duplicates().set_index(t.columns[0]).iloc[:, 0] for n, t in tables.items()}
    return {n: s[~s.str.contains(BAD_ALIAS) & (s != "NA")] for n, s in series.items()}


def one_symbol_each(table: pd.DataFrame) -> pd.DataFrame:
    """Leave a symbol that several genes claim to the best of them."""
    order = table.sort_values(["symbol", "merit"], ascending=[True, False], kind="stable")
    lost = order.index[order.symbol.duplicated() | order.symbol.str.contains(BAD_ALIAS)]
    return table.assign(symbol=table.symbol.where(~table.index.isin(lost), ""))


def synonyms(folder: Path, species: str, table: pd.DataFrame) -> pd.DataFrame:
    """NCBI synonyms (alias, gene): by Entrez id where that is one gene's, else by symbol."""
    ncbi = read(folder, "scdeepsort_geneinfo_synonyms.csv.gz")
    ncbi = ncbi[ncbi.species == species.capitalize()]
    entrez = table[table.entrez != ""].reset_index(names="gene")
    entrez = entrez.sort_values("merit", ascending=False, kind="stable").drop_duplicates("entrez")
    by_id = ncbi.GeneID.map(entrez.set_index("entrez").gene)
    symbols = table[table.symbol != ""].reset_index(names="gene").set_index("symbol").gene
    gene = by_id.fillna(ncbi.Symbol.map(symbols))
    both = [pd.DataFrame({"alias": ncbi[c], "gene": gene}) for c in ("Symbol", "Synonyms")]
    return pd.concat(both).dropna()


def former_symbols(folder: Path, species: str, table: pd.DataFrame) -> pd.DataFrame:
    """Symbols that other releases give to the same Ensembl id."""
    parts = [
        pd.DataFrame({"alias": names.to_numpy(), "gene": names.index})
        for names in other_symbols(folder, species).values()
    ]
    if species == "human":
        v1, v2 = published(folder, "30M").symbol, published(folder, "95M").symbol
        names = read(folder, "geneformer_gc95M_ensembl_map.csv.gz")
        names = names[~names.name.str.match(r"ENSG\d{11}$")]
        parts += [pd.DataFrame({"alias": s.to_numpy(), "gene": s.index}) for s in (v1, v2)]
        parts.append(names.set_axis(["alias", "gene"], axis=1))
    every = pd.concat(parts)
    return every[every.gene.isin(table.index)]


def names_of_other_genes(
    folder: Path, species: str, table: pd.DataFrame, annotated: pd.DataFrame
) -> set[str]:
    """Symbols of genes outside the vocabulary: `H19`, a lncRNA, is also a synonym of Nckap1."""
    parts = [annotated.symbol, *list(other_symbols(folder, species).values())[:2]]
    return {name for part in parts for name in part[~part.index.isin(table.index)]}


def aliases(
    folder: Path, species: str, table: pd.DataFrame, old: pd.Series, annotated: pd.DataFrame
) -> pd.Series:
    """Aliases by gene: former ids, then former symbols, then NCBI synonyms.

    A name that is the symbol of any gene of the species is no alias; of the rest, a name has the
    genes that the most reliable source gives it.
    """
    tiers = [
        pd.DataFrame({"alias": old.index, "gene": old.to_numpy()}),
        former_symbols(folder, species, table),
        synonyms(folder, species, table),
    ]
    every = pd.concat([t.assign(tier=i) for i, t in enumerate(tiers)]).drop_duplicates(
        ["alias", "gene"]
    )
    every = every[~every.alias.str.contains(BAD_ALIAS) & (every.alias != "NA")]
    every = every[~every.alias.isin(table.symbol) & ~every.alias.isin(table.index)]
    others = names_of_other_genes(folder, species, table, annotated)
    every = every[(every.tier < 2) | ~every.alias.isin(others)]
    every = every[every.tier == every.groupby("alias").tier.transform("min")]
    every = every.sort_values(["gene", "tier", "alias"], kind="stable")
    keep = (every.tier == 0) | (every.groupby("gene").cumcount() < MAX_ALIASES)
    return every[keep].groupby("gene").alias.agg("|".join).reindex(table.index).fillna("")


def orthologue_groups(folder: Path, human: pd.Index, mouse: pd.Index) -> pd.DataFrame:
    pairs = read(folder, "one2one_hcop_derived.csv.gz")
    if not (pairs.human_ensembl.is_unique and pairs.mouse_ensembl.is_unique):
        raise ValueError("Found genes in two orthologue pairs; expected one-to-one pairs.")
    return pairs[pairs.human_ensembl.isin(human) & pairs.mouse_ensembl.isin(mouse)]


def orthologue_agreement(folder: Path, pairs: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Pairs that another table also has, of those whose human gene it knows one mouse gene for."""
    ewce = read(folder, "ewce_mouse_to_human_homologs.csv.gz")
    projectils = read(folder, "projectils_Hs2Mm.csv.gz")
    tables = {
        "EWCE (Ensembl ids)": (ewce["Gene.stable.ID.1"], ewce["Gene.stable.ID"], "mouse_ensembl"),
        "ProjecTILs (human id, mouse symbol)": (
            projectils["Gene.stable.ID.HS"], projectils["Gene.MM"], "mouse_symbol"),
    }  # fmt: skip
    result = {}
    for name, (human, mouse, column) in tables.items():
        other = pd.DataFrame({"human": human, "mouse": mouse}).drop_duplicates()
        other = other[~other.human.duplicated(keep=False)].set_index("human").mouse
        expected = pairs.human_ensembl.map(other).dropna()
        result[name] = (int((expected == pairs.loc[expected.index, column]).sum()), len(expected))
    return result


def gene_table(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    annotated = {name: annotation(folder, name) for name in SPECIES}
    human, old = human_genes(folder, annotated["human"])
    in_published = annotated["human"].biotype.reindex(published(folder, "30M").index).value_counts()
    biotypes = list(in_published.index[in_published >= 1_000])
    mouse = mouse_genes(folder, annotated["mouse"], biotypes)
    tables = {"human": one_symbol_each(human), "mouse": one_symbol_each(mouse)}
    former = {"human": old, "mouse": old.iloc[:0]}
    parts = [
        t.assign(species=name, aliases=aliases(folder, name, t, former[name], annotated[name]))
        for name, t in tables.items()
    ]
    genes = pd.concat(parts).reset_index(names="ensembl_id")
    pairs = orthologue_groups(folder, human.index, mouse.index)
    group = {
        **dict(zip(pairs.human_ensembl, pairs.human_ensembl, strict=True)),
        **dict(zip(pairs.mouse_ensembl, pairs.human_ensembl, strict=True)),
    }
    genes["group"] = genes.ensembl_id.map(group).fillna("")
    shared = [
        f"Biotypes of Geneformer V1 with 1,000 genes or more: {', '.join(biotypes)}.",
        f"Retired human ids kept as aliases of the current id: {len(old):,}.",
    ]
    for name, (same, of) in orthologue_agreement(folder, pairs).items():
        shared.append(f"Orthologue pairs also in {name}: {same:,} of {of:,} ({same / of:.1%}).")
    return genes, shared


def table(rows: pd.DataFrame) -> str:
    """A table in Markdown."""
    shown = rows.map(lambda v: f"{v:.3f}" if isinstance(v, float) else str(v))
    lines = [list(shown.columns), ["---"] * shown.shape[1], *shown.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def provenance(
    vocabulary: Vocabulary,
    notes: list[str],
    lines: list[str],
    used: pd.DataFrame,
    agreement: pd.DataFrame,
    source: pd.Series,
) -> str:
    genes = vocabulary.genes
    species = genes.set_index("ensembl_id").species
    kinds = genes.groupby(["species", "biotype"]).size().rename("genes").reset_index()
    kinds = kinds.sort_values(["species", "genes"], ascending=[True, False], kind="stable")
    filled = source.groupby([species, source]).size().rename("genes").reset_index()
    filled.columns = ["species", "median from", "genes"]
    values = {
        "rows": f"{len(genes):,}",
        "tokens": f"{vocabulary.n_tokens:,}",
        "groups": f"{genes.group[genes.group != ''].nunique():,}",
        "notes": "\n".join(f"- {note}" for note in notes),
        "kinds": table(kinds),
        "medians": table(filled),
        "lines": "\n".join(f"- {line}" for line in lines),
        "used": table(used),
        "agreement": table(agreement),
        "sha256": vocabulary.sha256,
        "max_cells": f"{medians.MAX_CELLS:,}",
        "min_genes": f"{medians.MIN_GENES:,}",
        "max_counts": f"{medians.MAX_COUNTS:,}",
        "min_observations": f"{medians.MIN_OBSERVATIONS}",
        "max_aliases": f"{MAX_ALIASES}",
    }
    return TEMPLATE.read_text(encoding="utf-8").format(**values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SCMIX_DATA"))
    folder = parser.parse_args().data
    if folder is None:
        parser.error("pass --data or set SCMIX_DATA")
    folder = Path(folder)
    genes, notes = gene_table(folder)
    draft = Vocabulary.from_table(genes.assign(median=1.0))
    genes = draft.genes.drop(columns=["token", "median"])
    blocks, used = medians.counts(folder, draft)
    results = {name: medians.nonzero_medians(blocks[name]) for name in SPECIES}
    of = pd.Index(genes.ensembl_id)
    is_human = (genes.species == "human").to_numpy()
    measured = pd.Series(np.where(is_human, results["human"][0], results["mouse"][0]), of)
    n = pd.Series(np.where(is_human, results["human"][1], results["mouse"][1]), of)
    median, source, lines = medians.fill(genes, measured, n, folder)
    genes["median"] = median.to_numpy(np.float32)
    vocabulary = Vocabulary.from_table(genes)
    vocabulary.write(OUT / "vocabulary.csv.gz")
    agreement = medians.correlations(folder, measured, n)
    text = provenance(vocabulary, notes, lines, used, agreement, source)
    (OUT / "vocabulary.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
