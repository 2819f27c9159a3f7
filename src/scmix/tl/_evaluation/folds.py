"""What a method sees of a split."""

from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from . import features
from .cells import Cells
from .splits import Split

N_TOP_GENES = 3_000
N_COMPS = 50

Part = Literal["train", "test"]
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


class Fold:
    """Training cells with labels and test cells without: labels of test cells are not in here.

    Parameters
    ----------
    cells
        All cells.
    split
        Rows of the two parts.
    """

    def __init__(self, cells: Cells, split: Split) -> None:
        self.seed, self.number = split.seed, split.fold
        self.train, self.test = split.train, split.test
        self.labels = cells.codes[split.train]
        self.names = cells.names
        self._adata, self._expression, self._logged = cells.adata, cells.expression, cells.logged

    @property
    def n_classes(self) -> int:
        """Number of classes of all cells; some may be absent from the training part."""
        return len(self.names)

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """Share of each class in the training part."""
        return np.bincount(self.labels, minlength=self.n_classes) / self.labels.size

    @property
    def rng(self) -> np.random.Generator:
        """The same random numbers for the same seed and fold."""
        return np.random.default_rng([self.seed, self.number])

    @cached_property
    def components(self) -> Pair:
        """Principal components of variable genes of the training part: both parts."""
        return features.principal_components(*self.variable, n_comps=N_COMPS)

    @cached_property
    def variable(self) -> tuple[sp.csr_matrix, sp.csr_matrix]:
        """Log counts of variable genes of the training part: both parts."""
        known = self._logged[self.train]
        columns = features.variable_genes(known, N_TOP_GENES)
        return known[:, columns], self._logged[self.test][:, columns]

    def cells(self, part: Part) -> AnnData:
        """Raw counts of all columns; the training part has labels in `obs["label"]`."""
        return self._labelled(self._adata[self._rows(part)].copy(), part)

    def expression(self, part: Part, *, logged: bool) -> AnnData:
        """Raw or log counts of the genes that all cells have, with labels for training."""
        rows = self._rows(part)
        chosen = self._expression[rows].copy()
        if logged:
            chosen.X = self._logged[rows]
        return self._labelled(chosen, part)

    def _rows(self, part: Part) -> NDArray[np.intp]:
        return self.train if part == "train" else self.test

    def _labelled(self, chosen: AnnData, part: Part) -> AnnData:
        if part == "train":
            labels = pd.Categorical.from_codes(self.labels, categories=self.names)
            chosen.obs["label"] = labels.remove_unused_categories()
        return chosen
