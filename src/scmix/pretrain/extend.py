"""A trained model gets the genes of a second species, and goes on learning from there."""

from dataclasses import replace

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from .._errors import InputError
from ..checkpoints import Model
from ..checkpoints._model import weights_sha256
from ..encoder import Encoder
from ..genes import SPECIES, Vocabulary
from ..settings import logger

_SPECIES_TOKENS = tuple(f"<{name}>" for name in SPECIES)


def with_species(vocabulary: Vocabulary, *, mode: str = "separate") -> Vocabulary:
    """A vocabulary of one species with the genes of the other; every token keeps its number.

    Parameters
    ----------
    vocabulary
        Of one species, such as that of a published Geneformer.
    mode
        "separate": every added gene has a token of its own, behind those there are. "shared": a
        one-to-one orthologue has its partner's token; tokens that say a cell's species are added,
        unless there is a ``<cls>``, which must stay in front.

    Returns
    -------
    The larger vocabulary. Added genes, their medians and orthologues are those of the bundled
    vocabulary.

    Raises
    ------
    InputError
        The vocabulary has both species.

    Examples
    --------
    >>> import pandas as pd
    >>> genes = pd.DataFrame({"ensembl_id": ["ENSG00000111640"], "median": [9.5], "token": [2]})
    >>> human = Vocabulary.from_table(genes, special={"<pad>": 0, "<mask>": 1})
    >>> with_species(human).species
    ('human', 'mouse')
    """
    missing = [name for name in SPECIES if name not in vocabulary.species]
    if not missing:
        raise InputError("Found genes of both species in this vocabulary; expected one species.")
    bundled = Vocabulary.bundled().genes
    added = bundled[bundled.species == missing[0]].sort_values("ensembl_id", ignore_index=True)
    old = vocabulary.genes.assign(group=_groups(vocabulary))
    own = pd.Series(vocabulary.n_tokens + np.arange(len(added)))
    if mode == "shared":
        tokens = old[old.group != ""].set_index("group").token
        partner = added.group.map(tokens)
        alone = partner.isna()
        own = partner.where(~alone, vocabulary.n_tokens + alone.cumsum() - 1)
    table = pd.concat([old, added.assign(token=own.astype(np.int32))], ignore_index=True)
    special = dict(vocabulary.special)
    if mode == "shared" and "<cls>" not in special:
        first = int(table.token.max()) + 1
        special |= {name: first + i for i, name in enumerate(_SPECIES_TOKENS)}
    dtype = str(vocabulary.genes["median"].dtype)
    return Vocabulary.from_table(table, special=special, mode=mode, median_dtype=dtype)


def extend_vocabulary(
    model: Model, vocabulary: Vocabulary | None = None, *, seed: int = 0
) -> Model:
    """A model with another vocabulary, whose rows start from what the old ones know.

    A gene or special token that the model has keeps its row of the word embeddings and its bias of
    the language model's head; a gene that it has not starts from its one-to-one orthologue in the
    other species, and one without that from a random draw with mean and spread of the genes there
    are. A token of two genes starts from their mean. All layers stay.

    Parameters
    ----------
    model
        From :func:`scmix.models.load` or :func:`scmix.models.import_geneformer`.
    vocabulary
        The new one; None: the model's with the genes of the species it lacks
        (:func:`with_species`). Corpora for further training are built with it.
    seed
        Of the random rows.

    Returns
    -------
    The new model, in memory; pass it to ``train(..., start=model)``.
    ``model.manifest["recipe"]["extended"]`` counts the tokens by where they come from.

    Raises
    ------
    InputError
        Old and new vocabulary have no gene in common, nor any orthologues.

    Examples
    --------
    >>> import scmix
    >>> model = scmix.models.untrained()
    >>> larger = extend_vocabulary(model, Vocabulary.bundled("separate"))
    >>> genes = larger.vocabulary.genes.set_index("symbol").token
    >>> rows = larger.encoder.bert.embeddings.word_embeddings.weight
    >>> bool((rows[genes["GAPDH"]] == rows[genes["Gapdh"]]).all())
    True
    """
    new = with_species(model.vocabulary) if vocabulary is None else vocabulary
    shares, counts = _shares(model.vocabulary, new)
    if not shares[new.genes.token].nnz:
        raise InputError(
            f"Model {model.name!r} and the new vocabulary have no gene in common, nor any "
            "orthologues. Choose a vocabulary of Ensembl ids, or train a new model."
        )
    logger.info(
        "Tokens: %s kept, %s from orthologues, %s random.",
        *(f"{counts[name]:,}" for name in ("kept", "orthologues", "random")),
    )
    encoder = _with_rows(model, new, shares, seed)
    recipe = model.manifest.get("recipe", {}) | {"extended": {"sha256": model.sha256, **counts}}
    return Model(
        encoder,
        new,
        {**model.manifest, "recipe": recipe},
        f"{model.name}-extended",
        weights_sha256(encoder),
    )


def _shares(old: Vocabulary, new: Vocabulary) -> tuple[sp.csr_matrix, dict[str, int]]:
    """Share of each old token in each new one, ``(n_new, n_old)``; and how many come from where."""
    known = _pairs(old, new, "ensembl_id")
    known = pd.concat([known, _special_pairs(old, new)])
    related = _pairs(old, new, "group")
    related = related[~related.new.isin(known.new)]
    pairs = pd.concat([known, related]).drop_duplicates()
    shape = (new.n_tokens, old.n_tokens)
    ones = np.ones(len(pairs), np.float32)
    linked = sp.csr_matrix((ones, (pairs.new, pairs.old)), shape=shape)
    n = np.asarray(linked.sum(1)).ravel()
    used = np.union1d(new.genes.token, new.special_ids)
    counts = {
        "kept": int(known.new.nunique()),
        "orthologues": int(related.new.nunique()),
        "random": int((n[used] == 0).sum()),
    }
    return sp.csr_matrix(sp.diags(1 / np.maximum(n, 1).astype(np.float32)) @ linked), counts


def _pairs(old: Vocabulary, new: Vocabulary, key: str) -> pd.DataFrame:
    """Old and new tokens of genes with the same entry in a column."""
    sides = [
        table.genes.assign(group=_groups(table))[[key, "token"]].query(f"{key} != ''")
        for table in (old, new)
    ]
    both = sides[0].merge(sides[1], on=key, suffixes=("_old", "_new"))
    return pd.DataFrame({"old": both.token_old, "new": both.token_new})


def _special_pairs(old: Vocabulary, new: Vocabulary) -> pd.DataFrame:
    other = dict(zip(_SPECIES_TOKENS, reversed(_SPECIES_TOKENS), strict=True))
    sources = {
        token: old.special.get(name, old.special.get(other.get(name, "")))
        for name, token in new.special.items()
    }
    found = {token: source for token, source in sources.items() if source is not None}
    return pd.DataFrame({"old": list(found.values()), "new": list(found)}, dtype=np.int64)


def _groups(vocabulary: Vocabulary) -> pd.Series:
    """Orthologue groups; for genes without one, that of the bundled vocabulary."""
    genes = vocabulary.genes
    if (genes.group != "").any():
        return genes.group
    known = Vocabulary.bundled().genes.set_index("ensembl_id").group
    return genes.ensembl_id.map(known).fillna("")


def _with_rows(model: Model, new: Vocabulary, shares: sp.csr_matrix, seed: int) -> Encoder:
    config = replace(model.config, vocab_size=new.n_tokens, pad_token_id=new.special["<pad>"])
    old = model.encoder.state_dict()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        encoder = Encoder(config, pooler=model.encoder.has_pooler)
    names = ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias")
    rng = np.random.default_rng(seed)
    genes = model.vocabulary.genes.token.to_numpy()
    rows = {name: _rows(old[name].numpy(), shares, genes, rng) for name in names}
    encoder.load_state_dict(old | {name: torch.from_numpy(rows[name]) for name in names})
    return encoder.eval()


def _rows(
    values: np.ndarray, shares: sp.csr_matrix, genes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    out = (shares @ values).astype(np.float32)
    alone = np.diff(shares.indptr) == 0
    known = values[genes]
    shape = (int(alone.sum()), *values.shape[1:])
    out[alone] = rng.normal(known.mean(0), known.std(0), shape)
    return out
