"""A vocabulary from the dictionaries of a published model, with its tokens as they are."""

import re
from collections.abc import Mapping

import pandas as pd

from .._errors import IncompatibleModelError
from ..genes import SPECIES, Vocabulary

# Human ids of the pseudoautosomal regions of Y were spelled ENSGR in older releases.
_ID = re.compile(r"ENS(MUS)?GR?\d+")


def genes_of(tokens: Mapping[str, int]) -> set[str]:
    """The names in a token dictionary that are Ensembl ids of human or mouse genes."""
    return {name for name in tokens if _ID.fullmatch(name)}


def to_vocabulary(
    tokens: Mapping[str, int], medians: Mapping[str, float], names: Mapping[str, str]
) -> Vocabulary:
    """The genes that have a token and a median, under their published tokens.

    Without a median a gene cannot be ranked, so it never stands in a cell: its token is kept, as
    one that is no gene. Symbols and orthologue groups come from the bundled vocabulary; `names`
    adds symbols where it has none, and aliases.
    """
    genes = sorted(genes_of(tokens) & medians.keys())
    if not genes:
        raise IncompatibleModelError(
            f"Found no Ensembl gene id with a median among {len(tokens):,} names of the token "
            f"dictionary (such as {next(iter(tokens))[:40]!r}) and {len(medians):,} of the "
            "medians; expected ids such as ENSG00000111640 in both. Pass the dictionaries that "
            "belong to the model."
        )
    table = pd.DataFrame(
        {
            "ensembl_id": genes,
            "species": [SPECIES[gene.startswith("ENSMUS")] for gene in genes],
            "median": [medians[gene] for gene in genes],
            "token": [tokens[gene] for gene in genes],
        }
    )
    known = set(genes)
    return Vocabulary.from_table(
        _with_names(table, names),
        special={name: token for name, token in tokens.items() if name not in known},
        mode="separate",
        median_dtype="float64",
    )


def _with_names(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    known = Vocabulary.bundled().genes.set_index("ensembl_id")
    described = known[["symbol", "aliases", "biotype", "group"]].reindex(table.ensembl_id)
    table = table.assign(**described.fillna("").reset_index(drop=True))
    added: dict[str, list[str]] = {}
    for name, gene in names.items():
        if "|" not in name and name != gene:
            added.setdefault(gene, []).append(name)
    rows = zip(table.ensembl_id, table.symbol, table.aliases, strict=True)
    merged = [_merged(symbol, aliases, added.get(gene, [])) for gene, symbol, aliases in rows]
    symbols, aliases = zip(*merged, strict=True)
    return table.assign(symbol=symbols, aliases=aliases)


def _merged(symbol: str, aliases: str, added: list[str]) -> tuple[str, str]:
    """Symbol and aliases of a gene after some names were added."""
    every = dict.fromkeys([symbol, *added, *aliases.split("|")])
    first, *rest = [name for name in every if name] or [""]
    return first, "|".join(rest)
