"""What became of the cells of each file, as a table."""

from typing import Any

import pandas as pd

REPORT = "report.txt"
_TITLES = {
    "name": "data set",
    "species": "species",
    "n_read": "read",
    "n_kept": "kept",
    "n_doublet": "doublets",
    "n_few_counts": "few counts",
    "n_many_counts": "many counts",
    "n_few_genes": "few genes",
    "n_many_genes": "many genes",
    "n_mitochondrial": "mitochondrial",
    "n_duplicated": "same counts",
    "n_same_name": "same name",
    "coverage": "genes known",
}
_ALWAYS = ("name", "species", "n_read", "n_kept", "coverage")


def report_text(manifest: dict[str, Any]) -> str:
    """The thresholds, and for each file the cells read, kept and dropped for each reason."""
    table = pd.DataFrame(manifest["sources"])[list(_TITLES)]
    table["coverage"] = table.coverage.map("{:.1%}".format)
    counted = [name for name in table if str(name).startswith("n_")]
    sums: dict[str, Any] = {"name": "all", **table[counted].sum().to_dict()}
    if len(table) > 1:
        table = pd.concat([table, pd.DataFrame([sums])], ignore_index=True).fillna("")
    shown = [name for name in table if name in _ALWAYS or sums[str(name)]]
    text = table[shown].rename(columns=_TITLES).to_string(index=False)
    return f"{_thresholds(manifest['quality'])}\n\n{text}\n"


def _thresholds(quality: dict[str, float | None]) -> str:
    said = [f"{name} = {value:g}" for name, value in quality.items() if value is not None]
    return "Quality control: " + ", ".join(said)
