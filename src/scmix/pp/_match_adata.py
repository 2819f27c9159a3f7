"""Where an AnnData says what its genes and cells are, and the genes matched to a vocabulary."""

import logging
from difflib import get_close_matches
from typing import TypedDict

import numpy as np
import pandas as pd
from anndata import AnnData

from .._errors import GeneIdError, InputError, MissingKeyError
from .._gene_lookup import ENSEMBL, SYMBOL
from .._gene_matching import GeneMatch, OnDuplicate, match_seen
from .._gene_names import SeenNames
from .._opening import check_adata, check_tables
from .._warn import warn
from ..genes import SPECIES, Vocabulary, species_code, species_codes

logger = logging.getLogger("scmix")

ID_COLUMNS = (
    "ensembl_id", "ensembl_ids", "ensembl_gene_id", "ensembl", "ensgene", "gene_ids", "gene_id",
    "feature_id", "gene_symbols", "gene_symbol", "gene_name", "gene_names", "feature_name",
    "symbol",
)  # fmt: skip
_NAMES_LOOKED_AT = 200
_GOOD_ENOUGH = 0.95  # share of var_names recognised above which no column is looked at


class GeneOptions(TypedDict):
    """How genes and species are named, as :func:`match_adata` takes it."""

    species: str | None
    species_key: str | None
    gene_ids: str | None
    on_duplicate: OnDuplicate


def match_adata(
    adata: AnnData,
    vocabulary: Vocabulary,
    *,
    species: str | None = None,
    species_key: str | None = None,
    gene_ids: str | None = None,
    on_duplicate: OnDuplicate = "error",
) -> tuple[GeneMatch, np.ndarray]:
    """Match genes and find the species of every cell, without writing anything.

    Parameters
    ----------
    adata
        Cells by genes.
    vocabulary
        The genes to match to.
    species, species_key, gene_ids, on_duplicate
        As in :func:`scmix.pp.map_genes`.

    Returns
    -------
    The gene of every column, and the species code of every cell (int8).
    """
    check_adata(adata)
    check_tables(adata)
    if adata.n_vars == 0:
        raise GeneIdError(
            "Found 0 genes (n_vars = 0); expected at least one. Look at how the data were read "
            "and which genes were filtered out."
        )
    seen, origin = _names(adata, vocabulary, gene_ids, on_duplicate)
    # Before keys are looked for: .obs and .var of a transposed object are swapped, too.
    _refuse_transposed(adata, vocabulary, seen, origin)
    if gene_ids is not None and gene_ids not in adata.var:
        raise MissingKeyError(_missing(gene_ids, adata.var, "var", []))
    codes = _given_species(adata, species, species_key)
    present = [] if codes is None else [SPECIES[code] for code in np.unique(codes)]
    _check_known(present, vocabulary, species_key)
    wanted = None if not present else present[0] if len(present) == 1 else "both"
    try:
        found = match_seen(seen, vocabulary, wanted, on_duplicate)
    except GeneIdError as error:
        raise GeneIdError(f"{error}{_hint(adata, codes)}") from None
    if codes is None:
        codes = np.full(adata.n_obs, SPECIES.index(found.species), np.int8)
        _warn_contradiction(adata, found.species)
    if not adata.obs_names.is_unique:
        warn("Cell names are not unique; results are in the order of the cells.")
    logger.info("%s: %s.", origin, found.summary)
    return found, codes


def _refuse_transposed(
    adata: AnnData, vocabulary: Vocabulary, genes: SeenNames, origin: str
) -> None:
    """Refuse genes in rows, which would fail later, for another reason."""
    names = adata.obs_names[:: max(1, adata.n_obs // _NAMES_LOOKED_AT)]
    if not _is_text(names):
        return
    n_rows, n_columns = _n_current(SeenNames.of(names, vocabulary)), _n_current(genes)
    # Some cells bear symbols by chance: of the wells A1 to H12 every sixth is one (C2, F10).
    if n_rows > max(0.5, 4 * n_columns / adata.n_vars) * len(names):
        raise GeneIdError(
            f"Found genes as names of cells ({n_rows:,} of {len(names):,} obs_names looked at) and "
            f"not as names of columns ({n_columns:,} of {adata.n_vars:,} in {origin}): the matrix "
            "is transposed. Expected cells by genes; pass adata.T."
        )


def _n_current(names: SeenNames) -> int:
    """How many are Ensembl ids or symbols of today: c12 or A2 are aliases of some genes."""
    return int(np.isin(names.kinds, (ENSEMBL, SYMBOL)).any(axis=0).sum())


def _given_species(
    adata: AnnData, species: str | None, species_key: str | None
) -> np.ndarray | None:
    """Species code of every cell, if the caller says."""
    if species is not None and species_key is not None:
        raise InputError(
            f"Found species={species!r} and species_key={species_key!r}; pass one of them."
        )
    if species is not None:
        return np.full(adata.n_obs, species_code(species), np.int8)
    if species_key is None:
        return None
    if species_key not in adata.obs:
        raise MissingKeyError(_missing(species_key, adata.obs, "obs", _species_columns(adata)))
    try:
        return species_codes(adata.obs[species_key])
    except InputError as error:
        raise InputError(f'In adata.obs["{species_key}"]: {error}') from None


def _check_known(present: list[str], vocabulary: Vocabulary, species_key: str | None) -> None:
    unknown = [name for name in present if name not in vocabulary.species]
    if unknown and species_key is not None:
        raise GeneIdError(
            f'Found {unknown[0]} cells in adata.obs["{species_key}"], but the model knows '
            f"{' and '.join(vocabulary.species)} genes only. Leave these cells out, or take a "
            "model for both species."
        )


def _names(
    adata: AnnData, vocabulary: Vocabulary, gene_ids: str | None, on_duplicate: str
) -> tuple[SeenNames, str]:
    """The gene names to use, looked up, and what to call them."""
    if gene_ids is not None and gene_ids in adata.var:
        return SeenNames.of(names_of(adata, gene_ids), vocabulary), f'var["{gene_ids}"]'
    others = [name for name in ID_COLUMNS if name in adata.var and _is_text(adata.var[name])]
    if not others:
        return SeenNames.of(adata.var_names, vocabulary), "var_names"
    own = SeenNames.of(adata.var_names, vocabulary) if _is_text(adata.var_names) else None
    n_own = own.n_known if own else 0
    repeated = not adata.var_names.is_unique and on_duplicate == "error"
    if own and n_own >= _GOOD_ENOUGH * adata.n_vars and not repeated:
        return own, "var_names"
    usable = [n for n in others if on_duplicate == "sum" or not _repeats(names_of(adata, n))]
    seen = {name: SeenNames.of(names_of(adata, name), vocabulary) for name in usable}
    best = max(usable, key=lambda name: seen[name].n_known, default=None)
    if best is None or seen[best].n_known <= (0.9 * n_own if repeated else n_own):
        return own or SeenNames.of(adata.var_names, vocabulary), "var_names"
    n_best = seen[best].n_known
    logger.info('Using var["%s"] (%s genes known; %s in var_names).', best, n_best, n_own)
    return seen[best], f'var["{best}"]'


def names_of(adata: AnnData, name: str) -> pd.Series:
    """Names of genes from a column; a missing one is no gene."""
    values = adata.var[name].astype(object)
    return values.where(values.notna(), "")


def _is_text(values: pd.Series | pd.Index) -> bool:
    kind = values.dtype.categories if isinstance(values.dtype, pd.CategoricalDtype) else values
    return pd.api.types.infer_dtype(kind, skipna=True) == "string"


def _repeats(names: pd.Series) -> bool:
    return bool(names[names != ""].duplicated().any())


def _missing(key: str, table: pd.DataFrame, slot: str, likely: list[str]) -> str:
    close = likely or get_close_matches(key, list(map(str, table.columns)))
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"Found no column {key!r} in adata.{slot}; there are {list(table.columns)}.{hint}"


def _species_columns(adata: AnnData) -> list[str]:
    """Columns of `.obs` in which every value is a species that scmix knows."""
    return [str(name) for name in adata.obs if _names_species(adata.obs[name])]


def _names_species(values: pd.Series) -> bool:
    distinct = values.unique()
    if not 0 < len(distinct) <= 10 or pd.api.types.is_numeric_dtype(values.dtype):
        return False
    try:
        species_codes(np.asarray(distinct, dtype=object))
    except InputError:
        return False
    return True


def _hint(adata: AnnData, codes: np.ndarray | None) -> str:
    """What else about the object explains that its genes cannot be used."""
    columns = _species_columns(adata) if codes is None else []
    if columns:
        return f" Columns of adata.obs that name species: {', '.join(map(repr, columns))}."
    return ""


def _warn_contradiction(adata: AnnData, species: str) -> None:
    """Say so when the genes look like one species and the cells are said to be of another."""
    for name in _species_columns(adata):
        stated = [SPECIES[code] for code in np.unique(species_codes(adata.obs[name]))]
        if stated != [species]:
            warn(
                f'The genes are {species} genes, but adata.obs["{name}"] says '
                f"{' and '.join(stated)}. The cells are taken as {species}; pass "
                f"species_key={name!r} to go by the column."
            )
