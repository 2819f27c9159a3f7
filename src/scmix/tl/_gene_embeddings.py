"""A vector per gene: the model's own, or the mean over the cells at hand."""

from collections.abc import Iterable
from os import PathLike

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from .. import _slots, checkpoints
from .._errors import InputError
from .._gene_matching import OnDuplicate
from ..pp._match_adata import GeneOptions, match_adata
from ._reading import Part, Reader, check_target


def gene_embeddings(
    adata: AnnData,
    model: "str | PathLike | checkpoints.Model" = "scmix-mini",
    *,
    source: str = "input",
    layer: str | None = None,
    species: str | None = None,
    species_key: str | None = None,
    gene_ids: str | None = None,
    on_duplicate: OnDuplicate = "error",
    allow_noninteger: bool = False,
    hidden_layer: int = -2,
    n_genes: int | None = None,
    key_added: str = "scmix_gene",
    device: str | None = None,
    dtype: str = "auto",
    batch_tokens: int | None = None,
    overwrite: bool = False,
    copy: bool = False,
) -> AnnData | None:
    """Embed genes: the model's token embeddings, or what the genes mean in the cells at hand.

    One-to-one orthologues share a token in a `shared` vocabulary, and so have one vector.

    Parameters
    ----------
    adata
        Cells by genes; raw counts are read for `source="context"` only.
    model
        A name of `scmix.models.list()`, the folder of a checkpoint, or a loaded model.
    source
        `"input"`: the row of the token embedding table, the same in every cell. `"context"`: the
        mean of the gene's hidden state over the cells in which it is read, of both species alike.
    layer
        Layer with the counts; `.X` by default.
    species, species_key, gene_ids, on_duplicate
        As in `scmix.pp.map_genes`.
    allow_noninteger
        Accept fractional counts.
    hidden_layer
        Hidden state that is averaged, counted as in `scmix.tl.embed`.
    n_genes
        Most genes of a cell that are read; as many as the model has positions when not given.
    key_added
        Key of `varm` and `uns`.
    device, dtype, batch_tokens
        As in `scmix.tl.embed`.
    overwrite
        Replace a key that scmix did not write.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    Nothing, or the copy, with:

    `varm[key_added]` : float32, (n_vars, hidden_size)
        NaN for genes that the model does not know and, with `source="context"`, that no cell has.
    `uns[key_added]` : dict
        `params` (scmix version, model and its sha256, options), `coverage` (share of the columns
        that are genes of the model), `n_genes_matched` (their number) and `n_without_vector`.

    Raises
    ------
    InputError
        If an option does not exist, or the values are no raw counts.
    GeneIdError
        If too few genes are known, or the species is not clear.
    MissingKeyError
        If a layer or column does not exist.

    Examples
    --------
    >>> import scmix
    >>> adata = scmix.datasets.pbmc3k()
    >>> scmix.tl.gene_embeddings(adata)
    >>> adata.varm["scmix_gene"].shape[0] == adata.n_vars
    True
    """
    if source not in ("input", "context"):
        raise InputError(f"Found source={source!r}; expected 'input' or 'context'.")
    loaded = checkpoints.load(model)
    check_target(adata, "varm", key_added, overwrite=overwrite, copy=copy)
    reader = Reader(loaded, "tokens", hidden_layer, n_genes, device, dtype, batch_tokens)
    genes = GeneOptions(
        species=species, species_key=species_key, gene_ids=gene_ids, on_duplicate=on_duplicate
    )
    match, codes = match_adata(adata, loaded.vocabulary, **genes)
    if source == "input":
        table = _input_table(loaded)
    else:
        blocks = _slots.iter_sequences(
            adata,
            loaded.vocabulary,
            match=(match, codes),
            layer=layer,
            allow_noninteger=allow_noninteger,
            n_genes=reader.n_genes,
            **genes,
        )
        table = _mean_by_token(reader.read(blocks, adata.n_obs), *_table_shape(loaded))
    vectors = np.where((match.tokens >= 0)[:, None], table[match.tokens], np.float32(np.nan))
    made = {
        "params": reader.params(source=source, layer=layer, **genes),
        "coverage": match.coverage,
        "n_genes_matched": match.n_matched,
        "n_without_vector": int(np.isnan(vectors[:, 0]).sum()),
    }
    target = adata.copy() if copy else adata
    _slots.write(
        target, {("varm", key_added): vectors, ("uns", key_added): made}, overwrite=overwrite
    )
    return target if copy else None


def _table_shape(model: checkpoints.Model) -> tuple[int, int]:
    return model.vocabulary.n_tokens, model.config.hidden_size


def _input_table(model: checkpoints.Model) -> np.ndarray:
    weight = model.encoder.bert.embeddings.word_embeddings.weight
    return weight.detach().float().cpu().numpy()


def _mean_by_token(parts: Iterable[Part], n_tokens: int, width: int) -> np.ndarray:
    """Mean vector of every token over all its occurrences, NaN for tokens that do not occur."""
    sums = np.zeros((n_tokens, width))
    counts = np.zeros(n_tokens)
    for part in parts:
        tokens = part.sequences.tokens
        occurs = sp.csr_matrix(
            (np.ones(tokens.size), (tokens, np.arange(tokens.size))), (n_tokens, tokens.size)
        )
        sums += occurs @ part.vectors.astype(np.float64)
        counts += np.bincount(tokens, minlength=n_tokens)
    with np.errstate(invalid="ignore"):
        return (sums / counts[:, None]).astype(np.float32)
