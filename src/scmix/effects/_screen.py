"""First-order estimates of deletions, from one forward and one backward pass per cell.

Every token is given a weight, with which it is attended to. Deletion takes the weight of one token
from one to zero, and moves the tokens behind it up by one position. The estimate is minus the
derivative of the cell's movement along a direction with respect to that weight, plus the product of
the gradient of the token embeddings with their change by position. From a cell with more genes than
are read, the next one is let in whichever gene is deleted: what that does is computed once, by two
more forward passes. For moves there is no such estimate: the change of the moved gene itself, which
is not part of its effect, would drown the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..batches import Sequences, add_special, positions
from ..encoder import Encoder
from ..genes import Vocabulary
from ..inference import default_batch_tokens
from ..perturbations import truncate
from ._edits import cuts


@dataclass(frozen=True, eq=False)
class Screen:
    """Estimates the movement of cells along a direction when a gene is deleted.

    Parameters
    ----------
    encoder, vocabulary, layer, pool
        As in :class:`scmix.effects.Engine`.
    n_genes
        Most genes of a cell that are read.
    centre
        Subtracted from the pooled vector, `(H,)`.
    direction
        The movement is the change of the product of the unit vector with it, `(H,)`.
    leave_out
        As in :class:`scmix.effects.Formula`.
    batch_tokens
        Tokens computed at once, in whole cells; None: what suits the device.
    """

    encoder: Encoder
    vocabulary: Vocabulary
    n_genes: int
    centre: np.ndarray
    direction: np.ndarray
    layer: int = -1
    pool: str = "mean"
    leave_out: bool = True
    batch_tokens: int | None = None

    def run(self, cells: Sequences, species: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Estimates for every gene of some cells.

        Parameters
        ----------
        cells
            Genes of each cell, by rank; where genes are let back in, at least one more than are
            read.
        species
            Species code of each cell.

        Returns
        -------
        Rows of consecutive cells, and the estimate for each gene that is read of them in turn,
        float64.
        """
        device = self.encoder.bert.embeddings.word_embeddings.weight.device
        budget = self.batch_tokens or default_batch_tokens(self.encoder, device)
        for first, last in cuts(cells.lengths, budget):
            rows = np.arange(first, last)
            read = truncate(cells[rows], self.n_genes)
            by_gene = self._estimate(read, species[rows])
            let_in = self._let_in(cells[rows], species[rows])
            yield rows, by_gene + np.repeat(let_in, read.lengths)

    def _estimate(self, genes: Sequences, species: np.ndarray) -> np.ndarray:
        if not genes.tokens.size:
            return np.empty(0)
        room = self.encoder.config.max_position_embeddings
        read = add_special(genes, self.vocabulary, species, max_length=room)
        is_gene = ~np.isin(read.tokens, self.vocabulary.special_ids, kind="sort")
        by_weight, by_embedding, embedded = self._gradients(read, is_gene)
        with torch.no_grad():
            moved = self._embed(read.tokens, np.maximum(positions(read.indptr) - 1, 0)) - embedded
            up = (moved.float() * by_embedding).sum(dim=1).double().cpu().numpy()
        place, ups = np.flatnonzero(is_gene), np.concatenate([[0], np.cumsum(up)])
        behind = ups[np.repeat(read.indptr[1:], genes.lengths)] - ups[place + 1]
        return behind - by_weight[place]

    def _let_in(self, cells: Sequences, species: np.ndarray) -> np.ndarray:
        """Effect of reading the gene behind the last that is read; zero where there is none."""
        effect, long = np.zeros(len(cells)), np.flatnonzero(cells.lengths > self.n_genes)
        if not long.size:
            return effect
        genes = truncate(cells[long], self.n_genes + 1)
        room = self.encoder.config.max_position_embeddings + 1
        read = add_special(genes, self.vocabulary, species[long], max_length=room)
        is_gene = ~np.isin(read.tokens, self.vocabulary.special_ids, kind="sort")
        extra = np.zeros(is_gene.size, bool)
        extra[is_gene] = positions(genes.indptr) == self.n_genes
        behind = np.cumsum(extra)
        at = positions(read.indptr) - (behind - np.repeat(np.arange(long.size), read.lengths))
        with torch.no_grad():
            embedded, indptr = self._embed(read.tokens, at), torch.from_numpy(read.indptr)
            weight = torch.zeros(len(embedded), device=embedded.device, dtype=embedded.dtype)
            absent = weight.masked_fill(torch.from_numpy(extra).to(weight.device), -torch.inf)
            pooled = is_gene & ~extra

            def movement(bias: Tensor, genes: np.ndarray) -> Tensor:
                hidden = self._hidden(embedded, indptr, bias)
                return self._movement(self._pooled(hidden, weight, read, genes))

            moved = movement(weight, pooled if self.leave_out else is_gene)
            moved = moved - movement(absent, pooled)
        effect[long] = moved.double().cpu().numpy()
        return effect

    def _hidden(self, embedded: Tensor, indptr: Tensor, weight: Tensor) -> Tensor:
        hidden = self.encoder.from_embeddings(embedded, indptr, layer=self.layer, key_bias=weight)
        return hidden.float()

    def _gradients(self, read: Sequences, is_gene: np.ndarray) -> tuple[np.ndarray, Tensor, Tensor]:
        """Of the movement, by the weight and by the embedding of every token; the embeddings."""
        with torch.no_grad():
            embedded = self._embed(read.tokens, positions(read.indptr))
        embedded.requires_grad_()
        weight = torch.zeros(len(embedded), device=embedded.device, dtype=embedded.dtype)
        weight.requires_grad_()  # logarithmic; at one, its derivative is that of the weight itself
        indptr = torch.from_numpy(read.indptr)
        with torch.enable_grad():
            hidden = self._hidden(embedded, indptr, weight)
            movement = self._movement(self._pooled(hidden, weight, read, is_gene)).sum()
            by_weight, by_embedding = torch.autograd.grad(
                movement, (weight, embedded), allow_unused=True, materialize_grads=True
            )
        return by_weight.double().cpu().numpy(), by_embedding.float(), embedded.detach()

    def _pooled(
        self, hidden: Tensor, weight: Tensor, read: Sequences, is_gene: np.ndarray
    ) -> Tensor:
        indptr = torch.from_numpy(read.indptr)
        if self.pool == "cls":
            return hidden[indptr[:-1][indptr.diff() > 0].to(hidden.device)]
        keep = torch.from_numpy(is_gene).to(hidden.device)
        vectors = self.encoder.pool(hidden, indptr, keep)
        if not self.leave_out:  # a token that weighs less counts less in the mean too
            apart = (
                hidden - vectors.repeat_interleave(indptr.diff().to(hidden.device), 0)
            ).detach()
            apart = apart * weight[:, None].float()
            vectors = vectors + self.encoder.pool(apart, indptr, keep)
        return vectors[(indptr.diff() > 0).to(hidden.device)]

    def _movement(self, vectors: Tensor) -> Tensor:
        centre = torch.from_numpy(self.centre).to(vectors)
        direction = torch.from_numpy(self.direction).to(vectors)
        return torch.nn.functional.normalize(vectors - centre, dim=1) @ direction

    def _embed(self, tokens: np.ndarray, at: np.ndarray) -> Tensor:
        device = self.encoder.bert.embeddings.word_embeddings.weight.device
        return self.encoder.embed(
            torch.from_numpy(tokens).to(device), torch.from_numpy(at).to(device)
        )
