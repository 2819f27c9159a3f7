"""From vectors before and after to effects: the formulas by name."""

from dataclasses import dataclass

import numpy as np

from .._errors import InputError


@dataclass(frozen=True)
class Formula:
    """How an original and a perturbed cell are compared.

    Parameters
    ----------
    leave_out
        Whether both means are over the same genes: those that are read before and after, without
        the perturbed ones.
    centred
        Whether the mean cell is subtracted before angles are measured. Without it all cells lie
        in a narrow cone, and every cosine is close to one.
    by_token
        Whether the similarity of a cell to its perturbed self is the mean over its other genes of
        the cosine of each; otherwise it is the cosine of the two means.
    same_genes
        Whether genes that a full cell loses to genes that are put in are taken from the original
        too, and one more, as published.
    """

    leave_out: bool
    centred: bool
    by_token: bool
    same_genes: bool = False


FORMULAS = {
    "centred": Formula(leave_out=True, centred=True, by_token=False),
    "geneformer_v1": Formula(leave_out=True, centred=False, by_token=True),
    "geneformer_v2": Formula(leave_out=False, centred=False, by_token=True, same_genes=True),
}


def formula(name: str) -> Formula:
    """The formula of a name."""
    if name not in FORMULAS:
        raise InputError(f"Found formula={name!r}; expected one of {', '.join(FORMULAS)}.")
    return FORMULAS[name]


@dataclass(frozen=True, eq=False)
class Measure:
    """Reads pairs of vectors: how alike they are, and how far they moved along some directions.

    Parameters
    ----------
    centre
        Subtracted from both vectors, `(H,)`; zero for none.
    probes
        Directions, `(K, H)`: the movement is the difference of the two unit vectors, and its
        product with each direction is what is kept of it.
    """

    centre: np.ndarray
    probes: np.ndarray

    def unit(self, vectors: np.ndarray) -> np.ndarray:
        """Centred vectors of length one, float64."""
        centred = vectors.astype(np.float64) - self.centre
        return centred / np.linalg.norm(centred, axis=-1, keepdims=True)

    def __call__(
        self, original: np.ndarray, perturbed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cosine `(m,)`, and movement along each direction `(m, K)`; both float64."""
        before, after = self.unit(original), self.unit(perturbed)
        return (before * after).sum(axis=1), (after - before) @ self.probes.T.astype(np.float64)
