"""Genes of cells from a value decoder, without gradients."""

import copy

import numpy as np
import torch
from torch import Tensor

from .._device import choose
from .._errors import InputError
from ..batches import ranges
from ..encoder import Encoder
from ..genes import Vocabulary
from ..inference import default_batch_tokens, in_batches, prepare
from ._profiles import Profiles
from ._shown import Shown, likeliest_zeros, show
from ._value_decoder import ValueDecoder

_QUERIES = 1 << 16  # cells times genes that are decoded at once: 16 MB at width 64


def predict(
    encoder: Encoder,
    decoder: ValueDecoder,
    vocabulary: Vocabulary,
    profiles: Profiles,
    genes: np.ndarray,
    *,
    measured: np.ndarray | None = None,
    depth: float = 1.0,
    device: str | None = None,
    dtype: str = "auto",
    batch_tokens: int | None = None,
) -> np.ndarray:
    """Expression of genes in cells, as the model expects it from the genes that have counts.

    A gene's prediction in a cell depends neither on the other cells nor on the other genes that
    are predicted.

    Parameters
    ----------
    encoder, decoder, vocabulary
        The model.
    profiles
        The cells.
    genes
        Tokens to predict, shape ``(M,)``.
    measured
        Which tokens were measured in each species, bool, shape ``(2, vocab)``; None: those of
        the species. Only a decoder of kind "restore" is shown zeros, and only of these.
    depth
        How many times deeper than it is the cell is wanted; for a decoder that was trained with
        thinned counts.
    device, dtype, batch_tokens
        As in `scmix.inference.run`.

    Returns
    -------
    Float32, shape ``(n, M)``, on the scale of the model (``log1p(total x share)``), not below
    zero. Rows of NaN for cells without a gene.

    Raises
    ------
    InputError
        The depth is out of range, or cannot be chosen with this decoder.
    ResourceError
        A single cell does not fit into memory.
    """
    _check_depth(decoder, depth)
    on, number = choose(device, dtype)
    model = prepare(encoder, on, number)
    values = copy.deepcopy(decoder).to(on).eval()
    shown = _show(decoder, vocabulary, profiles, measured, model.config.max_position_embeddings)
    words = encoder.bert.embeddings.word_embeddings.weight.detach()
    tokens = torch.from_numpy(np.asarray(genes, np.int64))
    queries, tokens = words[tokens].float().to(on), tokens.to(on)
    out = np.full((len(profiles), len(genes)), np.nan, np.float32)
    logs = np.log10(np.maximum(profiles.totals, 1))
    depths = np.stack([logs, logs + np.log10(depth)], axis=1).astype(np.float32)

    def work(rows: np.ndarray) -> None:
        hidden, indptr = _hidden(model, values, shown, depths, rows)
        species = torch.from_numpy(profiles.species[rows].astype(np.int64)).to(on)
        step = max(_QUERIES // len(rows), 1)
        with torch.autocast(on.type, number, enabled=number != torch.float32):
            memories, real = values.remember(hidden, indptr)
            for start in range(0, len(genes), step):
                part = slice(start, start + step)
                z = values.decode(queries[None, part], memories, real).float()
                mean, scale = (x[species][:, tokens[part]] for x in (values.mean, values.scale))
                out[rows, part] = (mean + scale * z).clamp(min=0).cpu().numpy()

    occupied = np.flatnonzero(profiles.cells.lengths)
    budget = default_batch_tokens(encoder, on) if batch_tokens is None else batch_tokens
    in_batches(work, shown.sequences.lengths, occupied, budget)
    return out


def _show(
    decoder: ValueDecoder,
    vocabulary: Vocabulary,
    profiles: Profiles,
    measured: np.ndarray | None,
    max_length: int,
) -> Shown:
    zeros = None
    if decoder.settings.kind == "restore":
        measured = vocabulary.species_of_token if measured is None else measured
        mean = decoder.mean.detach().cpu().numpy()
        zeros = likeliest_zeros(profiles, mean, measured, max_length)
    total = decoder.settings.total
    return show(profiles, vocabulary, total=total, max_length=max_length, zeros=zeros)


def _hidden(
    model: Encoder, decoder: ValueDecoder, shown: Shown, depths: np.ndarray, rows: np.ndarray
) -> tuple[Tensor, Tensor]:
    part = shown.sequences[rows]
    where = ranges(shown.sequences.indptr[rows], part.lengths)
    weight = model.bert.embeddings.word_embeddings.weight
    added = decoder.added(
        torch.from_numpy(shown.values[where]).to(weight.device),
        torch.from_numpy(shown.known[where]).to(weight.device),
        torch.from_numpy(np.repeat(depths[rows], part.lengths, axis=0)).to(weight.device),
    )
    tokens = torch.from_numpy(part.tokens).to(weight.device)
    indptr = torch.from_numpy(part.indptr)
    return model(tokens, indptr, added=added.to(weight.dtype)), indptr


def _check_depth(decoder: ValueDecoder, depth: float) -> None:
    if not 0.1 <= depth <= 100:
        raise InputError(f"Found depth={depth}, expected 0.1 to 100 times the depth of the cell.")
    if depth != 1 and not decoder.settings.reads_depth:
        raise InputError(
            f"Found depth={depth}; this model was not trained with thinned counts and knows no "
            "depth. Leave depth out, or use a model trained with value_autoencoder_thinning > 0."
        )
