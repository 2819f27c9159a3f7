"""The encoder without gradients: packed sequences in, vectors out.

Cells are sorted by length and put into batches of a number of tokens; results go back to the rows
they belong to. When memory runs out the batches are halved and the work goes on.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from scmix._device import choose
from scmix._errors import InputError, ModelFileError, ResourceError
from scmix._warn import warn
from scmix.batches import Sequences, pack, ranges
from scmix.encoder import Encoder

Pool = Literal["mean", "cls", "first", "pooler", "tokens"]
POOLS = ("mean", "cls", "first", "pooler", "tokens")

# Tokens of a batch for an encoder of width 256. On CPU what a batch computes should stay in cache.
BATCH_TOKENS = {"cpu": 4_096, "cuda": 131_072, "mps": 16_384}


class _NotFiniteError(ModelFileError):
    pass


def run(
    encoder: Encoder,
    sequences: Sequences,
    *,
    special_ids: Sequence[int] | np.ndarray,
    pool: Pool = "mean",
    layer: int = -1,
    cls_id: int | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    batch_tokens: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Embed cells.

    Parameters
    ----------
    encoder
        Left as it is: its weights are copied where device, dtype or mode must change.
    sequences
        Tokens of each cell, special tokens included.
    special_ids
        Tokens that are not genes: "mean" and "first" leave them out.
    pool
        "mean" over the genes of a cell; "cls": the ``<cls>`` token in front; "first": the gene of
        highest rank; "pooler": the checkpoint's pooler on the token in front, as Geneformer and
        transformers do it; "tokens": no pooling.
    layer
        Index into the hidden states as in transformers: 0 embeddings, -1 the last layer.
        Geneformer's ``emb_layer`` 0 is -1 here, its -1 is -2.
    cls_id
        Token id of ``<cls>``, for ``pool="cls"``; None: the model has none.
    device
        None or "auto": CUDA where there is a GPU, otherwise CPU. "mps" only on request.
    dtype
        None or "auto": bfloat16 where the processor is fast at it, otherwise float32.
        Sums of pooling are float32 always.
    batch_tokens
        Tokens computed at once.
    progress
        Show a progress bar.

    Returns
    -------
    float32, shape ``(n, hidden_size)``; with ``pool="tokens"`` ``(tokens, hidden_size)``.
    A cell without genes gets NaN.

    Raises
    ------
    InputError
        Unknown pool, device, dtype or layer, a pool that the model does not have, tokens outside
        the vocabulary.
    ResourceError
        A single cell does not fit into memory.

    Examples
    --------
    >>> from scmix.encoder import Config
    >>> encoder = Encoder(Config(vocab_size=50, hidden_size=16, num_hidden_layers=2))
    >>> cells = Sequences.from_list([[7, 8, 9], [4, 5]])
    >>> run(encoder, cells, special_ids=[0, 1]).shape
    (2, 16)
    """
    encoder.resolve_layer(layer)
    is_gene = _is_gene(sequences, special_ids)
    _check_tokens(encoder, sequences)
    _check_pool(pool, encoder, sequences, cls_id)
    on, number = choose(device, dtype)
    budget = default_batch_tokens(encoder, on) if batch_tokens is None else batch_tokens

    def embed(number: torch.dtype) -> np.ndarray:
        model = prepare(encoder, on, number)
        return _embed(model, sequences, is_gene, pool, layer, budget, progress)

    try:
        return embed(number)
    except _NotFiniteError:
        if dtype not in (None, "auto") or number == torch.float32:
            raise
    warn(f"{number} gave values that are not finite; embedding again in float32.", RuntimeWarning)
    return embed(torch.float32)


def _embed(
    model: Encoder,
    sequences: Sequences,
    is_gene: np.ndarray,
    pool: Pool,
    layer: int,
    budget: int,
    progress: bool,
) -> np.ndarray:
    occupied = np.flatnonzero(_genes_per_cell(sequences, is_gene))
    n_rows = sequences.tokens.size if pool == "tokens" else len(sequences)
    out = np.full((n_rows, model.config.hidden_size), np.nan, dtype=np.float32)

    def work(rows: np.ndarray) -> None:
        part = sequences[rows]
        where = ranges(sequences.indptr[rows], part.lengths)
        hidden = _hidden(model, part, layer)
        vectors = _pooled(model, hidden, part, is_gene[where], pool).float().cpu().numpy()
        _check_finite(vectors, hidden)
        out[where if pool == "tokens" else rows] = vectors

    in_batches(work, sequences.lengths, occupied, budget, progress=progress)
    return out


def logits_at(
    encoder: Encoder,
    sequences: Sequences,
    at: np.ndarray,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    batch_tokens: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Scores of every token of the vocabulary at some positions.

    Parameters
    ----------
    encoder, sequences, device, dtype, batch_tokens, progress
        As in :func:`run`.
    at
        Positions in ``sequences.tokens``. Cells that have none of them are not run.

    Returns
    -------
    float32, shape ``(len(at), vocab_size)``.
    """
    at = np.asarray(at, dtype=np.int64)
    if at.size and not 0 <= at.min() <= at.max() < sequences.tokens.size:
        raise InputError(f"Positions must lie between 0 and {sequences.tokens.size - 1:,}.")
    _check_tokens(encoder, sequences)
    model = prepare(encoder, *choose(device, dtype))
    order = np.argsort(at, kind="stable")
    cell = np.searchsorted(sequences.indptr, at, side="right") - 1
    out = np.empty((at.size, encoder.config.vocab_size), dtype=np.float32)

    def score(rows: np.ndarray) -> None:
        part = sequences[rows]
        hidden = _hidden(model, part, -1)
        first, last = np.searchsorted(cell[order], [rows, rows + 1])
        slots = order[ranges(first, last - first)]
        local = at[slots] + np.repeat(part.indptr[:-1] - sequences.indptr[rows], last - first)
        chosen = hidden[torch.from_numpy(local).to(hidden.device)]
        out[slots] = model.logits(chosen).float().cpu().numpy()

    if batch_tokens is None:
        batch_tokens = default_batch_tokens(model, _weight(model).device)
    in_batches(score, sequences.lengths, np.unique(cell), batch_tokens, progress=progress)
    return out


def prepare(encoder: Encoder, device: torch.device, dtype: torch.dtype) -> Encoder:
    """An encoder ready for inference: this one when it already is, otherwise a copy.

    Weights that need no cast are shared with the copy. Who calls :func:`run` many times prepares
    the encoder once and passes the copy.
    """
    weight = _weight(encoder)
    if weight.device == device and weight.dtype == dtype and not encoder.training:
        return encoder
    # deepcopy takes from the memo what is there already: weights are cast, never copied twice
    cast: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach().to(device=device, dtype=dtype), False)
        for weight in encoder.parameters()
    }
    return copy.deepcopy(encoder, cast).eval()


def default_batch_tokens(encoder: Encoder, device: torch.device) -> int:
    """Tokens of a batch that suit a device and the width of an encoder."""
    base = BATCH_TOKENS.get(device.type, BATCH_TOKENS["mps"])
    return max(base * 256 // encoder.config.hidden_size, 1)


def in_batches(
    work: Callable[[np.ndarray], None],
    lengths: np.ndarray,
    rows: np.ndarray,
    budget: int,
    *,
    progress: bool = False,
) -> None:
    """Call ``work(rows)`` for batches of cells, longest first, without gradients.

    A batch that does not fit into memory is divided, with a warning, and all later ones are made as
    small.
    """
    pending = [rows[batch] for batch in pack(lengths[rows], budget)][::-1]
    with torch.inference_mode(), tqdm(total=rows.size, unit="cell", disable=not progress) as bar:
        while pending:
            if _fits(work, pending[-1]):
                bar.update(pending.pop().size)
                continue
            if pending[-1].size == 1:
                raise ResourceError(
                    f"A single cell of {lengths[pending[-1]][0]:,} tokens does not fit into "
                    "memory. Encode fewer genes per cell, or use another device."
                )
            left = np.concatenate(pending[::-1])
            failed = int(lengths[pending[-1]].sum())
            budget = max(failed // 2, 1)
            warn(
                f"{failed:,} tokens at once do not fit into memory; going on with batches of "
                f"{budget:,}. batch_tokens={budget} avoids the attempt.",
                RuntimeWarning,
            )
            pending = [left[batch] for batch in pack(lengths[left], budget)][::-1]


def _fits(work: Callable[[np.ndarray], None], rows: np.ndarray) -> bool:
    try:
        work(rows)
        return True
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not _is_out_of_memory(error):
            raise
    # after the except clause, which keeps the tensors of the failed batch alive
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return any(sign in text for sign in signs)


def _weight(encoder: Encoder) -> Tensor:
    return encoder.bert.embeddings.word_embeddings.weight


def _hidden(model: Encoder, part: Sequences, layer: int) -> Tensor:
    tokens = torch.from_numpy(part.tokens).to(_weight(model).device)
    return model(tokens, torch.from_numpy(part.indptr), layer=layer)


def _pooled(
    model: Encoder, hidden: Tensor, part: Sequences, is_gene: np.ndarray, pool: Pool
) -> Tensor:
    if pool == "tokens":
        return hidden
    if hidden.device.type == "mps":  # has no segment_reduce
        hidden = hidden.cpu()
    if pool == "mean":
        keep = None if is_gene.all() else torch.from_numpy(is_gene).to(hidden.device)
        return model.pool(hidden, torch.from_numpy(part.indptr), keep)
    front = part.indptr[:-1]
    if pool == "first":
        genes = np.flatnonzero(is_gene)
        front = genes[np.searchsorted(genes, front)]
    vectors = hidden[torch.from_numpy(front).to(hidden.device)]
    return model.pooler(vectors.to(_weight(model).device)) if pool == "pooler" else vectors


def _is_gene(sequences: Sequences, special_ids: Sequence[int] | np.ndarray) -> np.ndarray:
    return ~np.isin(sequences.tokens, np.asarray(special_ids, dtype=np.int32), kind="sort")


def _genes_per_cell(sequences: Sequences, is_gene: np.ndarray) -> np.ndarray:
    return np.diff(np.concatenate([[0], np.cumsum(is_gene)])[sequences.indptr])


def _check_tokens(encoder: Encoder, sequences: Sequences) -> None:
    tokens, config = sequences.tokens, encoder.config
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < config.vocab_size:
        raise InputError(
            f"Found token {tokens.max() if tokens.min() >= 0 else tokens.min()}; this model has "
            f"tokens 0 to {config.vocab_size - 1}. Encode the cells with the model's vocabulary."
        )
    longest = sequences.lengths.max(initial=0)
    if longest > config.max_position_embeddings:
        raise InputError(
            f"Found a cell of {longest:,} tokens; this model takes at most "
            f"{config.max_position_embeddings:,}. Encode fewer genes per cell (n_genes)."
        )


def _check_pool(pool: str, encoder: Encoder, sequences: Sequences, cls_id: int | None) -> None:
    if pool not in POOLS:
        raise InputError(f"Found pool={pool!r}, expected one of {', '.join(POOLS)}.")
    if pool == "pooler" and not encoder.has_pooler:
        raise InputError('pool="pooler": this model has no pooler. Use pool="mean".')
    if pool != "cls":
        return
    if cls_id is None:
        raise InputError('pool="cls": this model has no <cls> token. Use pool="mean".')
    front = sequences.tokens[sequences.indptr[:-1][sequences.lengths > 0]]
    if (front != cls_id).any():
        raise InputError(f'pool="cls": a cell does not begin with <cls> (token {cls_id}).')


def _check_finite(vectors: np.ndarray, hidden: Tensor) -> None:
    if not np.isfinite(vectors).all():
        raise _NotFiniteError(
            f"The encoder gave values that are not finite (device {hidden.device}, {hidden.dtype})."
            ' Try device="cpu", dtype="float32"; if they remain, the weights are damaged.'
        )
