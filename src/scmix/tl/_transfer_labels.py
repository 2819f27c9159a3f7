"""Labels of one data set for the cells of another, without training the encoder."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import Any, Literal, get_args

import numpy as np
from anndata import AnnData

from .. import _slots, checkpoints, models
from .._errors import InputError
from .._gene_matching import OnDuplicate
from .._opening import opened
from .._warn import warn
from ..metrics import has_vector
from ._label_methods import (
    Labeller,
    Method,
    Metric,
    check_method,
    group_means,
    labeller,
)
from ._labelling import (
    Labels,
    check_slots,
    label_slots,
    of_label,
    read_labels,
    warn_without_vector,
)
from ._reading import Reader
from ._spool import Vectors, gathered, in_memory
from ._two_sides import PUBLISHED, Side, check_any, check_stored, make_sides, read_out

Center = Literal["species", "dataset"]


def transfer_labels(
    adata: AnnData,
    reference: AnnData,
    label_key: str,
    *,
    method: Method = "knn",
    k: int = 5,
    metric: Metric = "cosine",
    center: Center | None = None,
    use_rep: str | None = None,
    model: "str | PathLike | checkpoints.Model" = "scmix-mini",
    pool: str = "mean",
    hidden_layer: int | None = None,
    seed: int = 0,
    layer: str | None = None,
    species_key: str | None = None,
    gene_ids: str | None = None,
    on_duplicate: OnDuplicate = "error",
    allow_noninteger: bool = False,
    n_genes: int | None = None,
    device: str | None = None,
    dtype: str = "auto",
    batch_tokens: int | None = None,
    key_added: str = "scmix_label",
    overwrite: bool = False,
    copy: bool = False,
) -> AnnData | None:
    """Label cells by a labelled reference, through the embedding of both.

    Nothing is trained but, with `method="logistic"`, a regression on the reference. The species
    may differ: one-to-one orthologues share a token, so human cells can be labelled by mouse
    cells and the reverse. The reference is read, never written.

    Parameters
    ----------
    adata
        Cells to label: raw counts, or an embedding under `use_rep`.
    reference
        Labelled cells.
    label_key
        Column of the reference's `obs`. Cells without a label are left out.
    method
        `"knn"`: vote of the nearest reference cells, a tie going to the nearest. `"centroid"`:
        the nearest class mean; the softmax of the distances has a temperature fitted on the
        reference, each cell measured from its class without it. `"logistic"`: logistic
        regression (L2, C = 1) on standardised dimensions.
    k
        Neighbours that vote, with `"knn"`.
    metric
        Distance of `"knn"` and `"centroid"`: `"cosine"`, `"euclidean"` or `"manhattan"`.
    center
        Take the mean away first: `"species"`, each cell relative to the mean of its species in
        both objects together; `"dataset"`, each relative to the mean of its object. It removes
        what sets two species or assays apart as a whole, but also a true difference in
        composition: use it where both sides hold about the same types.
    use_rep
        Key of `obsm` in both objects, such as one `scmix.tl.embed` has written; `model` and the
        options of reading are then not used. Computed when not given.
    model
        A name of `scmix.models.list()`, the folder of a checkpoint, or a loaded model.
    pool
        As in :func:`scmix.tl.embed`, or `"published"`: the read-out that the Geneformer papers
        used for their zero-shot labels (Notes).
    hidden_layer
        As in :func:`scmix.tl.embed`; `"published"` reads the last.
    seed
        Draws the pooler of `pool="published"`.
    layer, species_key, gene_ids
        As in :func:`scmix.tl.embed`. Each is used in those of the two objects that have it.
    on_duplicate, allow_noninteger, n_genes, device, dtype, batch_tokens
        As in :func:`scmix.tl.embed`.
    key_added
        Key of `obs` and `uns`.
    overwrite
        Replace a key that scmix did not write.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    Nothing, or the copy, with:

    `obs[key_added]` : categorical
        The label, categories in the reference's order. Missing for a cell without a vector.
    `obs[f"{key_added}_confidence"]` : float32
        Its probability: the share of votes with `"knn"`. How often labels of some confidence are
        right depends on how alike query and reference are; see :func:`scmix.pl.confidence`.
    `obsm[f"{key_added}_probabilities"]` : float32, (n_obs, n_classes)
        One column per class.
    `uns[key_added]` : dict
        `params`, `classes` (names of the columns) and `n_reference` (cells of each class).

    Raises
    ------
    InputError
        If an option does not exist, there are fewer than two classes or no cell has a vector.
    MissingKeyError
        If a key does not exist.

    Notes
    -----
    In the published zero-shot classification [1]_ a cell is the pooler's output for the token in
    front. Most published checkpoints have no pooler: `transformers` draws one at random with each
    load, so results change from run to run. Here the checkpoint's pooler is used where it has
    one; otherwise one is drawn as `transformers` does (normal, `initializer_range`), by `seed`.
    The token in front is the first gene, or the species token where the vocabulary has one.

    References
    ----------
    .. [1] Nishio et al. (2025). Mix-Geneformer: Unified Representation Learning for Human and
       Mouse scRNA-seq Data. arXiv 2507.07454.

    Examples
    --------
    >>> import scmix
    >>> cells = scmix.datasets.pancreas()[::25]
    >>> human = cells[cells.obs["species"] == "human", cells.var["species"] == "human"].copy()
    >>> mouse = cells[cells.obs["species"] == "mouse", cells.var["species"] == "mouse"].copy()
    >>> scmix.tl.transfer_labels(human, mouse, "cell_type", n_genes=256)
    >>> set(human.obs["scmix_label"]) <= set(mouse.obs["cell_type"])
    True
    """
    check_method(method, k, metric)
    if center is not None and center not in get_args(Center):
        raise InputError(f"Found center={center!r}; expected None or one of {get_args(Center)}.")
    check_slots(adata, key_added, overwrite=overwrite, copy=copy)
    labels = read_labels(opened(reference)[0], label_key)
    _warn_shared(adata, reference)
    keys = {"layer": layer, "species_key": species_key, "gene_ids": gene_ids}
    rules = {"on_duplicate": on_duplicate, "allow_noninteger": allow_noninteger}
    sides = make_sides(adata, reference, keys, **rules)
    if use_rep is None:
        loaded = checkpoints.load(model)
        how = read_out(loaded, pool, hidden_layer, seed)
        reader = Reader(*how, n_genes, device, dtype, batch_tokens)
        made_by = reader.params(**keys, **rules)
        if pool == PUBLISHED:
            made_by |= {"pool": PUBLISHED} | _pooler_params(loaded, seed)
        known = sides[1].embedded(reader)
        asked = gathered(sides[0].parts(reader))
    else:
        made_by = _slots.params(use_rep=use_rep)
        stored, known = (side.stored(use_rep) for side in sides)
        check_stored(stored, known, use_rep)
        asked = in_memory(stored)
    check_any("reference", has_vector(known))
    if center is not None:
        asked, known = _centred(asked, known, sides, center, model)
    label = _labeller(known, labels, method, k, metric)
    codes, chances = _label(asked, adata.n_obs, len(labels.classes), label)
    warn_without_vector(int((codes < 0).sum()), adata.n_obs, key_added)
    options = {"method": method, "metric": metric, "center": center, "label_key": label_key}
    made = {
        "params": made_by | _slots.params(k=k if method == "knn" else None, **options),
        "classes": labels.classes,
        "n_reference": np.bincount(labels.codes[labels.codes >= 0]),
    }
    target = adata.copy() if copy else adata
    sure = of_label(chances, codes)
    slots = label_slots(key_added, codes, labels.classes, sure, chances, made)
    _slots.write(target, slots, overwrite=overwrite)
    return target if copy else None


def _labeller(
    reference: np.ndarray, labels: Labels, method: Method, k: int, metric: Metric
) -> Labeller:
    """What labels vectors by those of the reference that have a label."""
    kept = has_vector(reference) & (labels.codes >= 0)
    codes, n_classes = labels.codes[kept], len(labels.classes)
    lost = sorted(set(range(n_classes)) - set(codes.tolist()))
    if lost:
        raise InputError(
            f"Found no reference cell of '{labels.classes[lost[0]]}' with a vector; expected at "
            "least one of each class. Leave its cells out of the reference."
        )
    return labeller(method, reference[kept], codes, n_classes, k=k, metric=metric)


def _label(
    parts: Iterable[tuple[int, np.ndarray]], n_cells: int, n_classes: int, label: Labeller
) -> tuple[np.ndarray, np.ndarray]:
    """Class (-1: no vector) and probabilities of every query cell, some of them at a time."""
    codes = np.full(n_cells, -1, np.int32)
    chances = np.full((n_cells, n_classes), np.nan, np.float32)
    for first, vectors in parts:
        asked = np.flatnonzero(has_vector(vectors))
        if asked.size:
            chances[first + asked], codes[first + asked] = label(vectors[asked])
    check_any("query", codes >= 0)
    return codes, chances


def _centred(
    query: Iterable[tuple[int, np.ndarray]],
    reference: np.ndarray,
    sides: Sequence[Side],
    center: Center,
    model: "str | PathLike | checkpoints.Model",
) -> tuple[Iterator[tuple[int, np.ndarray]], np.ndarray]:
    """Both relative to the mean of their group of cells."""
    n_query, width = sides[0].adata.n_obs, reference.shape[1]
    if center == "dataset":
        groups = np.repeat([0, 1], [n_query, len(reference)])
    else:
        vocabulary = models.vocabulary(model)
        groups = np.concatenate([side.species(vocabulary) for side in sides])
    kept = Vectors.of((vectors for _, vectors in query), width)
    both = itertools.chain((vectors for _, vectors in kept.blocks()), [reference])
    means = group_means(both, groups, width)

    def moved() -> Iterator[tuple[int, np.ndarray]]:
        for first, vectors in kept.blocks():
            yield first, vectors - means[groups[first : first + len(vectors)]]

    return moved(), reference - means[groups[n_query:]]


def _pooler_params(model: checkpoints.Model, seed: int) -> dict[str, Any]:
    if model.encoder.has_pooler:
        return {"pooler": "checkpoint"}
    return {"pooler": "random", "seed": seed}


def _warn_shared(adata: AnnData, reference: AnnData) -> None:
    """Cells that label themselves make everything look right."""
    shared = adata.obs_names[adata.obs_names.isin(reference.obs_names)]
    names = [str(name) for name in shared if not str(name).isdigit()]  # numbers name nothing
    if names:
        warn(
            f"{len(names):,} of {adata.n_obs:,} cells have the name of a cell of the reference "
            f"(such as {names[0]!r}). If they are the same cells, they label themselves: leave "
            "them out of one."
        )
