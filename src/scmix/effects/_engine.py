"""Exact effects: every edit of a cell is run through the encoder, all of them packed together."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError, ModelFileError
from ..batches import Sequences, add_special, ranges
from ..encoder import Encoder
from ..genes import Vocabulary
from ..inference import default_batch_tokens, in_batches
from ..perturbations import n_found
from ._deletions import FEWEST, Deletions, Latest
from ._edits import Edits, cuts, whole_cells
from ._originals import Originals, distinct, rows_of, shortened
from ._plan import Plan

POOLS = ("mean", "cls")
_BATCHES_AT_ONCE = 16  # enough for packing by length; the edited tokens of these are in memory


@dataclass(frozen=True, eq=False)
class Effects:
    """Vectors before and after, for some edits.

    Parameters
    ----------
    cell
        Row of the cell, `(m,)`.
    number
        Number of the set in the plan, `(m,)`.
    changed
        Whether the edit changed what is read of the cell. Where not, nothing was run: the vectors
        are NaN and the similarity is one.
    rank
        Mean rank of the set's genes in the cell, counted from 1; NaN where it has none of them.
    original, perturbed
        Pooled vectors, float32 `(m, H)`.
    similarity
        Mean over the other genes of the cosine before and after, `(m,)`; empty when not asked for.
    pair, affected, cosine
        Index of the edit, token and cosine of every other gene; empty when not asked for.
    """

    cell: np.ndarray
    number: np.ndarray
    changed: np.ndarray
    rank: np.ndarray
    original: np.ndarray
    perturbed: np.ndarray
    similarity: np.ndarray
    pair: np.ndarray
    affected: np.ndarray
    cosine: np.ndarray


@dataclass(frozen=True, eq=False)
class Engine:
    """An encoder that reads cells and their perturbed selves.

    Parameters
    ----------
    encoder
        Ready for inference, see :func:`scmix.inference.prepare`.
    vocabulary
        Gives the special tokens.
    plan
        Which edits are made.
    layer
        Index into the hidden states.
    pool
        "mean" over the genes, or "cls".
    leave_out, same_genes
        As in :class:`scmix.effects.Formula`.
    by_token
        Whether every other gene of a cell is compared too.
    centre
        Subtracted from hidden states before genes are compared, `(H,)`; None: nothing.
    batch_tokens
        Tokens computed at once; None: what suits the device.
    """

    encoder: Encoder
    vocabulary: Vocabulary
    plan: Plan
    layer: int = -1
    pool: str = "mean"
    leave_out: bool = True
    same_genes: bool = False
    by_token: bool = False
    centre: np.ndarray | None = None
    batch_tokens: int | None = None
    _budget: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise InputError(f"Found pool={self.pool!r}; expected one of {', '.join(POOLS)}.")
        if self.pool == "cls" and "<cls>" not in self.vocabulary.special:
            raise InputError('pool="cls": this model has no <cls> token. Use pool="mean".')
        self.encoder.resolve_layer(self.layer)
        budget = self.batch_tokens or default_batch_tokens(self.encoder, self.device)
        object.__setattr__(self, "_budget", budget)

    @property
    def device(self) -> torch.device:
        """Where the encoder is."""
        return self.encoder.bert.embeddings.word_embeddings.weight.device

    def run(self, cells: Sequences, species: np.ndarray) -> Iterator[Effects]:
        """Effects of all edits of some cells.

        Parameters
        ----------
        cells
            Genes of each cell, by rank; `plan.largest` more than are read, where genes are let
            back in.
        species
            Species code of each cell.

        Returns
        -------
        Edits in the order of the plan, some at a time; those of one cell may be divided.
        """
        rows, numbers, sets = self.plan.of(self.plan.edit.before(cells))
        tokens = np.minimum(cells.lengths[rows], self.plan.edit.n_genes)
        for group in whole_cells(rows, tokens, self._at_once):
            n_read = self._n_read(cells, rows[group], sets[group])
            cell, n_genes, which = distinct(rows[group], n_read)
            originals = self._originals(shortened(cells, cell, n_genes), species[cell])
            latest = self._latest(cells, cell, species[cell], np.bincount(which))
            for start, stop in cuts(tokens[group], self._at_once):
                at = slice(group.start + start, group.start + stop)
                edits = Edits.of(
                    self.plan.edit, cells[rows[at]], sets[at], originals, which[start:stop]
                )
                vectors = self._vectors(edits, originals, species[rows[at]], latest)
                yield self._effects(edits, rows[at], numbers[at], vectors)

    @property
    def _at_once(self) -> int:
        return _BATCHES_AT_ONCE * self._budget

    def _n_read(self, cells: Sequences, rows: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """How many genes of the original each edit is compared with."""
        limit = self.plan.edit.n_genes
        n_read = np.minimum(cells.lengths[rows], limit)
        puts_in = self.plan.edit.kind == "overexpress" and self.plan.sets is not None
        if not (self.same_genes and puts_in):
            return n_read
        there = n_found(shortened(cells, rows, n_read), sets)
        absent = (sets >= 0).sum(axis=1) - there
        # as published: the length counts what was put in already, and then it is added once more
        return n_read - np.maximum(np.minimum(n_read + absent, limit) + absent - limit, 0)

    def _originals(self, genes: Sequences, species: np.ndarray) -> Originals:
        read, is_gene = self._with_special(genes, species)
        hidden = torch.empty(
            (read.tokens.size, self.encoder.config.hidden_size), device=self.device
        )

        def work(rows: np.ndarray) -> None:
            where = ranges(read.indptr[rows], read.lengths[rows])
            hidden[torch.from_numpy(where).to(self.device)] = self._hidden(read[rows])

        in_batches(work, read.lengths, np.flatnonzero(read.lengths), self._budget)
        return Originals.of(hidden, read, is_gene)

    def _latest(
        self, cells: Sequences, rows: np.ndarray, species: np.ndarray, n_edits: np.ndarray
    ) -> tuple[Latest | None, np.ndarray]:
        """What gives deletions a common first layer, and the originals that it is worth for."""
        no = None, np.zeros(len(rows), bool)
        edit = self.plan.edit
        if edit.kind != "delete" or self.plan.largest > 1 or self.device.type != "cpu":
            return no
        if self.vocabulary.suffix() or not self.encoder.resolve_layer(self.layer):
            return no
        n_read = np.minimum(cells.lengths[rows], edit.n_genes + edit.readmit)
        read = add_special(
            shortened(cells, rows, n_read),
            self.vocabulary,
            species,
            max_length=edit.n_genes + 1 + len(self.vocabulary.prefix(0)),
        )
        return Latest(self.encoder, self.layer, read), n_edits >= FEWEST

    def _vectors(
        self,
        edits: Edits,
        originals: Originals,
        species: np.ndarray,
        latest: tuple[Latest | None, np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pooled cells before and after, and cosine of every gene that was there before."""
        read, is_gene = self._with_special(edits.sequences, species)
        keep, base = is_gene.copy(), np.full(is_gene.size, -1, np.int64)
        base[is_gene] = edits.base
        if self.leave_out:
            keep[is_gene] = edits.base >= 0
        before = np.full((len(read), self.encoder.config.hidden_size), np.nan, np.float32)
        after = before.copy()
        cosine = np.full(is_gene.size if self.by_token else 0, np.nan, np.float32)

        def work(rows: np.ndarray, shared: Deletions | None = None) -> None:
            part = read[rows]
            where = ranges(read.indptr[rows], part.lengths)
            if shared is None:
                hidden = self._hidden(part)
            else:  # behind the special tokens in front, counted from 1
                front = part.lengths[0] - edits.sequences.lengths[rows[0]]
                hidden = shared.hidden(edits.rank[rows].astype(np.int64) + front - 1)
            before[rows] = self._originals_of(edits, rows, originals).cpu().numpy()
            after[rows] = self._pooled(hidden, part.indptr, keep[where]).cpu().numpy()
            if self.by_token:
                cosine[where] = self._compare(hidden, originals, base[where])

        made, worth = latest
        alone = edits.changed & ~worth[edits.which]
        in_batches(work, read.lengths, np.flatnonzero(alone), self._budget)
        for cell in np.unique(edits.which[edits.changed & ~alone]):
            rows = np.flatnonzero(edits.changed & (edits.which == cell))
            if made is not None:
                together = partial(work, shared=made.of(int(cell)))
                in_batches(together, read.lengths, rows, self._budget)
        _check_finite(after[edits.changed])
        return before, after, cosine[is_gene] if self.by_token else cosine

    def _originals_of(self, edits: Edits, rows: np.ndarray, originals: Originals) -> Tensor:
        """Pooled originals as each edit sees them: usually without the genes of its set."""
        which = edits.which[rows]
        if self.pool == "cls":
            return rows_of(originals.first, which)
        lengths = originals.lengths[which]
        where = ranges(originals.indptr[which], lengths)
        stays = edits.stays[ranges(edits.start[rows], lengths)]
        keep = stays if self.leave_out else np.ones_like(stays)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return self._pooled(rows_of(originals.genes, where), indptr, keep)

    def _pooled(self, hidden: Tensor, indptr: np.ndarray, keep: np.ndarray) -> Tensor:
        if self.pool == "cls":
            return rows_of(hidden, indptr[:-1])
        kept = torch.from_numpy(keep).to(hidden.device)
        return self.encoder.pool(hidden, torch.from_numpy(indptr), kept)

    def _effects(
        self,
        edits: Edits,
        cell: np.ndarray,
        number: np.ndarray,
        vectors: tuple[np.ndarray, np.ndarray, np.ndarray],
    ) -> Effects:
        n, (before, after, cosine) = len(cell), vectors
        compared = np.flatnonzero((edits.base >= 0) & edits.changed[edits.row])
        compared = compared[: compared.size if self.by_token else 0]
        pair, cosine = edits.row[compared], cosine[compared]
        with np.errstate(invalid="ignore"):
            means = np.bincount(pair, cosine, n) / np.bincount(pair, minlength=n)
        return Effects(
            cell=cell,
            number=number,
            changed=edits.changed,
            rank=edits.rank,
            original=before,
            perturbed=after,
            similarity=np.where(edits.changed, means, 1.0)[: n if self.by_token else 0],
            pair=pair,
            affected=edits.sequences.tokens[compared],
            cosine=cosine,
        )

    def _compare(self, hidden: Tensor, originals: Originals, base: np.ndarray) -> np.ndarray:
        """Cosine of every token with what it was, NaN where it was not there."""
        there = np.flatnonzero(base >= 0)
        centre = torch.zeros(1) if self.centre is None else torch.from_numpy(self.centre).float()
        after = rows_of(hidden, there) - centre.to(self.device)
        before = rows_of(originals.genes, base[there]) - centre.to(self.device)
        cosine = np.full(base.size, np.nan, np.float32)
        cosine[there] = torch.cosine_similarity(after, before, dim=1).cpu().numpy()
        return cosine

    def _with_special(self, genes: Sequences, species: np.ndarray) -> tuple[Sequences, np.ndarray]:
        room = self.encoder.config.max_position_embeddings
        read = add_special(genes, self.vocabulary, species, max_length=room)
        return read, ~np.isin(read.tokens, self.vocabulary.special_ids, kind="sort")

    def _hidden(self, part: Sequences) -> Tensor:
        tokens = torch.from_numpy(part.tokens).to(self.device)
        return self.encoder(tokens, torch.from_numpy(part.indptr), layer=self.layer).float()


def _check_finite(vectors: np.ndarray) -> None:
    if not np.isfinite(vectors).all():
        raise ModelFileError(
            'The encoder gave values that are not finite. Try device="cpu", dtype="float32"; if '
            "they remain, the weights are damaged."
        )
