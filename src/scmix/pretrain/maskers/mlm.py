"""Masking for the masked language model, on a whole packed batch at once."""

from dataclasses import dataclass

import numpy as np

from ..._errors import InputError
from ...genes import Vocabulary


@dataclass(frozen=True, eq=False)
class Masked:
    """A batch with some genes hidden.

    Parameters
    ----------
    tokens
        Tokens as the model sees them, shape ``(T,)``.
    positions
        Where a gene is to be predicted, rising, shape ``(M,)``.
    labels
        The genes that stood there, shape ``(M,)``.
    """

    tokens: np.ndarray
    positions: np.ndarray
    labels: np.ndarray


def masked_as(tokens: np.ndarray, hidden: np.ndarray, mask_id: int) -> Masked:
    """A batch with ``<mask>`` wherever genes are hidden (bool, shape ``(T,)``)."""
    where = np.flatnonzero(hidden)
    return Masked(np.where(hidden, mask_id, tokens), where, tokens[where])


class Masker:
    """Hides a share of the genes: most become ``<mask>``, some another gene, some stay.

    The published shares are 15 %, of which 80 % are masked, 10 % replaced and 10 % kept (Devlin et
    al., 2019). Shares hold exactly in every batch, up to rounding. A replacement is a gene of the
    cell's own species, unlike in the published code, where it can be any token. Special tokens are
    neither chosen nor drawn.

    Parameters
    ----------
    vocabulary
        Says which tokens are special, and which species has which gene.
    share
        Share of genes to predict.
    masked
        Share of these that become ``<mask>``.
    replaced
        Share of these that become another gene.

    Examples
    --------
    >>> from scmix.genes import Vocabulary
    >>> vocabulary = Vocabulary.bundled()
    >>> masker = Masker(vocabulary)
    >>> tokens = np.flatnonzero(vocabulary.species_of_token[0])[:1000]
    >>> batch = masker(tokens, np.zeros(1000, np.int8), np.random.default_rng(0))
    >>> len(batch.positions), int((batch.tokens == vocabulary.special["<mask>"]).sum())
    (150, 120)
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        share: float = 0.15,
        masked: float = 0.8,
        replaced: float = 0.1,
    ) -> None:
        if "<mask>" not in vocabulary.special:
            raise InputError("This vocabulary has no <mask> token, which masking needs.")
        if not 0 < share < 1 or min(masked, replaced) < 0 or masked + replaced > 1:
            raise InputError(
                f"Found share={share}, masked={masked}, replaced={replaced}; expected a share "
                "between 0 and 1, and parts of it that sum to at most 1."
            )
        self.share, self.masked, self.replaced = share, masked, replaced
        self._mask_id = vocabulary.special["<mask>"]
        self._special = vocabulary.special_ids
        self._genes = [np.flatnonzero(known) for known in vocabulary.species_of_token]

    def __call__(self, tokens: np.ndarray, species: np.ndarray, rng: np.random.Generator) -> Masked:
        """Hide genes of a packed batch.

        Parameters
        ----------
        tokens
            Shape ``(T,)``, special tokens included.
        species
            Species code of each token's cell, shape ``(T,)``.
        rng
            Source of the choices.

        Returns
        -------
        The batch with its targets.
        """
        genes = np.flatnonzero(~np.isin(tokens, self._special))
        n = min(max(round(self.share * genes.size), 1), genes.size)
        chosen = rng.choice(genes, n, replace=False)  # in random order
        n_masked = round(self.masked * n)
        n_replaced = min(round(self.replaced * n), n - n_masked)
        seen = tokens.copy()
        seen[chosen[:n_masked]] = self._mask_id
        other = chosen[n_masked : n_masked + n_replaced]
        seen[other] = self._random_genes(species[other], rng)
        where = np.sort(chosen)
        return Masked(seen, where, tokens[where])

    def _random_genes(self, species: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        drawn = np.empty(species.size, np.int64)
        for code, genes in enumerate(self._genes):
            mine = species == code
            if mine.any():
                drawn[mine] = rng.choice(genes, mine.sum())
        return drawn
