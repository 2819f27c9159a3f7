"""Cells as they are read from the AnnData."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from ... import _slots
from ..._gene_matching import GeneMatch
from ...batches import Sequences, concat
from ...genes import Vocabulary
from ...pp._match_adata import match_adata
from .._reading import Reader
from .._spool import Vectors


@dataclass(frozen=True, eq=False)
class Source:
    """An AnnData, and how its counts become ranked genes.

    Parameters
    ----------
    adata, vocabulary
        Cells, and what their genes are matched to.
    match
        What `match_adata` found.
    layer, allow_noninteger
        As in `scmix.tl.embed`.
    naming
        How genes and species are named, as `_slots.iter_sequences` takes it.
    """

    adata: AnnData
    vocabulary: Vocabulary
    match: tuple[GeneMatch, np.ndarray]
    layer: str | None
    allow_noninteger: bool
    naming: dict[str, Any]

    @classmethod
    def of(
        cls,
        adata: AnnData,
        vocabulary: Vocabulary,
        layer: str | None,
        allow_noninteger: bool,
        naming: dict[str, Any],
    ) -> "Source":
        """Match the genes."""
        match = match_adata(adata, vocabulary, **naming)
        return cls(adata, vocabulary, match, layer, allow_noninteger, naming)

    @property
    def codes(self) -> np.ndarray:
        """Species code of every cell."""
        return self.match[1]

    @property
    def column_tokens(self) -> np.ndarray:
        """Token of every column of the counts, -1 for none."""
        return self.match[0].tokens

    def vectors(self, rows: np.ndarray, reader: Reader) -> Vectors:
        """Pooled vectors of some cells, ascending; NaN for cells without genes."""
        parts = reader.read(self.blocks(rows, reader.n_genes), len(rows))
        return Vectors.of((part.vectors for part in parts), reader.model.config.hidden_size)

    def sequences(self, rows: np.ndarray, n_genes: int) -> Sequences:
        """Ranked genes of some cells, in any order."""
        order = np.argsort(rows, kind="stable")
        read = concat([block.sequences for block in self.blocks(rows[order], n_genes)])
        return read[np.argsort(order, kind="stable")]

    def counts(self, rows: np.ndarray) -> Iterator[tuple[int, sp.csr_matrix]]:
        """Blocks of counts of some cells."""
        return _slots.iter_counts(
            self.adata[rows], layer=self.layer, allow_noninteger=self.allow_noninteger
        )

    def blocks(self, rows: np.ndarray, n_genes: int) -> Iterator[_slots.Block]:
        """Ranked genes of some cells, ascending."""
        genes, codes = self.match
        return _slots.iter_sequences(
            self.adata[rows],
            self.vocabulary,
            match=(genes, codes[rows]),
            layer=self.layer,
            allow_noninteger=self.allow_noninteger,
            n_genes=n_genes,
            **self.naming,
        )
