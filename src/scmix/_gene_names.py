"""Names of genes as people have them: which genes they are, and of what species."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._gene_lookup import ENSEMBL, EXCEL, KINDS, NONE, RESPELLED, SYMBOL
from ._gene_spelling import as_names
from ._species import SPECIES

if TYPE_CHECKING:
    from .genes import Vocabulary

BOTH_ABOVE = 0.1  # share of the recognised names that only the rarer species can explain
MARGIN = 0.02  # a smaller lead does not tell the species, but the spelling of the names does


@dataclass(frozen=True, eq=False)
class Detection:
    """What gene names look like.

    Parameters
    ----------
    species
        `"human"`, `"mouse"`, `"both"`, or None when no name is known.
    id_type
        `"Ensembl id"`, `"symbol"`, `"mixed"` or `"unknown"`.
    shares
        Share of the names recognised: one row per species, one column per kind of match.
    """

    species: str | None
    id_type: str
    shares: pd.DataFrame

    def __str__(self) -> str:
        return "; ".join(
            f"{species}: "
            + (", ".join(f"{kind} {v:.0%}" for kind, v in row.items() if v > 0) or "nothing")
            for species, row in self.shares.iterrows()
        )


@dataclass(frozen=True, eq=False)
class SeenNames:
    """Names, and what they are in each species."""

    original: np.ndarray
    genome: np.ndarray  # species that a prefix names, -1 for none
    rows: np.ndarray  # (2, n): row of the gene in its table; negative: unknown or ambiguous
    kinds: np.ndarray  # (2, n)

    @classmethod
    def of(cls, names: Iterable[str], vocabulary: "Vocabulary") -> "SeenNames":
        original = as_names(names)
        rows, kinds, genome = vocabulary._names.find(original)
        return cls(original, genome, rows, kinds)

    @property
    def n_known(self) -> int:
        """How many are genes of either species."""
        return int((self.kinds > NONE).any(axis=0).sum())

    @cached_property
    def detection(self) -> Detection:
        counts = np.stack([np.bincount(kind, minlength=len(KINDS)) for kind in self.kinds])
        table = pd.DataFrame(counts[:, 1:], index=list(SPECIES), columns=list(KINDS[1:]))
        species = self._species()
        code = 0 if species in (None, "both") else SPECIES.index(species)
        kinds = self.kinds.max(axis=0) if species == "both" else self.kinds[code]
        return Detection(species, id_type_of(kinds), table / max(len(self.original), 1))

    def as_spelled(self) -> np.ndarray:
        """Bool, (2, n): names that a species writes like this."""
        return (self.kinds > NONE) & (self.kinds < RESPELLED)

    def _species(self) -> str | None:
        known, exact = (self.kinds > NONE) & (self.kinds < EXCEL), self.as_spelled()
        n_known = int(known.any(axis=0).sum())
        if n_known == 0:
            return None
        only = exact & ~exact[::-1]
        if only.sum(axis=1).min() >= BOTH_ABOVE * n_known:
            return "both"
        in_any_spelling, as_spelled = known.sum(axis=1), exact.sum(axis=1)
        if as_spelled.max() < 0.5 * n_known:  # neither species writes names like this
            lead = np.isin(self.kinds, (ENSEMBL, SYMBOL, RESPELLED)).sum(axis=1)
        else:
            telling = np.ptp(in_any_spelling) > max(MARGIN * n_known, 2)
            lead = in_any_spelling if telling else as_spelled
        return SPECIES[int(np.argmax(lead))]


def detect(names: Iterable[str], vocabulary: "Vocabulary") -> Detection:
    """Recognise the species and the kind of gene names.

    The species is the one that knows more of the names when case is ignored; where both know as
    many, their spelling decides (`GAPDH` human, `Gapdh` mouse). So upper-cased mouse symbols are
    not taken for human ones.

    Parameters
    ----------
    names
        Symbols or Ensembl ids.
    vocabulary
        The genes to look among.

    Returns
    -------
    The species, the kind of ids, and the shares of names recognised.

    Examples
    --------
    >>> from scmix.genes import Vocabulary, detect
    >>> detect(["Gapdh", "Cd3e", "Actb"], Vocabulary.bundled()).species
    'mouse'
    """
    return SeenNames.of(names, vocabulary).detection


def id_type_of(kind: np.ndarray) -> str:
    n, n_ids = int((kind > 0).sum()), int((kind == ENSEMBL).sum())
    if n == 0:
        return "unknown"
    if 0.1 * n < n_ids < 0.9 * n:
        return "mixed"
    return "Ensembl id" if n_ids > 0.5 * n else "symbol"
