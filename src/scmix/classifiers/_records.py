"""The history of a fine-tuning as a table."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

_NUMBERS = (
    "epoch",
    "loss",
    "learning_rate",
    "validation_loss",
    "validation_accuracy",
    "validation_macro_f1",
)


def is_epoch(record: dict[str, Any]) -> bool:
    """Whether a record is of the end of an epoch, not of some steps of training."""
    return record.get("loss") is None


def merit(record: dict[str, Any]) -> tuple[float, float]:
    """Epochs are ordered by macro-F1 on the validation cells, equal ones by the loss."""
    return record.get("validation_macro_f1") or 0.0, -(record.get("validation_loss") or 0.0)


def make_history(records: Sequence[dict[str, Any]], keep: str) -> pd.DataFrame:
    """Table of records; `kept` is True for the epoch whose weights are used."""
    epochs = [i for i, record in enumerate(records) if is_epoch(record)]
    best = epochs[-1:]
    if keep == "best" and epochs:
        best = [max(epochs, key=lambda i: merit(records[i]))]  # the first of equals
    return as_table([{**record, "kept": i in best} for i, record in enumerate(records)])


def as_table(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Records as a table with typed columns; what a record does not say is NaN."""
    table = pd.DataFrame(list(records), columns=["step", *_NUMBERS, "kept"])
    return table.astype({"step": int, "kept": bool} | dict.fromkeys(_NUMBERS, float))
