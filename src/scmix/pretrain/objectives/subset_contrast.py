"""Contrast of two random parts of a cell's genes, instead of two draws of dropout."""

from .simcse import SimCSE


class SubsetContrast(SimCSE):
    """NT-Xent between the pooled vectors of two random parts of a cell's genes.

    The first part is what the masked language model reads, so that both together cost two passes
    of the encoder; of the second nothing is masked. Leaving genes out is a stronger change than
    dropout, and one that happens to real cells. Parameters are those of :class:`SimCSE`.
    """

    name = "subset_contrast"
    views: tuple[str, ...] = ("masked", "subset")
