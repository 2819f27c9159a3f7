"""Columns of a count matrix matched to the genes of a vocabulary."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from . import _gene_lookup as gl
from ._errors import GeneIdError, InputError
from ._gene_names import MARGIN, SeenNames, id_type_of
from ._species import SPECIES, species_code
from ._warn import warn

if TYPE_CHECKING:
    from .genes import Vocabulary

OnDuplicate = Literal["error", "sum"]

WARN_BELOW = 0.5  # share of the columns
REFUSE_BELOW = 0.1
ORTHOLOGUES_ABOVE = 0.9  # of the columns' genes, in a matrix mapped to the other species


@dataclass(frozen=True, eq=False)
class GeneMatch:
    """The gene of every column.

    Parameters
    ----------
    tokens
        Int32, one per column; -1 where the column is no gene of the vocabulary.
    ensembl_id
        Its Ensembl id, `""` for none.
    species
        Species of the matched genes: `"human"`, `"mouse"` or `"both"`.
    id_type
        `"Ensembl id"`, `"symbol"` or `"mixed"`.
    n_matched
        Number of columns with a token.
    coverage
        The same as a share of all columns.
    summary
        The above in one line.
    """

    tokens: np.ndarray
    ensembl_id: np.ndarray
    species: str
    id_type: str
    n_matched: int
    coverage: float
    summary: str


def match(
    names: Iterable[str],
    vocabulary: "Vocabulary",
    *,
    species: str | None = None,
    on_duplicate: OnDuplicate = "error",
) -> GeneMatch:
    """Match the columns of a count matrix to tokens.

    Ensembl ids (any version) come first, then symbols, aliases, and symbols in another spelling.
    Several columns may fall on one gene: each gets the token, and ranking sums them.

    Parameters
    ----------
    names
        Symbols or Ensembl ids, one per column.
    vocabulary
        The genes to match to.
    species
        Species of the cells: `"human"`, `"mouse"`, `"both"`, or None to recognise it. In a
        `shared` vocabulary the columns may be genes of the other species if nearly all of them
        have a one-to-one orthologue: a matrix that was mapped to the other species' genes.
    on_duplicate
        `"error"`: refuse names that occur twice; `"sum"`: take both columns.

    Returns
    -------
    The token and Ensembl id of every column, and a summary.

    Raises
    ------
    GeneIdError
        Names are not text, occur twice, are of the wrong species or of both, or fewer than 10 %
        of them (and less than half of the vocabulary) match.

    Examples
    --------
    >>> from scmix.genes import Vocabulary, match
    >>> found = match(["ENSG00000111640.15", "CD3E", "MARCH1"], Vocabulary.bundled())
    >>> found.ensembl_id.tolist()
    ['ENSG00000111640', 'ENSG00000198851', 'ENSG00000145416']
    """
    return match_seen(SeenNames.of(names, vocabulary), vocabulary, species, on_duplicate)


def match_seen(
    seen: SeenNames, vocabulary: "Vocabulary", species: str | None, on_duplicate: OnDuplicate
) -> GeneMatch:
    """Do what :func:`match` does with names that were looked up already."""
    _check_names(seen.original, on_duplicate)
    if species not in (None, "both"):
        species = SPECIES[species_code(species)]
    used = _species_of_genes(seen, vocabulary, species)
    row, kind = _rows(seen, used)
    tokens = np.where(row < 0, -1, vocabulary._tokens[row]).astype(np.int32)
    if species in SPECIES:
        usable = vocabulary.species_of_token[SPECIES.index(species), tokens]
        tokens[~usable] = -1
    gene_row = np.where(tokens < 0, -1, row)
    kind = np.where(tokens < 0, gl.NONE, kind)
    result = _report(seen, vocabulary, used, gene_row, kind, tokens)
    _refuse_low_coverage(result, seen, vocabulary, used, gene_row)
    _warn(seen, row, kind, used)
    return result


def _check_names(names: np.ndarray, on_duplicate: str) -> None:
    if on_duplicate not in ("error", "sum"):
        raise InputError(f"Found on_duplicate={on_duplicate!r}; expected 'error' or 'sum'.")
    if len(names) == 0:
        raise GeneIdError("Found no columns (n_vars = 0); expected genes as columns.")
    repeated = names[pd.Series(names, dtype=object).duplicated()] if on_duplicate == "error" else []
    repeated = [name for name in dict.fromkeys(repeated) if name != ""]
    if repeated:
        raise GeneIdError(
            f"Found {len(repeated)} gene names more than once ({_some(repeated)}). Expected each "
            "once; pass on_duplicate='sum' to add such columns up, or gene_ids= a column of "
            "adata.var with unique ids."
        )


def _species_of_genes(
    seen: SeenNames, vocabulary: "Vocabulary", wanted: str | None
) -> tuple[str, ...]:
    """The species whose genes the columns are; refuses what does not fit the cells."""
    found = seen.detection.species
    known = _as_tuple(found)
    needed = known if wanted is None else _as_tuple(wanted)
    if not set(needed) <= set(vocabulary.species):
        raise _wrong_species(seen, "the vocabulary knows", vocabulary.species, vocabulary)
    if wanted is None and found == "both":
        raise GeneIdError(
            f"Found human and mouse genes among the columns ({seen.detection}). Expected one "
            "species, or cells that say theirs; pass species_key= the column of adata.obs that "
            "does, or species='human' or 'mouse' to use one species' columns."
        )
    if wanted == "both" and len(known) == 1:
        _check_other_species(vocabulary, known[0])
    if wanted is None or wanted == "both":
        return known or tuple(vocabulary.species)
    if wanted in known or not known or _spelled_as_other(seen, wanted):
        return (wanted,)
    if _mapped_to_human(seen, vocabulary, wanted):
        return known
    raise _wrong_species(seen, "expected", (wanted,), vocabulary)


def _as_tuple(species: str | None) -> tuple[str, ...]:
    return () if species is None else SPECIES if species == "both" else (species,)


def _check_other_species(vocabulary: "Vocabulary", found: str) -> None:
    """Cells of two species over one species' columns: orthologues must share tokens."""
    if vocabulary.mode != "shared":
        raise GeneIdError(
            f"Found {found} genes only for cells of two species, but in this vocabulary (mode "
            "'separate') each species has its own tokens. Pass columns of both species' genes."
        )
    other = SPECIES[1 - SPECIES.index(found)]
    warn(f"Found {found} genes only; {other} cells use those with a one-to-one orthologue.")


def _spelled_as_other(seen: SeenNames, wanted: str) -> bool:
    """Whether the names fit the wanted species as well, but for their case (`GAPDH` in mouse)."""
    code = SPECIES.index(wanted)
    n_known, spelled = (seen.kinds > 0).sum(axis=1), seen.as_spelled().sum(axis=1)
    as_many = n_known[code] >= (1 - MARGIN) * n_known[1 - code]
    return bool(as_many and (wanted == "mouse" or spelled[1 - code] < 0.5 * n_known[1 - code]))


def _mapped_to_human(seen: SeenNames, vocabulary: "Vocabulary", wanted: str) -> bool:
    """Whether the columns of mouse cells are the human orthologues of their genes."""
    if wanted != "mouse" or vocabulary.mode != "shared":
        return False
    rows = seen.rows[SPECIES.index("human")]
    tokens = vocabulary._tokens[rows[rows >= 0]]
    share = float(vocabulary.species_of_token[SPECIES.index("mouse"), tokens].mean())
    if share < ORTHOLOGUES_ABOVE:
        return False
    warn(
        f"Found human genes as columns of mouse cells; {share:.0%} of them have a one-to-one "
        "orthologue, so they are used as mouse genes. If the cells are human, pass "
        "species='human'."
    )
    return True


def _wrong_species(
    seen: SeenNames, who: str, expected: Sequence[str], vocabulary: "Vocabulary"
) -> GeneIdError:
    """Name what was seen and what was expected."""
    found = seen.detection.species
    what = {None: "no gene names", "both": "human and mouse genes"}.get(
        found, f"{found} {seen.detection.id_type}s"
    )
    code = slice(None) if found in (None, "both") else SPECIES.index(found)
    share = (np.atleast_2d(seen.kinds[code]) > 0).any(axis=0).mean()
    own = f"Pass species={found!r} if they are {found} cells, or take"
    advice = own if found in vocabulary.species else "Take"
    return GeneIdError(
        f"Found {what} ({share:.0%} of {len(seen.original):,} columns), but {who} "
        f"{' and '.join(expected)} genes only (recognised: {seen.detection}). "
        f"{advice} a model that knows their genes."
    )


def _rows(seen: SeenNames, used: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Row and kind of each column; of two species the better kind of match, human first."""
    codes = [SPECIES.index(name) for name in used]
    rows, kinds = seen.rows[codes], seen.kinds[codes]
    rank = np.where(rows < 0, len(gl.KINDS), kinds)
    best = np.argmin(rank, axis=0)
    at = np.arange(rows.shape[1])
    return rows[best, at], kinds[best, at]


def _report(
    seen: SeenNames,
    vocabulary: "Vocabulary",
    used: Sequence[str],
    row: np.ndarray,
    kind: np.ndarray,
    tokens: np.ndarray,
) -> GeneMatch:
    n, n_matched = len(tokens), int((tokens >= 0).sum())
    counts = np.bincount(kind, minlength=len(gl.KINDS))
    parts = ", ".join(
        f"{count:,} by {name}"
        for count, name in zip(counts, gl.KINDS, strict=True)
        if name != "none" and count
    )
    whose = " or ".join(used)
    return GeneMatch(
        tokens=tokens,
        ensembl_id=np.where(row < 0, "", vocabulary._ids[row]),
        species="both" if len(used) > 1 else used[0],
        id_type=id_type_of(kind),
        n_matched=n_matched,
        coverage=n_matched / n,
        summary=f"{n_matched:,} of {n:,} columns ({n_matched / n:.0%}) are {whose} genes of the "
        f"vocabulary ({parts or 'none'}), {_share_of_vocabulary(row, vocabulary, used):.0%} of it",
    )


def _share_of_vocabulary(row: np.ndarray, vocabulary: "Vocabulary", used: Sequence[str]) -> float:
    codes = [SPECIES.index(name) for name in used]
    total = np.bincount(vocabulary._codes, minlength=len(SPECIES))[codes].sum()
    return np.count_nonzero(np.bincount(row[row >= 0])) / total


def _refuse_low_coverage(
    result: GeneMatch,
    seen: SeenNames,
    vocabulary: "Vocabulary",
    used: Sequence[str],
    row: np.ndarray,
) -> None:
    """Refuse or warn, unless the columns hold most of the vocabulary beside other things."""
    if result.coverage >= WARN_BELOW:
        return
    if _share_of_vocabulary(row, vocabulary, used) >= WARN_BELOW:
        return
    unknown = seen.original[row < 0]
    text = (
        f"Found few genes: {result.summary}. Not matched: {_some(unknown)}. "
        f"Recognised by species: {seen.detection}."
    )
    if result.coverage < REFUSE_BELOW:
        raise GeneIdError(
            f"{text} Expected at least {REFUSE_BELOW:.0%} of the columns, as human or mouse "
            "symbols or Ensembl gene ids; set adata.var_names to them or name a column of "
            "adata.var with gene_ids=."
        )
    warn(f"{text} Results rest on these genes alone.")


def _warn(seen: SeenNames, row: np.ndarray, kind: np.ndarray, used: Sequence[str]) -> None:
    """Say everything that was done to names, and what could not be."""
    names, matched = seen.original, row >= 0
    if (seen.genome >= 0).any():
        warn(f"Removed genome prefixes from gene names ({_some(names[seen.genome >= 0])}).")
    ambiguous = (seen.rows[[SPECIES.index(name) for name in used]] == gl.AMBIGUOUS).any(axis=0)
    if (ambiguous & ~matched).any():
        found = names[ambiguous & ~matched]
        warn(
            f"{len(found)} names stand for more than one gene and were left out "
            f"({_some(found)}); use Ensembl ids to keep them."
        )
    if (kind == gl.EXCEL).any():
        found = names[kind == gl.EXCEL]
        warn(
            f"{len(found)} gene names are dates made by a spreadsheet and were read back "
            f"as genes ({_some(found)})."
        )
    respelled = (kind == gl.RESPELLED) | (kind == gl.RESPELLED_ALIAS)
    if respelled.sum() > 0.01 * max(matched.sum(), 1):
        warn(
            f"{int(respelled.sum()):,} names are {' or '.join(used)} symbols or aliases only when "
            f"case and punctuation are ignored ({_some(names[respelled])}), and were taken as such."
        )
    _warn_collisions(names, row)


def _warn_collisions(names: np.ndarray, row: np.ndarray) -> None:
    at = np.flatnonzero(row >= 0)
    at = at[np.bincount(row[at])[row[at]] > 1]
    table = pd.DataFrame({"name": names[at], "row": row[at]}).drop_duplicates()
    twice = table[table.row.duplicated(keep=False)].sort_values("row", kind="stable")
    if len(twice):
        warn(
            f"{twice.row.nunique()} genes have several columns ({_some(twice.name)}); their "
            "counts are added up."
        )


def _some(names: Iterable[str], most: int = 8) -> str:
    names = [str(name) for name in names]
    more = f", ... {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
