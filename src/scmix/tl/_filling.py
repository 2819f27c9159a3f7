"""Blocks of counts with what a value decoder expects where nothing was measured."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from .. import checkpoints
from .._errors import InputError, MissingKeyError
from .._gene_matching import GeneMatch
from ..decoders import Profiles, ValueDecoder, predict
from ..decoders._log_values import log_values
from ..decoders._profiles import by_token
from ..genes import SPECIES, Vocabulary


@dataclass(frozen=True, eq=False)
class Columns:
    """What is known of the columns.

    Parameters
    ----------
    tokens
        Token of each column, -1 for none.
    measured
        Whether its zeros are zeros.
    wanted
        Whether it is to be predicted.
    fits
        Whether it is a gene of the cells of each species, bool, shape `(2, n_vars)`.
    """

    tokens: np.ndarray
    measured: np.ndarray
    wanted: np.ndarray
    fits: np.ndarray

    @classmethod
    def of(
        cls,
        adata: AnnData,
        match: GeneMatch,
        vocabulary: Vocabulary,
        genes: Sequence[str] | None,
        measured_key: str | None,
    ) -> "Columns":
        """Read them off an AnnData whose genes were matched; see `scmix.tl.impute`."""
        known = match.tokens >= 0
        fits = vocabulary.species_of_token[:, match.tokens] & known
        if match.species == "both":
            own = dict(
                zip(vocabulary.genes["ensembl_id"], vocabulary.genes["species"], strict=True)
            )
            names = np.array([own.get(gene, "") for gene in match.ensembl_id])
            fits &= np.array(SPECIES)[:, None] == names
        wanted = fits.any(0) & _named(adata, genes, known)
        return cls(match.tokens, _measured(adata, measured_key), wanted, fits)


@dataclass(eq=False)
class Filler:
    """Puts predictions where they belong.

    Parameters
    ----------
    model
        Has a decoder.
    columns
        Of the counts.
    species
        Species code of each cell.
    keep
        Whether counts above zero stay as measured.
    min_value
        Predictions below become zero.
    options
        Further arguments of `scmix.decoders.predict`.
    n_empty
        Cells without a count of a known gene that were met.
    """

    model: checkpoints.Model
    columns: Columns
    species: np.ndarray
    keep: bool
    min_value: float
    options: dict[str, Any]
    n_empty: int = 0

    def fill(self, blocks: Iterable[tuple[int, sp.csr_matrix]]) -> Iterator[tuple[int, np.ndarray]]:
        """First row and values of each block."""
        for start, counts in blocks:
            yield start, self._filled(counts, self.species[start : start + counts.shape[0]])

    def _filled(self, counts: sp.csr_matrix, species: np.ndarray) -> np.ndarray:
        model, columns = self.model, self.columns
        read = np.where(columns.measured, columns.tokens, -1)
        totals = np.asarray(counts @ columns.measured.astype(np.float64)).ravel()
        tokens = by_token(counts, read, model.vocabulary.n_tokens)
        profiles = Profiles.of(tokens, model.vocabulary.medians, species, totals)
        out = _log_layer(counts, totals, decoder_of(model).settings.total)
        genes, place = np.unique(columns.tokens[columns.wanted], return_inverse=True)
        found = predict(
            model.encoder,
            decoder_of(model),
            model.vocabulary,
            profiles,
            genes,
            measured=self._measured(read),
            **self.options,
        )
        self.n_empty += int((profiles.cells.lengths == 0).sum())
        self._put(out, found[:, place], species)
        return out

    def _put(self, out: np.ndarray, found: np.ndarray, species: np.ndarray) -> None:
        columns = self.columns
        where = np.flatnonzero(columns.wanted)
        now = out[:, where]
        use = columns.fits[species][:, where] & ~np.isnan(found)
        if self.keep:
            use &= (now == 0) | ~columns.measured[where]
        found = np.where(found < self.min_value, 0, found)
        out[:, where] = np.where(use, found, now)

    def _measured(self, read: np.ndarray) -> np.ndarray:
        has = np.zeros(self.model.vocabulary.n_tokens, bool)
        has[read[read >= 0]] = True
        return self.model.vocabulary.species_of_token & has


def _log_layer(counts: sp.csr_matrix, totals: np.ndarray, scale: float) -> np.ndarray:
    rows = np.repeat(totals, np.diff(counts.indptr))
    values = log_values(counts.data, rows, scale)
    return sp.csr_matrix((values, counts.indices, counts.indptr), counts.shape).toarray()


def gathered(
    blocks: Iterator[tuple[int, np.ndarray]], shape: tuple[int, int], *, sparse: bool
) -> np.ndarray | sp.csr_matrix:
    """Blocks one below the other, dense or CSR, float32."""
    if sparse:
        return sp.csr_matrix(sp.vstack([sp.csr_matrix(block) for _, block in blocks]))
    out = np.empty(shape, np.float32)
    for start, block in blocks:
        out[start : start + len(block)] = block
    return out


def decoder_of(model: checkpoints.Model) -> ValueDecoder:
    """The decoder of a model, or an error that says which models have one."""
    if model.decoder is None:
        raise InputError(
            f"Model {model.name!r} has no value decoder: it was trained without values. Expected a "
            "model trained with the objective 'value_autoencoder' or 'restore', such as "
            'scmix.pretrain.train(corpus, folder, "value-mini") makes. tl.embed takes this one.'
        )
    return model.decoder


def _named(adata: AnnData, genes: Sequence[str] | None, known: np.ndarray) -> np.ndarray:
    if genes is None:
        return known
    names = [genes] if isinstance(genes, str) else list(genes)
    missing = [name for name in names if name not in adata.var_names]
    wanted = np.asarray(adata.var_names.isin(names))
    unknown = adata.var_names[wanted & ~known].tolist()
    if missing or unknown or not names:
        raise MissingKeyError(
            f"Found genes={names[:5]}, of which {missing[:5]} are not in var_names and "
            f"{unknown[:5]} not in the model. Expected names of genes that both have."
        )
    return wanted


def _measured(adata: AnnData, key: str | None) -> np.ndarray:
    if key is None:
        return np.ones(adata.n_vars, bool)
    if key not in adata.var:
        raise MissingKeyError(f"Found no column {key!r} in var; there are {list(adata.var)}.")
    column = adata.var[key]
    if column.dtype.kind != "b" or not column.any():
        raise InputError(
            f'var["{key}"] holds {column.dtype} values; expected True for measured genes, False '
            "for others, and at least one True."
        )
    return column.to_numpy(bool)
