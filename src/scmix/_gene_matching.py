"""Columns of a count matrix matched to the genes of a vocabulary."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from . import _gene_names as gn
from ._errors import GeneIdError, InputError
from ._gene_names import SPECIES

if TYPE_CHECKING:
    from .genes import Vocabulary

OnDuplicate = Literal["error", "sum"]

WARN_BELOW = 0.5  # share of the columns
REFUSE_BELOW = 0.1
BOTH_ABOVE = 0.1  # share of the recognised columns that only the rarer species can explain
ORTHOLOGUES_ABOVE = 0.9  # of the columns' genes, in a matrix mapped to the other species
MARGIN = 0.02  # a smaller lead does not tell the species, but the spelling of the names does


@dataclass(frozen=True, eq=False)
class Detection:
    """What gene names look like.

    Parameters
    ----------
    species
        `"human"`, `"mouse"`, `"both"`, or None when no name is known.
    id_type
        `"Ensembl id"`, `"symbol"`, `"mixed"` or `"unknown"`.
    shares
        Share of the names recognised: one row per species, one column per kind of match.
    """

    species: str | None
    id_type: str
    shares: pd.DataFrame

    def __str__(self) -> str:
        return "; ".join(
            f"{species}: "
            + (", ".join(f"{kind} {v:.0%}" for kind, v in row.items() if v > 0) or "nothing")
            for species, row in self.shares.iterrows()
        )


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


@dataclass(frozen=True, eq=False)
class _Seen:
    """Names, cleaned, and what they are in each species."""

    original: pd.Series
    names: pd.Series
    genome: np.ndarray  # species that a prefix names, -1 for none
    rows: np.ndarray  # (2, n): row of the gene in its table; negative: unknown or ambiguous
    kinds: np.ndarray  # (2, n)

    @classmethod
    def of(cls, names: pd.Series, vocabulary: "Vocabulary") -> "_Seen":
        cleaned, genome = gn.strip_genome(names)
        cleaned = gn.strip_version(cleaned)
        # Names of a species that the vocabulary lacks are known too, so that they can be named.
        own = vocabulary._lookups
        known = own if len(own) == len(SPECIES) else {**type(vocabulary).bundled()._lookups, **own}
        found = [known[name].find(cleaned) for name in SPECIES]
        rows, kinds = np.stack([f[0] for f in found]), np.stack([f[1] for f in found])
        for code in range(len(SPECIES)):
            other = (genome >= 0) & (genome != code)
            rows[code, other], kinds[code, other] = gn.UNKNOWN, gn.NONE
        return cls(names, cleaned, genome, rows, kinds)

    @cached_property
    def detection(self) -> Detection:
        counts = np.stack([np.bincount(kind, minlength=len(gn.KINDS)) for kind in self.kinds])
        table = pd.DataFrame(counts[:, 1:], index=list(SPECIES), columns=list(gn.KINDS[1:]))
        species = self._species()
        code = 0 if species in (None, "both") else SPECIES.index(species)
        kinds = self.kinds.max(axis=0) if species == "both" else self.kinds[code]
        return Detection(species, _id_type(kinds), table / max(len(self.names), 1))

    def _species(self) -> str | None:
        known, exact = self.kinds > 0, (self.kinds > 0) & (self.kinds < gn.RESPELLED)
        n_known = int(known.any(axis=0).sum())
        if n_known == 0:
            return None
        only = exact & ~exact[::-1]
        if only.sum(axis=1).min() >= BOTH_ABOVE * n_known:
            return "both"
        in_any_spelling, as_spelled = known.sum(axis=1), exact.sum(axis=1)
        if as_spelled.max() < 0.5 * n_known:  # neither species writes names like this
            lead = np.isin(self.kinds, (gn.ENSEMBL, gn.SYMBOL, gn.RESPELLED)).sum(axis=1)
        else:
            lead = in_any_spelling if np.ptp(in_any_spelling) > MARGIN * n_known else as_spelled
        return SPECIES[int(np.argmax(lead))]


def detect(names: Iterable[str], vocabulary: "Vocabulary") -> Detection:
    """Recognise the species and the kind of gene names.

    The species is the one that knows more of the names when case is ignored; where both know as
    many, their spelling decides (`GAPDH` human, `Gapdh` mouse). So upper-cased mouse symbols are
    not taken for human ones.

    Parameters
    ----------
    names
        Symbols or Ensembl ids.
    vocabulary
        The genes to look among.

    Returns
    -------
    The species, the kind of ids, and the shares of names recognised.

    Examples
    --------
    >>> from scmix.genes import Vocabulary, detect
    >>> detect(["Gapdh", "Cd3e", "Actb"], Vocabulary.bundled()).species
    'mouse'
    """
    return _Seen.of(gn.as_names(names), vocabulary).detection


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
    original = gn.as_names(names)
    _check_names(original, on_duplicate)
    if species not in (None, "both"):
        species = SPECIES[gn.species_code(species)]
    seen = _Seen.of(original, vocabulary)
    used = _species_of_genes(seen, vocabulary, species)
    row, kind = _rows(seen, used)
    tokens = np.where(row < 0, -1, vocabulary._tokens[row]).astype(np.int32)
    if species in SPECIES:
        usable = vocabulary.species_of_token[SPECIES.index(species), tokens]
        tokens[~usable] = -1
    gene_row = np.where(tokens < 0, -1, row)
    kind = np.where(tokens < 0, gn.NONE, kind)
    result = _report(seen, vocabulary, used, gene_row, kind, tokens)
    _refuse_low_coverage(result, seen, vocabulary, used, gene_row)
    _warn(seen, row, kind, used)
    return result


def n_known(names: Iterable[str], vocabulary: "Vocabulary") -> int:
    """Count the names that are genes of either species."""
    return int((_Seen.of(gn.as_names(names), vocabulary).kinds > 0).any(axis=0).sum())


def _check_names(names: pd.Series, on_duplicate: str) -> None:
    if on_duplicate not in ("error", "sum"):
        raise InputError(f"Found on_duplicate={on_duplicate!r}; expected 'error' or 'sum'.")
    if len(names) == 0:
        raise GeneIdError("Found no columns (n_vars = 0); expected genes as columns.")
    repeated = names[names.duplicated() & (names != "")].unique()
    if len(repeated) and on_duplicate == "error":
        raise GeneIdError(
            f"Found {len(repeated)} gene names more than once ({_some(repeated)}). Expected each "
            "once; pass on_duplicate='sum' to add such columns up, or gene_ids= a column of "
            "adata.var with unique ids."
        )


def _species_of_genes(seen: _Seen, vocabulary: "Vocabulary", wanted: str | None) -> tuple[str, ...]:
    """The species whose genes the columns are; refuses what does not fit the cells."""
    found = seen.detection.species
    if wanted is None and found == "both":
        raise GeneIdError(
            f"Found human and mouse genes among the columns ({seen.detection}). Expected one "
            "species, or cells that say theirs; pass species_key= the column of adata.obs that "
            "does, or species='human' or 'mouse' to use one species' columns."
        )
    asked = {None: (), "both": SPECIES}.get(wanted, (wanted,))
    known = {None: (), "both": SPECIES}.get(found, (found,))
    if not set(asked or known) <= set(vocabulary.species):
        _raise_wrong_species(seen, vocabulary, vocabulary.species)
    if wanted == "both" and len(known) == 1:
        _check_other_species(vocabulary, known[0])
    if wanted is None or wanted == "both":
        return known or tuple(vocabulary.species)
    if found in (None, "both", wanted):
        return (wanted,)
    if _mapped_to_orthologues(seen, vocabulary, found, wanted):
        return (found,)
    return _raise_wrong_species(seen, vocabulary, asked)


def _check_other_species(vocabulary: "Vocabulary", found: str) -> None:
    """Cells of two species over one species' columns: orthologues must share tokens."""
    if vocabulary.mode != "shared":
        raise GeneIdError(
            f"Found {found} genes only for cells of two species, but in this vocabulary (mode "
            "'separate') each species has its own tokens. Pass columns of both species' genes."
        )
    other = SPECIES[1 - SPECIES.index(found)]
    _say(f"Found {found} genes only; {other} cells use those with a one-to-one orthologue.")


def _mapped_to_orthologues(seen: _Seen, vocabulary: "Vocabulary", found: str, wanted: str) -> bool:
    """Whether columns of one species' genes can stand for the orthologues of the other."""
    if vocabulary.mode != "shared" or found not in vocabulary.species:
        return False
    rows = seen.rows[SPECIES.index(found)]
    tokens = vocabulary._tokens[rows[rows >= 0]]
    share = float(vocabulary.species_of_token[SPECIES.index(wanted), tokens].mean())
    if share >= ORTHOLOGUES_ABOVE:
        _say(
            f"Found {found} genes as columns for {wanted} cells; {share:.0%} of them have a "
            f"one-to-one orthologue, so they are used as {wanted} genes. If the cells are {found}, "
            f"pass species={found!r}."
        )
    return share >= ORTHOLOGUES_ABOVE


def _raise_wrong_species(
    seen: _Seen, vocabulary: "Vocabulary", expected: Sequence[str]
) -> tuple[str, ...]:
    """Name what was seen and what was expected."""
    found = seen.detection.species
    if found is None:
        found = "unknown"
    share = (
        seen.kinds.max(axis=0) if found in ("both", "unknown") else seen.kinds[SPECIES.index(found)]
    )
    whose = "the vocabulary knows" if tuple(expected) == vocabulary.species else "expected"
    raise GeneIdError(
        f"Found {found} {seen.detection.id_type}s ({(share > 0).mean():.0%} of "
        f"{len(seen.names):,} columns), but {whose} {' and '.join(expected)} genes only "
        f"({seen.detection}). Pass the species of the cells, or a model that knows {found} genes."
    )


def _rows(seen: _Seen, used: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Row and kind of each column; of two species the better kind of match, human first."""
    codes = [SPECIES.index(name) for name in used]
    rows, kinds = seen.rows[codes], seen.kinds[codes]
    rank = np.where(rows < 0, len(gn.KINDS), kinds)
    best = np.argmin(rank, axis=0)
    at = np.arange(rows.shape[1])
    return rows[best, at], kinds[best, at]


def _report(
    seen: _Seen,
    vocabulary: "Vocabulary",
    used: Sequence[str],
    row: np.ndarray,
    kind: np.ndarray,
    tokens: np.ndarray,
) -> GeneMatch:
    n, n_matched = len(tokens), int((tokens >= 0).sum())
    ids = vocabulary.genes.ensembl_id.to_numpy(dtype=object)
    counts = np.bincount(kind, minlength=len(gn.KINDS))
    parts = ", ".join(
        f"{count:,} by {name}"
        for count, name in zip(counts, gn.KINDS, strict=True)
        if name != "none" and count
    )
    return GeneMatch(
        tokens=tokens,
        ensembl_id=np.where(row < 0, "", ids[row]).astype(str),
        species="both" if len(used) > 1 else used[0],
        id_type=_id_type(kind),
        n_matched=n_matched,
        coverage=n_matched / n,
        summary=f"{n_matched:,} of {n:,} columns ({n_matched / n:.0%}) are {' or '.join(used)} "
        f"genes of the vocabulary ({parts or 'none'}); {_share_of_vocabulary(row, vocabulary, used)[1]}",
    )


def _share_of_vocabulary(
    row: np.ndarray, vocabulary: "Vocabulary", used: Sequence[str]
) -> tuple[float, str]:
    total = int(vocabulary.genes.species.isin(used).sum())
    found = len(np.unique(row[row >= 0]))
    return found / total, f"{found:,} of its {total:,} genes have a column"


def _refuse_low_coverage(
    result: GeneMatch,
    seen: _Seen,
    vocabulary: "Vocabulary",
    used: Sequence[str],
    row: np.ndarray,
) -> None:
    """Refuse or warn, unless the columns hold most of the vocabulary beside other things."""
    if result.coverage >= WARN_BELOW:
        return
    if _share_of_vocabulary(row, vocabulary, used)[0] >= WARN_BELOW:
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
    _say(f"{text} Results rest on these genes alone.")


def _warn(seen: _Seen, row: np.ndarray, kind: np.ndarray, used: Sequence[str]) -> None:
    """Say everything that was done to names, and what could not be."""
    names, matched = seen.original, row >= 0
    if (seen.genome >= 0).any():
        _say(f"Removed genome prefixes from gene names ({_some(names[seen.genome >= 0])}).")
    ambiguous = (seen.rows[[SPECIES.index(name) for name in used]] == gn.AMBIGUOUS).any(axis=0)
    if (ambiguous & ~matched).any():
        found = names[ambiguous & ~matched]
        _say(
            f"{len(found)} names stand for more than one gene and were left out "
            f"({_some(found)}); use Ensembl ids to keep them."
        )
    if (kind == gn.EXCEL).any():
        found = names[kind == gn.EXCEL]
        _say(
            f"{len(found)} gene names are dates made by a spreadsheet and were read back "
            f"as genes ({_some(found)})."
        )
    respelled = (kind == gn.RESPELLED) | (kind == gn.RESPELLED_ALIAS)
    if respelled.sum() > 0.01 * max(matched.sum(), 1):
        _say(
            f"{int(respelled.sum()):,} names are {' or '.join(used)} symbols or aliases only when case and "
            f"punctuation are ignored ({_some(names[respelled])}), and were taken as such."
        )
    _warn_collisions(names, row)


def _warn_collisions(names: pd.Series, row: np.ndarray) -> None:
    table = pd.DataFrame({"name": names.to_numpy(), "row": row})
    table = table[table.row >= 0].drop_duplicates()
    twice = table[table.row.duplicated(keep=False)].sort_values("row", kind="stable")
    if len(twice):
        _say(
            f"{twice.row.nunique()} genes have several columns ({_some(twice.name)}); their "
            "counts are added up."
        )


def _id_type(kind: np.ndarray) -> str:
    n, n_ids = int((kind > 0).sum()), int((kind == gn.ENSEMBL).sum())
    if n == 0:
        return "unknown"
    if 0.1 * n < n_ids < 0.9 * n:
        return "mixed"
    return "Ensembl id" if n_ids > 0.5 * n else "symbol"


def _some(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    more = f", ... {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def _say(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=_outside())


def _outside() -> int:
    """Stack level of the caller outside scmix, so that the warning points at the user's line."""
    import sys

    level, frame = 2, sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("scmix"):
        level, frame = level + 1, frame.f_back
    return level
