"""Median count of each gene where it is detected, for each species, over any number of cells.

Values are counts per 10,000 of the cell. They are counted in bins that grow by the factor
``2 ** (1 / 32)``, so that a median is known to 2.2 %, memory does not depend on the number of
cells, and what several processes counted can be added up.
"""

from dataclasses import replace
from os import PathLike
from typing import Self

import numpy as np

from .._errors import InputError
from .._jit import jit
from ..batches import Sequences
from ..genes import SPECIES, Vocabulary
from .corpus import Corpus

PER = 10_000.0
BINS_PER_OCTAVE = 32
LOWEST, HIGHEST = -8, 14  # powers of two: 0.004 to 16,384 of 10,000; all beyond are in the end bins
N_BINS = (HIGHEST - LOWEST) * BINS_PER_OCTAVE
MIN_CELLS = 100
_CELLS = 2048  # read at once


class MedianSketch:
    """Counts how often a gene's share of a cell falls into each bin.

    Parameters
    ----------
    vocabulary
        Names the genes, each of one species.

    Examples
    --------
    >>> import numpy as np
    >>> from scmix.batches import Sequences
    >>> from scmix.genes import Vocabulary
    >>> from scmix.pretrain import MedianSketch
    >>> vocabulary = Vocabulary.bundled()
    >>> cells = Sequences(np.array([9, 9, 9]), np.array([0, 1, 2, 3]))
    >>> sketch = MedianSketch(vocabulary)
    >>> sketch.add(cells, counts=[1, 2, 50], totals=[1000, 1000, 1000], species=[0, 0, 0])
    >>> round(float(sketch.medians()[0, 9]))  # of 10, 20 and 500 per 10,000
    20
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._row = np.full((len(SPECIES), vocabulary.n_tokens), -1, np.int32)
        genes = np.argwhere(vocabulary.species_of_token)
        self._row[tuple(genes.T)] = np.arange(len(genes))
        self._bins = np.zeros((len(genes), N_BINS), np.uint32)

    def add(
        self, cells: Sequences, counts: np.ndarray, totals: np.ndarray, species: np.ndarray
    ) -> None:
        """Count some cells.

        Parameters
        ----------
        cells
            Gene tokens of each cell, in any order, no special tokens.
        counts
            Raw counts, aligned with the tokens.
        totals
            Count of each cell over all its genes.
        species
            Species code of each cell.
        """
        counts = np.asarray(counts)
        if counts.size != cells.tokens.size:
            raise InputError(f"Found {counts.size:,} counts and {cells.tokens.size:,} tokens.")
        scale = PER / np.asarray(totals, np.float64)
        _count(
            cells.tokens, cells.indptr, counts, scale, np.asarray(species), self._row, self._bins
        )

    def merge(self, other: "MedianSketch") -> None:
        """Add what another sketch has counted, in another process or corpus."""
        if other.vocabulary.sha256 != self.vocabulary.sha256:
            raise InputError("These sketches have different vocabularies; count with one.")
        self._bins += other._bins

    def n_cells(self) -> np.ndarray:
        """In how many cells each gene was seen: int64, shape ``(2, n_tokens)``."""
        return self._spread(self._bins.sum(axis=1, dtype=np.int64), 0)

    def medians(self) -> np.ndarray:
        """Median of each gene: float32, shape ``(2, n_tokens)``, NaN for one never seen.

        Of an even number of values it is the lower of the two in the middle. Within a bin values
        are taken as evenly spread over its logarithm.
        """
        sums = self._bins.cumsum(axis=1, dtype=np.int64)
        half = sums[:, -1] / 2
        at = (sums < half[:, None]).sum(axis=1)  # the bin in which half is reached
        at = np.minimum(at, N_BINS - 1)
        rows = np.arange(len(at))
        inside = np.maximum(self._bins[rows, at], 1)
        before = sums[rows, at] - self._bins[rows, at]
        power = LOWEST + (at + (half - before) / inside) / BINS_PER_OCTAVE
        return self._spread(np.where(half > 0, 2.0**power, np.nan).astype(np.float32), np.nan)

    def to_vocabulary(self, min_cells: int = MIN_CELLS) -> Vocabulary:
        """Return the vocabulary with these medians where a gene was seen in enough cells.

        Parameters
        ----------
        min_cells
            Fewest cells in which a gene must have been seen; others keep their median.
        """
        genes = self.vocabulary.genes.copy()
        where = (genes.species == SPECIES[1]).to_numpy(np.int8), genes.token.to_numpy()
        often = self.n_cells()[where] >= min_cells
        old = genes["median"].to_numpy()
        genes["median"] = np.where(often, self.medians()[where], old).astype(old.dtype)
        return replace(self.vocabulary, genes=genes)

    def save(self, path: str | PathLike[str]) -> None:
        """Write to an ``.npz`` file."""
        with open(path, "wb") as file:
            np.savez_compressed(file, bins=self._bins, vocabulary=np.array(self.vocabulary.sha256))

    @classmethod
    def load(cls, path: str | PathLike[str], vocabulary: Vocabulary) -> Self:
        """Read what :meth:`save` wrote, for the same vocabulary."""
        sketch = cls(vocabulary)
        with np.load(path, allow_pickle=False) as file:
            fits = str(file["vocabulary"]) == vocabulary.sha256
            if not fits or file["bins"].shape != sketch._bins.shape:
                raise InputError(f"{path} was made with another vocabulary.")
            sketch._bins = file["bins"]
        return sketch

    def _spread(self, values: np.ndarray, missing: float) -> np.ndarray:
        table = np.full(self._row.shape, missing, values.dtype)
        table[self._row >= 0] = values
        return table


def corpus_medians(corpus: Corpus) -> MedianSketch:
    """Count the cells of a corpus that was built with ``values=True``.

    Parameters
    ----------
    corpus
        With counts of all genes (``n_genes=None``): genes that were cut off would be missing among
        the low values.

    Returns
    -------
    The sketch; ``sketch.medians()`` or ``sketch.to_vocabulary()`` of it. Sketches of several
    corpora can be merged.

    Raises
    ------
    InputError
        When the corpus has no counts, or not those of all genes.

    Examples
    --------
    >>> import tempfile, anndata as ad, numpy as np, pandas as pd
    >>> from scmix.genes import Vocabulary
    >>> from scmix.pretrain import build_corpus, corpus_medians
    >>> genes = Vocabulary.bundled().genes.query("species == 'mouse'").ensembl_id[:60]
    >>> counts = np.full((3, 60), 2, np.float32) + np.arange(3, dtype=np.float32)[:, None]
    >>> folder = tempfile.mkdtemp()
    >>> ad.AnnData(counts, var=pd.DataFrame(index=genes)).write_h5ad(folder + "/cells.h5ad")
    >>> files, out = [folder + "/cells.h5ad"], folder + "/corpus"
    >>> corpus = build_corpus(files, out, n_genes=None, values=True)
    >>> sketch = corpus_medians(corpus)
    >>> round(np.nanmedian(sketch.medians()).item(), -1)  # 1 / 60 of 10,000 counts
    170.0
    """
    if not corpus.has_values or corpus.manifest["n_genes"] is not None:
        raise InputError(
            f"{corpus.path} does not hold the counts of all genes. Build it with "
            "build_corpus(n_genes=None, values=True)."
        )
    sketch = MedianSketch(corpus.vocabulary)
    for start in range(0, len(corpus), _CELLS):
        rows = np.arange(start, min(start + _CELLS, len(corpus)))
        sketch.add(
            corpus.sequences(rows), corpus.counts(rows), corpus.totals[rows], corpus.species[rows]
        )
    return sketch


@jit()
def _count(tokens, indptr, counts, scale, species, row_of, bins):
    last = bins.shape[1] - 1
    for cell in range(indptr.size - 1):
        for i in range(indptr[cell], indptr[cell + 1]):
            row = row_of[species[cell], tokens[i]]
            if row >= 0 and counts[i] > 0:
                power = np.log2(counts[i] * scale[cell])
                place = int(np.floor((power - LOWEST) * BINS_PER_OCTAVE))
                bins[row, min(max(place, 0), last)] += np.uint32(1)
