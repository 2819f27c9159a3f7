"""The table of a vocabulary: its columns, its text, and what may not be in it."""

import io
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ._errors import InputError
from ._species import SPECIES

COLUMNS = ("ensembl_id", "symbol", "aliases", "species", "biotype", "group", "median", "token")
SPECIAL = {
    "shared": {"<pad>": 0, "<mask>": 1, "<human>": 2, "<mouse>": 3},
    "separate": {"<pad>": 0, "<mask>": 1},
}
_HEADER = "# scmix vocabulary 1, mode "
_DOUBLE = ", float64 medians"


def known_mode(mode: str) -> str:
    """Refuse a mode that does not exist."""
    if mode not in SPECIAL:
        raise InputError(f"Found mode {mode!r}; expected 'shared' or 'separate'.")
    return mode


def with_tokens(table: pd.DataFrame, n_special: int, mode: str) -> pd.DataFrame:
    """Give tokens by the documented rule: human genes by id, then the other mouse genes by id."""
    table = table.sort_values(["species", "ensembl_id"], ignore_index=True)
    own = table.species + " " + table.ensembl_id
    key = own.where(table.group == "", "group " + table.group) if mode == "shared" else own
    return table.assign(token=pd.factorize(key)[0] + n_special)


def typed(table: pd.DataFrame, median_dtype: str = "float32") -> pd.DataFrame:
    """Take the columns of a vocabulary, with their types."""
    if median_dtype not in ("float32", "float64"):
        raise InputError(f"Found median_dtype={median_dtype!r}; expected 'float32' or 'float64'.")
    table = table[list(COLUMNS)].astype({"token": np.int32, "median": median_dtype})
    text = {
        name: table[name].astype(object).where(table[name].notna(), "") for name in COLUMNS[:-2]
    }
    return table.assign(**{name: values.astype(str) for name, values in text.items()})


def _special_rows(special: Mapping[str, int]) -> pd.DataFrame:
    rows = dict.fromkeys(COLUMNS, "") | {"ensembl_id": list(special), "species": "special"}
    return pd.DataFrame(rows | {"token": [str(token) for token in special.values()]})


def as_text(genes: pd.DataFrame, special: Mapping[str, int], mode: str) -> str:
    """CSV under a line that says the mode; the same table gives the same text."""
    double = genes["median"].dtype == np.float64
    number = np.float64 if double else np.float32
    median = genes["median"].to_numpy(number).astype("U")  # shortest exact decimals
    genes = genes[list(COLUMNS)].assign(median=median).astype({"token": str})
    table = pd.concat([_special_rows(special), genes])
    return f"{_HEADER}{mode}{_DOUBLE if double else ''}\n" + table.to_csv(
        index=False, lineterminator="\n"
    )


def parse(text: str) -> tuple[pd.DataFrame, dict[str, int], str]:
    """Read what :func:`as_text` wrote."""
    header, _, body = text.partition("\n")
    if not header.startswith(_HEADER):
        raise ValueError("the first line is not that of a vocabulary")
    table = pd.read_csv(io.StringIO(body), dtype=dict.fromkeys(COLUMNS, str), keep_default_na=False)
    if tuple(table.columns) != COLUMNS:
        raise ValueError(f"it has the columns {list(table.columns)}")
    is_special = (table.species == "special").to_numpy()
    rows = table[is_special]
    special = dict(zip(rows.ensembl_id, rows.token.astype(int), strict=True))
    median_dtype = "float64" if header.endswith(_DOUBLE) else "float32"
    genes = typed(table[~is_special].reset_index(drop=True), median_dtype)
    return genes, special, header.removeprefix(_HEADER).removesuffix(_DOUBLE)


def check(genes: pd.DataFrame, special: Mapping[str, int], mode: str) -> None:
    """Refuse a table that could give a cell wrong tokens."""
    known_mode(mode)
    median, tokens = genes["median"].to_numpy(np.float64), genes.token
    grouped, ids = genes[genes.group != ""], set(special.values())
    most = 10 * (len(genes) + len(special)) + 1000
    faults = {
        "no genes": genes.empty,
        "no special token <pad>": "<pad>" not in special,
        "an unknown species": not genes.species.isin(SPECIES).all(),
        "an Ensembl id twice": genes.ensembl_id.duplicated().any(),
        "a gene without an id": (genes.ensembl_id == "").any(),
        "medians that are not above zero": not (np.isfinite(median) & (median > 0)).all(),
        "negative tokens": (tokens < 0).any() or min(ids, default=0) < 0,
        "tokens far above the number of genes": max(tokens.max(), *ids, 0) > most,
        "a token for two genes of one species": genes.duplicated(["species", "token"]).any(),
        "a gene with a special token": tokens.isin(list(ids)).any(),
        "special tokens that are not distinct": len(ids) < len(special),
        "two genes of one species in a group": grouped.duplicated(["species", "group"]).any(),
    }
    found = [name for name, wrong in faults.items() if wrong]
    if found:
        raise InputError(
            f"Found a vocabulary with {', '.join(found)}. Expected one row per gene of one "
            "species with its token and median; correct the table."
        )
