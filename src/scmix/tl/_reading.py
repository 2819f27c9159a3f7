"""How the tools run an encoder over the cells of an AnnData."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from tqdm.auto import tqdm

from .. import _slots, inference
from .._errors import InputError
from .._opening import check_adata
from .._writer import is_ours
from ..batches import Sequences, add_special
from ..checkpoints import Model
from ..settings import settings

_BATCHES_AT_ONCE = 16  # enough for packing by length, few enough for a progress bar that moves
_TOKEN_VECTORS_AT_ONCE = 1 << 17  # 128 MB at width 256


@dataclass(frozen=True, eq=False)
class Part:
    """Consecutive cells as the encoder read them.

    Parameters
    ----------
    start
        Row of the first cell.
    sequences
        Tokens of the cells, special ones included.
    vectors
        Float32: a row for each cell, or for each token with `pool="tokens"`.
    """

    start: int
    sequences: Sequences
    vectors: np.ndarray


@dataclass(frozen=True, eq=False)
class Reader:
    """A model and how it reads cells; every option is checked when it is made.

    Parameters
    ----------
    model
        The encoder and its vocabulary.
    pool
        As in `scmix.inference.run`.
    hidden_layer
        Index into the hidden states.
    limit
        Most genes of a cell; None for as many as the model has positions.
    device, dtype, batch_tokens
        As in `scmix.inference.run`; the device of the session when None.
    shows_progress
        Whether this reader may draw a bar.
    """

    model: Model
    pool: Any
    hidden_layer: int
    limit: int | None
    device: str | None
    dtype: str
    batch_tokens: int | None
    shows_progress: bool = True

    def __post_init__(self) -> None:
        _check_at_least_one("n_genes", self.limit)
        _check_at_least_one("batch_tokens", self.batch_tokens)
        if self.limit is not None and self.limit > self._room:
            raise InputError(
                f"Found n_genes={self.limit:,}; model {self.model.name!r} reads at most "
                f"{self._room:,} genes of a cell. Pass n_genes={self._room}, or nothing."
            )
        self._run(Sequences(np.empty(0, np.int32), np.zeros(1, np.int64)))

    @property
    def n_genes(self) -> int:
        """Most genes that are read of a cell."""
        return self._room if self.limit is None else self.limit

    def read(self, blocks: Iterable[_slots.Block], n_cells: int) -> Iterator[Part]:
        """Run the encoder over blocks of cells, a part of a block at a time."""
        vocabulary, n_special = self.model.vocabulary, self.n_special
        hidden = not (settings.progress and self.shows_progress)
        with tqdm(total=n_cells, unit="cell", disable=hidden, leave=False) as bar:
            for block in blocks:
                sequences = add_special(
                    block.sequences,
                    vocabulary,
                    block.species,
                    max_length=self.n_genes + n_special,
                )
                for first, last in _parts(sequences.indptr, self._tokens_at_once):
                    part = sequences[first:last]
                    yield Part(block.start + first, part, self._run(part))
                    bar.update(last - first)

    def params(self, **options: Any) -> dict[str, Any]:
        """What `uns[key]["params"]` says about the model and the run."""
        device, dtype = inference.choose(self.device_name, self.dtype)
        return _slots.params(
            model=self.model.name,
            model_sha256=self.model.sha256,
            vocabulary_sha256=self.model.vocabulary.sha256,
            pool=self.pool,
            hidden_layer=self.hidden_layer,
            n_genes=self.n_genes,
            device=device.type,
            dtype=str(dtype).removeprefix("torch."),
            **options,
        )

    @property
    def device_name(self) -> str:
        """The device asked for, or that of the session."""
        return settings.device if self.device is None else self.device

    @property
    def n_special(self) -> int:
        vocabulary = self.model.vocabulary
        return max(len(vocabulary.prefix(code)) for code in (0, 1)) + len(vocabulary.suffix())

    @property
    def _room(self) -> int:
        return self.model.config.max_position_embeddings - self.n_special

    @property
    def _tokens_at_once(self) -> int:
        device, _ = inference.choose(self.device_name, self.dtype)
        batch = self.batch_tokens or inference.default_batch_tokens(self.model.encoder, device)
        at_once = _BATCHES_AT_ONCE * batch
        return min(at_once, _TOKEN_VECTORS_AT_ONCE) if self.pool == "tokens" else at_once

    def _run(self, sequences: Sequences) -> np.ndarray:
        vocabulary = self.model.vocabulary
        return inference.run(
            self.model.encoder,
            sequences,
            special_ids=vocabulary.special_ids,
            cls_id=vocabulary.special.get("<cls>"),
            pool=self.pool,
            layer=self.hidden_layer,
            device=self.device_name,
            dtype=self.dtype,
            batch_tokens=self.batch_tokens,
        )


def layer_read(model: Model, pool: str, hidden_layer: int | None) -> int:
    """Which hidden state is pooled, when it is not said: see `tl.embed`."""
    _check_reads_ranks(model)
    if hidden_layer is None:
        return -1 if pool == "pooler" else -2
    return hidden_layer


def _check_reads_ranks(model: Model) -> None:
    recipe = model.manifest.get("recipe", {})
    objectives = recipe.get("objectives", {})
    if recipe.get("value_input", "none") != "none" or "masked_values" in objectives:
        raise InputError(
            f"Found model {model.name!r}, trained by recipe {recipe.get('name')!r} to read values "
            "of genes beside their ranks; expected one that reads ranks alone. Train with a recipe "
            "that does, such as 'wced-rank' or 'poisson-rank'."
        )


def check_target(adata: AnnData, slot: str, key: str, *, overwrite: bool, copy: bool) -> None:
    """Refuse, before any work is done, a key that scmix did not write and a copy of a file."""
    check_adata(adata)
    if copy and adata.isbacked:
        raise InputError(
            "Found copy=True for data in a backed file; expected copy=False, which writes to the "
            "object and leaves the file as it is. Or pass adata.to_memory()."
        )
    if key in getattr(adata, slot) and not overwrite and not is_ours(adata.uns.get(key)):
        raise InputError(
            f'{slot}["{key}"] exists already. Pass overwrite=True, or another key_added.'
        )


def _check_at_least_one(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise InputError(f"Found {name}={value}; expected at least 1, or None.")


def _parts(indptr: np.ndarray, budget: int) -> Iterator[tuple[int, int]]:
    """First and last row of consecutive cells of about `budget` tokens, at least one cell."""
    first, n_cells = 0, len(indptr) - 1
    while first < n_cells:
        last = int(np.searchsorted(indptr, indptr[first] + budget, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last
