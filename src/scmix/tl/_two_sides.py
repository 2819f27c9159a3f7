"""Vectors and species of the cells of two objects, a query and a reference."""

import dataclasses
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from anndata import AnnData

from .. import checkpoints
from .._errors import InputError, MissingKeyError
from .._gene_matching import GeneMatch
from .._opening import opened
from ..genes import Vocabulary, species_codes
from ..pp._match_adata import match_adata
from . import _reading
from ._embedding import embedded, in_parts
from ._reading import Reader

PUBLISHED = "published"
_WHERE = {"layer": "layers", "species_key": "obs", "gene_ids": "var"}


class Side:
    """One of the two objects, and how its counts are read.

    Parameters
    ----------
    adata
        Its cells; never written to.
    keys
        `layer`, `species_key` and `gene_ids`, None where this object has no such key.
    options
        `on_duplicate` and `allow_noninteger`.
    """

    def __init__(
        self, adata: AnnData, keys: Mapping[str, str | None], options: Mapping[str, Any]
    ) -> None:
        self.adata = adata
        self._keys = dict[str, Any](keys)
        self._options = dict(options)
        self._match: tuple[GeneMatch, np.ndarray] | None = None

    def embedded(self, reader: Reader) -> np.ndarray:
        """Vectors of the model, float32; NaN for a cell without a known gene."""
        match = self._matched(reader.model.vocabulary)
        return embedded(self.adata, reader, match, **self._keys, **self._options).vectors

    def parts(self, reader: Reader) -> Iterator[tuple[int, np.ndarray]]:
        """First cell and vectors of some consecutive cells at a time."""
        match = self._matched(reader.model.vocabulary)
        return in_parts(self.adata, reader, match, **self._keys, **self._options)

    def stored(self, key: str) -> np.ndarray:
        """An embedding that is there already."""
        if key not in self.adata.obsm:
            names = list(self.adata.obsm)
            close = get_close_matches(key, names)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise MissingKeyError(
                f"Found no obsm[{key!r}]; there are {names}.{hint} Expected it in both objects; "
                "make it with scmix.tl.embed, or pass use_rep=None."
            )
        return np.asarray(self.adata.obsm[key])

    def species(self, vocabulary: Vocabulary) -> np.ndarray:
        """Species code of every cell: by the column that names it, else by the genes."""
        column = self._keys["species_key"]
        if column is not None:
            return species_codes(self.adata.obs[column])
        return self._matched(vocabulary)[1]

    def _matched(self, vocabulary: Vocabulary) -> tuple[GeneMatch, np.ndarray]:
        if self._match is None:
            self._match = match_adata(
                self.adata,
                vocabulary,
                species_key=self._keys["species_key"],
                gene_ids=self._keys["gene_ids"],
                on_duplicate=self._options["on_duplicate"],
            )
        return self._match


def make_sides(
    adata: AnnData, reference: AnnData, keys: Mapping[str, str | None], **options: Any
) -> tuple[Side, Side]:
    """Both sides; a key is used in those of them that have it, and has to be in one."""
    both = (adata, reference)
    cells = [opened(one, keys["layer"])[0] for one in both]
    for name, key in keys.items():
        has_it = any(key in getattr(one, _WHERE[name]) for one in cells)
        in_raw = name == "layer" and key == "raw" and any(one.raw is not None for one in both)
        if key is not None and not has_it and not in_raw:
            raise MissingKeyError(
                f"Found {name}={key!r}; expected it in {_WHERE[name]} of the query or the "
                "reference."
            )
    query, known = (Side(one, _own_keys(one, keys), options) for one in cells)
    return query, known


def read_out(
    loaded: checkpoints.Model, pool: str, hidden_layer: int | None, seed: int
) -> tuple[checkpoints.Model, str, int]:
    """The model, how its tokens are pooled, and the layer that is."""
    if pool == PUBLISHED:
        if hidden_layer is not None:
            raise InputError(
                f"Found hidden_layer={hidden_layer} with pool='published', which reads the last. "
                "Leave it out, or pass pool='first'."
            )
        return with_pooler(loaded, seed), "pooler", -1
    if pool == "tokens":
        raise InputError("Found pool='tokens'; expected one vector for each cell, as 'mean' gives.")
    return loaded, pool, _reading.layer_read(loaded, pool, hidden_layer)


def with_pooler(model: checkpoints.Model, seed: int) -> checkpoints.Model:
    """The model, with a pooler drawn by the seed where it has none."""
    if model.encoder.has_pooler:
        return model
    twin = checkpoints.untrained(model.config, model.vocabulary, seed=seed, pooler=True)
    twin.encoder.load_state_dict({**twin.encoder.state_dict(), **model.encoder.state_dict()})
    return dataclasses.replace(model, encoder=twin.encoder)


def check_stored(query: np.ndarray, reference: np.ndarray, use_rep: str) -> None:
    """Refuse embeddings that cannot be compared."""
    if query.ndim != 2 or query.shape[1:] != reference.shape[1:]:
        raise InputError(
            f"Found embeddings of shape {query.shape} (query) and {reference.shape} (reference) "
            f"in obsm[{use_rep!r}]; expected two dimensions and the same number of columns."
        )


def check_any(name: str, has_vector: np.ndarray) -> None:
    """Refuse cells of which none has a vector."""
    if not has_vector.any():
        raise InputError(
            f"Found no cell of the {name} with a vector; expected at least one without NaN."
        )


def _own_keys(adata: AnnData, keys: Mapping[str, str | None]) -> dict[str, str | None]:
    return {
        name: key if key is not None and key in getattr(adata, _WHERE[name]) else None
        for name, key in keys.items()
    }
