"""Families of genes by their symbols, so that a gene is not compared with its paralogues."""

import re
from collections.abc import Iterable

_SHORTEST = 3
_HYPHEN = re.compile(r"([A-Z]{2,})-.+")  # HLA-DRA, MT-CO1, H2-K1 is not
_NUMBERED = re.compile(r"(.*[A-Z])\d+")  # GATA4, S100A4
_LETTERED = re.compile(r"((.*[A-Z])\d+)[A-Z]")  # RPL13A, CD3E


def family(symbol: str) -> str:
    """The part of a symbol that it shares with its family; `""` for none.

    No table of paralogues comes with scmix. Nomenclature numbers the members of a family behind a
    common stem of at least three characters, and letters them behind a common number. Some genes
    share a stem and nothing else (`TMEM`, `CD`-like numbers), and some paralogues share none
    (`HBA1`, `HBB`): to leave out too many genes of hundreds costs little, and the latter stay in.

    Examples
    --------
    >>> [family(symbol) for symbol in ("GATA4", "RPL13A", "CD3E", "HLA-DRA", "ACTB", "Krt18")]
    ['GATA', 'RPL', 'CD3', 'HLA', '', 'KRT']
    """
    name = symbol.upper()
    if name.startswith(("ENSG", "ENSMUSG")):
        return ""
    if found := _HYPHEN.fullmatch(name):
        return found[1]
    if found := _NUMBERED.fullmatch(name):
        return found[1] if len(found[1]) >= _SHORTEST else ""
    if found := _LETTERED.fullmatch(name):
        return found[2] if len(found[2]) >= _SHORTEST else found[1]
    return ""


def families(symbols: Iterable[str]) -> list[str]:
    """Family of each gene; sets of several genes have none."""
    return ["" if "+" in symbol else family(symbol) for symbol in symbols]
