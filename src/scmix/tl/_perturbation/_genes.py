"""Which genes are perturbed: from names to tokens of a species, and back to names."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from ..._errors import GeneIdError, InputError
from ...genes import SPECIES, Vocabulary
from ...perturbations import NONE, check_distinct


@dataclass(frozen=True, eq=False)
class GeneSets:
    """Names of the sets that are perturbed, checked.

    Parameters
    ----------
    names
        Genes of each set; None: every gene.
    anchor
        A gene that is perturbed together with every gene, or None.
    """

    names: tuple[tuple[str, ...], ...] | None
    anchor: str | None

    @classmethod
    def of(cls, genes: Any, anchor: str | None) -> "GeneSets":
        """Read `genes` of `tl.perturb`: "all", names, or sets of names."""
        if isinstance(genes, str):
            if genes != "all":
                raise InputError(f"Found genes={genes!r}; expected 'all' or a list of genes.")
            return cls(None, anchor)
        if anchor is not None:
            raise InputError(
                "Found anchor= with a list of genes; expected genes='all'. For a list, pass "
                "scmix.perturbations.with_anchor(anchor, genes)."
            )
        names = tuple((one,) if isinstance(one, str) else tuple(one) for one in genes)
        if not names or not all(names):
            raise InputError("Found no gene, or an empty set; expected at least one gene in each.")
        for one in names:
            if not all(isinstance(name, str) for name in one):
                raise InputError(f"Found {one!r}; expected symbols or Ensembl ids as text.")
            check_distinct(one)
        check_distinct([frozenset(one) for one in names])
        return cls(names, anchor)

    def described(self) -> str | list[str]:
        """As `params` says it."""
        return "all" if self.names is None else ["+".join(one) for one in self.names]

    def tokens(self, vocabulary: Vocabulary, code: int) -> np.ndarray | None:
        """Tokens of each set in one species, `(n_sets, k)`, -1 where a set has fewer; None: all."""
        if self.names is None:
            return None
        flat = sorted({name for one in self.names for name in one})
        token = dict(zip(flat, tokens_of(flat, vocabulary, code), strict=True))
        sets = np.full((len(self.names), max(map(len, self.names))), NONE, np.int32)
        for i, one in enumerate(self.names):
            found = [token[name] for name in one]
            if len(set(found)) < len(found):
                raise InputError(f"Found {', '.join(one)}: two names of one gene in a set.")
            sets[i, : len(one)] = found
        return sets

    def anchor_token(self, vocabulary: Vocabulary, code: int) -> int:
        """Token of the anchor in one species, -1 for none."""
        return NONE if self.anchor is None else int(tokens_of([self.anchor], vocabulary, code)[0])


def tokens_of(names: Sequence[str], vocabulary: Vocabulary, code: int) -> np.ndarray:
    """Tokens of genes in one species; a gene of the other stands for its one-to-one orthologue."""
    rows = vocabulary._names.find(np.array(names, dtype=object))[0]
    table = vocabulary.genes.token.to_numpy()
    tokens = np.full(len(names), NONE, np.int32)
    own = rows[code] >= 0
    tokens[own] = table[rows[code][own]]
    if len(vocabulary.species) > 1:
        other = ~own & (rows[1 - code] >= 0)
        tokens[other] = vocabulary.orthologues[code, table[rows[1 - code][other]]]
    missing = [name for name, token in zip(names, tokens, strict=True) if token < 0]
    if missing:
        raise GeneIdError(
            f"Found {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}: no "
            f"{SPECIES[code]} gene of the model, nor the one-to-one orthologue of one. Expected "
            f"symbols or Ensembl ids.{_alike(missing[0], vocabulary, code)} scmix.pp.map_genes "
            "shows what the model knows."
        )
    return tokens


def _alike(name: str, vocabulary: Vocabulary, code: int) -> str:
    """Genes whose symbols are spelled almost like a name."""
    genes = vocabulary.genes
    symbols = genes.symbol[(genes.species == SPECIES[code]) & (genes.symbol != "")].tolist()
    close = get_close_matches(name, symbols, n=3, cutoff=0.8)
    return f" Did you mean {' or '.join(close)}?" if close else ""


@dataclass(frozen=True, eq=False)
class Names:
    """Names of tokens in one species."""

    ensembl_id: np.ndarray
    symbol: np.ndarray
    orthologue: np.ndarray

    @classmethod
    def of(cls, vocabulary: Vocabulary, code: int) -> "Names":
        """Read the vocabulary's table."""
        ids, symbols = (_by_token(vocabulary, code, c) for c in ("ensembl_id", "symbol"))
        others = _by_token(vocabulary, 1 - code, "ensembl_id")
        partner = vocabulary.orthologues[1 - code]
        orthologue = np.where(partner >= 0, others[partner], "")
        return cls(ids, np.where(symbols == "", ids, symbols), orthologue)

    def table(self, sets: np.ndarray) -> pd.DataFrame:
        """Gene, symbol and orthologue of sets; the genes of a set are joined by "+"."""
        columns = {"gene": self.ensembl_id, "symbol": self.symbol, "orthologue": self.orthologue}
        return pd.DataFrame({name: _joined(sets, of) for name, of in columns.items()})


def _joined(sets: np.ndarray, names: np.ndarray) -> np.ndarray:
    joined = ["+".join(filter(None, names[one[one >= 0]])) for one in sets]
    return np.array(joined, dtype=str)


def _by_token(vocabulary: Vocabulary, code: int, column: str) -> np.ndarray:
    genes = vocabulary.genes[vocabulary.genes.species == SPECIES[code]]
    names = np.full(vocabulary.n_tokens, "", dtype=object)
    names[genes.token.to_numpy()] = genes[column].to_numpy(object)
    return names
