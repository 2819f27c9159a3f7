"""Genes of two species and their tokens: the `Vocabulary`, and how names are matched to it.

A vocabulary is a table with one row per gene of one species. Tokens are given to it in one of two
modes:

`shared`
    One-to-one orthologues have the same token; genes of one species only have their own. A token
    `<human>` or `<mouse>` says which species a cell is of.
`separate`
    Every gene of either species has its own token, and there is no species token: what the
    published Mix-Geneformer does.

In both modes special tokens come first, then human genes ordered by Ensembl id, then the mouse
genes that have no token yet, ordered by Ensembl id. Medians are kept per species in both modes.
"""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from os import PathLike
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from ._errors import InputError, ModelFileError
from ._gene_lookup import Lookup, Names
from ._gene_matching import GeneMatch, match
from ._gene_names import Detection, detect
from ._gene_table import COLUMNS, SPECIAL, as_text, check, known_mode, parse, typed, with_tokens
from ._species import SPECIES, species_code, species_codes

__all__ = [
    "SPECIES",
    "Detection",
    "GeneMatch",
    "Vocabulary",
    "detect",
    "match",
    "species_code",
    "species_codes",
]

_BUNDLED = Path(__file__).parent / "resources" / "vocabulary.csv.gz"
_MAX_BYTES = 200_000_000  # the bundled text has 4 MB; more than this is not a vocabulary


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Genes, their tokens and their medians.

    Parameters
    ----------
    genes
        One row per gene of one species. Columns: `ensembl_id`, `symbol` (`""` for none),
        `aliases` (joined by `|`), `species` (`"human"` or `"mouse"`), `biotype`, `group` (name
        of the one-to-one orthologue group, `""` for none), `median` (float32 or float64: median
        of the counts above zero, per 10,000 counts of the cell), `token` (int32).
    special
        Tokens that are not genes, by name.
    mode
        `"shared"` or `"separate"`: whether one-to-one orthologues have one token.

    Examples
    --------
    >>> from scmix.genes import Vocabulary
    >>> vocabulary = Vocabulary.bundled()
    >>> genes = vocabulary.genes.set_index("symbol")
    >>> int(genes.token["GAPDH"]) == int(genes.token["Gapdh"])
    True
    >>> separate = Vocabulary.bundled("separate").genes.set_index("symbol")
    >>> int(separate.token["GAPDH"]) == int(separate.token["Gapdh"])
    False
    """

    genes: pd.DataFrame
    special: dict[str, int]
    mode: str

    def __post_init__(self) -> None:
        check(self.genes, self.special, self.mode)

    @classmethod
    def bundled(cls, mode: str = "shared") -> "Vocabulary":
        """Return the vocabulary that ships with scmix (read once)."""
        return _bundled(mode)

    @classmethod
    def from_table(
        cls,
        genes: pd.DataFrame,
        *,
        special: Mapping[str, int] | None = None,
        mode: str = "shared",
        median_dtype: str = "float32",
    ) -> Self:
        """Make a vocabulary from a table of genes.

        Parameters
        ----------
        genes
            At least `ensembl_id`, `median` and, where the two species are mixed, `species`.
            Columns that are missing (`symbol`, `aliases`, `biotype`, `group`) are taken from the
            bundled vocabulary. A column `token` is kept as it is; without one, tokens are given
            by the rule of `mode`. Rows with a name such as `<pad>` are special tokens.
        special
            Special tokens, where they are not rows of the table.
        mode
            Whether one-to-one orthologues have one token (`"shared"`) or not (`"separate"`).
        median_dtype
            `"float64"` keeps every digit of medians that another tokenizer was used with: as
            float32, scores that are nearly equal could change places.

        Returns
        -------
        The vocabulary.

        Examples
        --------
        >>> import pandas as pd
        >>> table = pd.DataFrame(
        ...     {
        ...         "ensembl_id": ["<pad>", "<mask>", "ENSG00000111640"],
        ...         "median": [None, None, 9.5],
        ...         "token": [0, 1, 2],
        ...     }
        ... )
        >>> Vocabulary.from_table(table).token_names().tolist()
        ['<pad>', '<mask>', 'GAPDH']
        """
        named = genes.ensembl_id.astype(str).str.startswith("<").to_numpy()
        if special is None and named.any():
            rows = genes[named]
            special = dict(zip(rows.ensembl_id, rows.token.astype(int), strict=True))
        table = _complete(genes[~named].reset_index(drop=True))
        if "token" in table:
            if special is None:
                raise InputError("Found tokens but no special tokens; pass special={'<pad>': 0}.")
            return cls(typed(table, median_dtype), dict(special), mode)
        chosen = SPECIAL[known_mode(mode)] if special is None else special
        table = with_tokens(table, len(chosen), mode)
        return cls(typed(table, median_dtype), dict(chosen), mode)

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Self:
        """Read a vocabulary written by :meth:`write`."""
        try:
            with gzip.open(path, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
            if len(data) > _MAX_BYTES:
                raise ValueError("it is larger than a vocabulary can be")
            return cls(*parse(data.decode("utf-8")))
        except (OSError, EOFError, ValueError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ModelFileError(
                f"Found no valid vocabulary in {Path(path).name}: {error}. Expected a file "
                "written by Vocabulary.write; get the model again."
            ) from error

    def write(self, path: str | PathLike[str]) -> None:
        """Write as gzipped CSV; the same vocabulary gives the same bytes."""
        with (
            open(path, "wb") as file,
            gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        ):
            packed.write(self._text.encode("utf-8"))

    @cached_property
    def n_tokens(self) -> int:
        """Number of tokens, special ones included."""
        return max(*self.special.values(), int(self.genes.token.max())) + 1

    @cached_property
    def sha256(self) -> str:
        """Hash of the text: equal for equal vocabularies, whatever the file they came from."""
        return hashlib.sha256(self._text.encode("utf-8")).hexdigest()

    @cached_property
    def species(self) -> tuple[str, ...]:
        """The species that have genes here."""
        return tuple(SPECIES[code] for code in np.unique(self._codes))

    @cached_property
    def medians(self) -> np.ndarray:
        """Float, (2, n_tokens): median of a token's gene in each species, NaN for none."""
        median = self.genes["median"].to_numpy()
        table = np.full((len(SPECIES), self.n_tokens), np.nan, median.dtype)
        table[self._codes, self._tokens] = median
        return _read_only(table)

    @cached_property
    def species_of_token(self) -> np.ndarray:
        """Bool, (2, n_tokens): whether the token is a gene of each species."""
        return _read_only(np.isfinite(self.medians))

    @cached_property
    def special_ids(self) -> np.ndarray:
        """Int32: the tokens that are not genes."""
        return _read_only(np.array(sorted(self.special.values()), np.int32))

    @cached_property
    def orthologues(self) -> np.ndarray:
        """Int32, (2, n_tokens): the token that a gene has in each species, -1 for none.

        For a gene of that species it is the token itself, else that of its one-to-one orthologue.
        """
        table = np.full((len(SPECIES), self.n_tokens), -1, np.int32)
        table[self._codes, self._tokens] = self._tokens
        grouped = self.genes[self.genes.group != ""].assign(
            code=self._codes[self.genes.group != ""]
        )
        pairs = grouped.pivot(index="group", columns="code", values="token").dropna()
        if pairs.shape[1] == len(SPECIES):
            human, mouse = pairs.to_numpy(np.int32).T
            table[1, human], table[0, mouse] = mouse, human
        return _read_only(table)

    def prefix(self, species_code: int) -> list[int]:
        """Tokens put in front of the genes of a cell: its species or `<cls>`, if there is one."""
        names = (f"<{SPECIES[species_code]}>", "<cls>")
        return [self.special[name] for name in names if name in self.special]

    def suffix(self) -> list[int]:
        """Tokens put behind the genes of a cell: `<eos>`, if there is one."""
        return [self.special["<eos>"]] if "<eos>" in self.special else []

    def token_names(self) -> np.ndarray:
        """Return a name per token: the symbol (the human one where shared), else the Ensembl id."""
        names = np.full(self.n_tokens, "", object)
        shown = self.genes.symbol.where(self.genes.symbol != "", self.genes.ensembl_id).to_numpy()
        order = np.argsort(-self._codes, kind="stable")  # mouse first, then overwritten by human
        names[self._tokens[order]] = shown[order]
        names[list(self.special.values())] = list(self.special)
        return names.astype(str)

    @cached_property
    def _codes(self) -> np.ndarray:
        return (self.genes.species == SPECIES[1]).to_numpy(np.int8)

    @cached_property
    def _tokens(self) -> np.ndarray:
        return self.genes.token.to_numpy(np.int32)

    @cached_property
    def _ids(self) -> np.ndarray:
        return self.genes.ensembl_id.to_numpy(object).astype(str)

    @cached_property
    def _names(self) -> Names:
        # Names of a species that the vocabulary lacks are known too, so that they can be named.
        tables = {name: self if name in self.species else self.bundled() for name in SPECIES}
        return Names(tuple(Lookup.of(table.genes, name) for name, table in tables.items()))

    @cached_property
    def _text(self) -> str:
        return as_text(self.genes, self.special, self.mode)


@lru_cache(maxsize=2)
def _bundled(mode: str) -> Vocabulary:
    if known_mode(mode) == "shared":
        return Vocabulary.read(_BUNDLED)
    return Vocabulary.from_table(_bundled("shared").genes.drop(columns="token"), mode=mode)


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    """Add the columns that a foreign table lacks, from the bundled vocabulary."""
    missing = [name for name in COLUMNS[:-2] if name not in table]
    if "species" in missing:
        mouse = table.ensembl_id.str.startswith("ENSMUS")
        table = table.assign(species=np.where(mouse, SPECIES[1], SPECIES[0]))
        missing.remove("species")
    if not missing:
        return table
    known = _bundled("shared").genes.set_index("ensembl_id")[missing]
    added = known.reindex(table.ensembl_id).fillna("").reset_index(drop=True)
    return pd.concat([table, added], axis=1)


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
