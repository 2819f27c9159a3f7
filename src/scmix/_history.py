"""The log of a run: one JSON object per line, cut back to the step from which a run resumes."""

import json
import math
import os
from pathlib import Path
from typing import Any


class History:
    """Appends records to ``history.jsonl``.

    Parameters
    ----------
    path
        The file.
    step
        Records after this step are dropped: they belong to a run that was interrupted.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [record for record in read_history(path) if record["step"] <= step]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(map(_line, kept)), "utf-8")
        os.replace(partial, path)

    def add(self, record: dict[str, Any]) -> None:
        """Append a record."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(_line(record))


def read_history(path: Path) -> list[dict[str, Any]]:
    """Records of a history file; a last line that was cut off by a kill is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text("utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def _line(record: dict[str, Any]) -> str:
    # JSON has no NaN
    clean = {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()
    }
    return json.dumps(clean) + "\n"
