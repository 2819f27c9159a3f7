"""From labelled cells to a classifier."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from .. import _slots, checkpoints
from .._errors import InputError, MissingKeyError
from .._gene_matching import OnDuplicate
from .._opening import opened
from .._warn import warn
from ..batches import Sequences, concat
from ..classifiers import CellClassifier, Recipe
from ..classifiers import recipe as make_recipe
from ..classifiers._fit import Cells, fit, genes_read
from ..classifiers._labels import Labels, encode
from ..classifiers._split import named, set_aside
from ..pp._match_adata import GeneOptions, match_adata


def fine_tune(
    adata: AnnData,
    label_key: str | Sequence[str],
    *,
    groups: str | None = None,
    validation_key: str | None = None,
    model: "str | PathLike | checkpoints.Model" = "scmix-mini",
    recipe: str | Recipe = "fast",
    layer: str | None = None,
    species: str | None = None,
    species_key: str | None = None,
    gene_ids: str | None = None,
    on_duplicate: OnDuplicate = "error",
    allow_noninteger: bool = False,
    n_genes: int | None = None,
    seed: int = 0,
    out: str | PathLike[str] | None = None,
    device: str | None = None,
    **settings: Any,
) -> CellClassifier:
    """Make a classifier of cells: a pretrained encoder with a head for each label key.

    `adata` is read, never written. Recipe "fast" leaves the encoder as it is, fits the heads in
    seconds and calibrates them by cross-validation, by whole donors or batches where `groups` names
    them. "tuned" trains layers, too: a part of the cells is set aside; on one half of these the
    best epoch is chosen, on the other the classifier is calibrated (on the same where a half has
    fewer than 50 cells: printing the classifier says so).
    Cells that are to judge it must not be in `adata`, or be "test" in `validation_key`.

    Parameters
    ----------
    adata
        Raw counts and labels. Cells without a label are left out.
    label_key
        Column of `obs` with the labels, or several columns: then the encoder is shared and each
        has its head. Classes stand in category order; a column that is no categorical is sorted.
    groups
        Column of `obs` with donors or batches, which are never divided between training and
        validation.
    validation_key
        Column of `obs` that says which cells to set aside: bool, or "train", "validation", "test".
    model
        A name of `scmix.models.list()`, the folder of a checkpoint, or a loaded model.
    recipe
        "fast", "tuned" (layers are trained, too), "paper" (the published settings), or a
        `scmix.classifiers.Recipe`.
    layer
        Layer with the counts; `.X` by default.
    species, species_key, gene_ids, on_duplicate, allow_noninteger
        As in `scmix.tl.embed`.
    n_genes
        Most genes of a cell that are read. As many as the recipe can use when not given.
    seed
        Of the split, the order of cells and dropout. On one device, the same seed gives the same
        classifier.
    out
        Folder of the run: an interrupted one goes on from its last epoch when called again, and
        the classifier is saved in `out/final`.
    device
        "auto", "cpu", "cuda", ...; `scmix.settings.device` when not given.
    **settings
        Fields of `scmix.classifiers.Recipe` to change, such as `probe_c=0.1`; with "tuned" such as
        `epochs=5`, `frozen_layers=0`, `lora_rank=8`, `balance="sampling"`, `learning_rate=1e-4`.

    Returns
    -------
    The classifier, for `scmix.tl.annotate`. Print it to see classes, scores and calibration.

    Raises
    ------
    InputError
        If labels, groups or settings cannot be used, or the values are no raw counts.
    MissingKeyError
        If a layer or column does not exist.
    GeneIdError
        If too few genes are known, or the species is not clear.
    FloatingPointError
        If the loss is not finite.
    ImportError
        If `lora_rank` is above 0 and `peft` is not installed.

    Examples
    --------
    >>> import scmix
    >>> cells = scmix.datasets.pancreas()
    >>> human = cells[cells.obs["species"] == "human"].copy()
    >>> classifier = scmix.tl.fine_tune(human, "cell_type", species_key="species")
    >>> classifier.label_keys
    ('cell_type',)
    """
    adata, layer = opened(adata, layer)
    chosen = make_recipe(recipe, seed=seed, **settings)
    plan = _plan(adata, label_key, groups, validation_key, chosen)
    loaded = checkpoints.load(model)
    n_read = genes_read(loaded, chosen, n_genes)
    genes = GeneOptions(
        species=species, species_key=species_key, gene_ids=gene_ids, on_duplicate=on_duplicate
    )
    part = adata if plan.rows.size == adata.n_obs else adata[plan.rows]
    match = match_adata(part, loaded.vocabulary, **genes)
    blocks = _slots.iter_sequences(
        part,
        loaded.vocabulary,
        match=match,
        layer=layer,
        allow_noninteger=allow_noninteger,
        n_genes=n_read,
        **genes,
    )
    cells = _cells(concat([block.sequences for block in blocks]), match[1], plan)
    about = {
        "split": plan.split,
        "groups": groups or "",
        "obs_names_sha256": _digest(adata.obs_names[plan.rows]),
    }
    made = fit(loaded, cells, chosen, n_genes=n_read, out=out, device=device, about=about)
    _warn_unjudged(made)
    return made


@dataclass(frozen=True, eq=False)
class _Plan:
    """Rows of `adata` that are used, with their labels, and which of them are set aside."""

    rows: np.ndarray
    labels: Labels
    groups: np.ndarray | None
    aside: np.ndarray
    split: str


def _plan(
    adata: AnnData,
    label_key: str | Sequence[str],
    groups: str | None,
    validation_key: str | None,
    recipe: Recipe,
) -> _Plan:
    """Read everything that `obs` says, and decide on the split."""
    keys = [label_key] if isinstance(label_key, str) else list(label_key)
    if not keys or len(set(keys)) < len(keys):
        raise InputError(f"Found label_key={label_key!r}; expected one or several different keys.")
    columns = {key: _column(adata, key) for key in keys}
    donors = None if groups is None else _groups(_column(adata, groups))
    aside, used = np.zeros(adata.n_obs, bool), np.ones(adata.n_obs, bool)
    if validation_key is not None:
        aside, used = named(_column(adata, validation_key))
    rows = np.flatnonzero(used)
    labels = encode({k: c.iloc[rows] for k, c in columns.items()}, rare_share=recipe.rare_share)
    labelled = labels.labelled
    _warn_unlabelled(labels)
    rows, labels = rows[labelled], labels[labelled]
    aside, donors = aside[rows], None if donors is None else donors[rows]
    if validation_key is not None:
        return _Plan(rows, labels, donors, aside, f"cells named by {validation_key!r}")
    if donors is not None and np.unique(donors).size < 2:
        warn(
            f"obs[{groups!r}] holds one group only: cells are set aside by class instead, and "
            "scores say nothing about other donors."
        )
        donors = None
    of_groups = None if donors is None else f"whole groups of {groups!r}"
    if not recipe.validation_share:
        split = f"cross-validation by {of_groups or 'class'}"
        return _Plan(rows, labels, donors, aside, split)
    aside = set_aside(labels.codes, donors, recipe.validation_share, recipe.seed)
    split = of_groups or "a share of every class"
    return _Plan(rows, labels, donors, aside, split)


def _cells(sequences: Sequences, species: np.ndarray, plan: _Plan) -> Cells:
    """Cells that have genes."""
    occupied = sequences.lengths > 0
    if not occupied.all():
        warn(
            f"Left out {(~occupied).sum():,} cells without a count of a gene that the model knows."
        )
    groups = None if plan.groups is None else plan.groups[occupied]
    return Cells(
        sequences[occupied],
        species[occupied],
        plan.labels[occupied],
        plan.aside[occupied],
        groups,
    )


def _warn_unjudged(classifier: CellClassifier) -> None:
    for key, names in classifier.classes.items():
        known = classifier.calibration.get(key)
        judged = np.empty(0, int) if known is None else known.labels
        unjudged = np.setdiff1d(np.arange(names.size), judged)
        if unjudged.size:
            warn(
                f"{unjudged.size} of {names.size} classes of {key!r} have no validation cell: "
                f"{', '.join(names[unjudged])}. They are trained on, but scores and calibration "
                "say nothing about them."
            )


def _column(adata: AnnData, key: str) -> pd.Series:
    if key in adata.obs:
        return adata.obs[key]
    close = get_close_matches(str(key), list(map(str, adata.obs.columns)))
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise MissingKeyError(
        f"Found no column {key!r} in obs; there are {list(map(str, adata.obs.columns))}.{hint}"
    )


def _groups(column: pd.Series) -> np.ndarray:
    """Number of each cell's group."""
    if column.isna().any():
        raise InputError(
            f"Found {int(column.isna().sum()):,} cells without a group in obs[{column.name!r}]; "
            "expected one for each. Fill them in, or leave these cells out."
        )
    return np.unique(column.astype(str).to_numpy(str), return_inverse=True)[1].ravel()


def _warn_unlabelled(labels: Labels) -> None:
    missing = int((labels.codes < 0).all(axis=1).sum())
    if missing:
        warn(f"Left out {missing:,} of {len(labels.codes):,} cells without a label.")


def _digest(names: pd.Index) -> str:
    return hashlib.sha256("\n".join(map(str, names)).encode()).hexdigest()
