"""How a network does on the cells set aside, and the weights of its best epoch."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor

from .._device import choose
from .._history import read_history
from ..batches import Sequences, pack
from ..genes import Vocabulary
from ._network import Network, as_batch, cross_entropy
from ._records import is_epoch, merit

_BATCH_TOKENS = 16_384


def scores(codes: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Accuracy and macro-F1 over the classes that occur among cells with a label.

    Parameters
    ----------
    codes
        Class of each cell, -1 for none.
    logits
        (n_cells, n_classes).
    """
    known = codes >= 0
    true, given = codes[known], logits[known].argmax(axis=1)
    if not true.size:
        return {"accuracy": float("nan"), "macro_f1": float("nan")}
    macro = f1_score(true, given, labels=np.unique(true), average="macro", zero_division=0)
    return {"accuracy": float(accuracy_score(true, given)), "macro_f1": float(macro)}


class Validation:
    """Loss and scores of a network on fixed cells.

    Parameters
    ----------
    sequences
        Tokens of the cells, special ones included; every cell has genes.
    codes
        int32 (n_cells, n_keys).
    vocabulary
        Of the tokens.
    bf16
        Whether products are computed in bfloat16, as in training.
    """

    def __init__(
        self,
        sequences: Sequences,
        codes: np.ndarray,
        vocabulary: Vocabulary,
        *,
        bf16: bool,
    ) -> None:
        self.sequences, self.codes = sequences, codes
        self.vocabulary, self.bf16 = vocabulary, bf16

    def __call__(self, network: Network) -> dict[str, float]:
        """`validation_loss`, and `validation_accuracy` and `validation_macro_f1` over all keys."""
        if not len(self.sequences):
            return {}
        was_training = network.training
        logits = self.logits(network.eval())
        network.train(was_training)
        loss = cross_entropy(logits, torch.from_numpy(self.codes.astype(np.int64)))
        each = [scores(self.codes[:, i], x.numpy()) for i, x in enumerate(logits)]
        means = {name: float(np.nanmean([e[name] for e in each])) for name in each[0]}
        return {f"validation_{name}": v for name, v in {"loss": float(loss), **means}.items()}

    @torch.no_grad()
    def logits(self, network: Network) -> list[Tensor]:
        """Logits of all cells on the CPU, for each key."""
        device = network.heads[0].weight.device
        n_positions = network.encoder.config.max_position_embeddings
        out = [torch.empty(len(self.sequences), head.out_features) for head in network.heads]
        for rows in pack(self.sequences.lengths, _BATCH_TOKENS):
            batch = as_batch(self.sequences[rows], self.vocabulary, n_positions)
            moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                parts = network(moved)
            for whole, part in zip(out, parts, strict=True):
                whole[torch.from_numpy(rows)] = part.float().cpu()
        return out


class Best:
    """The weights of the epoch to keep: best macro-F1 on the validation cells, or the last.

    Equal macro-F1 is decided by the loss, equal loss by the earlier epoch.

    Parameters
    ----------
    path
        Where the weights are kept, so that a resumed run finds them; None: in memory.
    history
        Of a run that is resumed: its records are taken into account.
    step
        Up to this one.
    last
        Keep the last epoch whatever its score.
    """

    def __init__(self, path: Path | None, history: Path, step: int, *, last: bool) -> None:
        self.path, self.last = path, last
        self.weights: dict[str, Tensor] = {}
        self.record: dict[str, Any] = {}
        for record in read_history(history) if step else []:
            if is_epoch(record) and record["step"] <= step and self._is_better(record):
                self.record = record

    def offer(self, network: Network, record: dict[str, Any]) -> None:
        """Keep the weights of an epoch if it is better than those before."""
        if not self._is_better(record):
            return
        self.record = record
        weights = {
            name: parameter.detach().cpu().clone()
            for name, parameter in network.named_parameters()
            if parameter.requires_grad
        }
        if self.path is None:
            self.weights = weights
            return
        partial = self.path.with_suffix(".partial")
        save_file(weights, partial)
        os.replace(partial, self.path)

    def restore(self, network: Network) -> None:
        """Load the weights that were kept."""
        weights = self.weights if self.path is None else load_file(self.path)
        network.load_state_dict(weights, strict=False)

    def is_final(self, record: dict[str, Any], patience: int) -> bool:
        """Whether training ends with this record: no better epoch for as long as patience lasts."""
        return bool(patience) and record["epoch"] - self.record["epoch"] >= patience

    def _is_better(self, record: dict[str, Any]) -> bool:
        if self.last or not self.record:
            return True
        return merit(record) > merit(self.record)


def in_bf16(device: str | None, precision: str) -> bool:
    """Whether to compute products in bfloat16."""
    return precision == "auto" and choose(device, "auto")[1] == torch.bfloat16
