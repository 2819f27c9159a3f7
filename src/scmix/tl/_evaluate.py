"""How well labels are told, beside what simple methods do on the same split."""

from collections.abc import Mapping, Sequence
from itertools import chain
from os import PathLike
from typing import Any

import pandas as pd
from anndata import AnnData

from .. import _slots, checkpoints
from .._errors import InputError
from .._gene_matching import OnDuplicate
from ..genes import SPECIES
from ..pp._match_adata import GeneOptions
from ._evaluation.cells import Cells, read_cells
from ._evaluation.fine_tuned import fine_tuned
from ._evaluation.methods import baselines, on_vectors
from ._evaluation.other_packages import others as other_methods
from ._evaluation.representations import check_keys, of_keys, of_models, quality
from ._evaluation.run import run
from ._evaluation.splits import Design, between, within
from ._reading import check_target


def evaluate(
    adata: AnnData,
    label_key: str,
    *,
    groups: str | None = None,
    use_rep: str | Sequence[str] | None = None,
    model: "str | PathLike | checkpoints.Model" = "scmix-mini",
    fine_tune: bool | Mapping[str, Any] = False,
    others: Sequence[str] = ("CellTypist", "SingleR", "scANVI"),
    n_splits: int = 5,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    layer: str | None = None,
    species: str | None = None,
    species_key: str | None = None,
    gene_ids: str | None = None,
    on_duplicate: OnDuplicate = "error",
    allow_noninteger: bool = False,
    key_added: str = "evaluation",
    overwrite: bool = False,
) -> pd.DataFrame:
    """Compare ways to tell cell types, on the same splits, with baselines always among them.

    Every method is fitted on the training part of a split and asked about the test part, whose
    labels it never sees. With `groups`, no donor is on both sides. Predictions of all folds of a
    seed are scored together; the table has their mean over seeds.

    With cells of two species in `species_key`, methods learn from one species and are tested on
    the other, in both directions, over the types that both have; genes are then one-to-one
    orthologues.

    Rows that are always there: the majority class; nearest neighbours on shuffled labels (the
    floor); PCA-50 with nearest neighbours and with logistic regression; logistic regression on
    log counts of 3,000 highly variable genes; vectors of an untrained encoder and of the model,
    each with nearest neighbours (k = 5, cosine) and logistic regression; across species also PCA
    on orthologues of both.

    Parameters
    ----------
    adata
        Raw counts, cells by genes. Counts of the labelled cells are held in memory.
    label_key
        Column of `obs` with the cell types. Cells without one are left out, and types with fewer
        than `n_splits` cells.
    groups
        Column of `obs` with donors or batches.
    use_rep
        Keys of `obsm` to compare as well. What was fitted on all cells, such as a PCA, has seen
        the test cells (not their labels).
    model
        A name of `scmix.models.list()`, the folder of a checkpoint, or a loaded model.
    fine_tune
        True, or options of `scmix.tl.fine_tune` such as `{"epochs": 5}`: add the model, fine-tuned
        on the training part of every split and calibrated on a part of that. This trains
        `n_splits` times for each seed.
    others
        Methods of other packages. A row says so where the package is not installed.
    n_splits
        Number of folds; with no more groups than that, one group at a time is left out.
    seeds
        Each draws other folds and drives what is random in a method.
    layer
        Layer with the counts; `.X` by default.
    species, species_key, gene_ids, on_duplicate
        As in `scmix.pp.map_genes`.
    allow_noninteger
        Accept fractional counts.
    key_added
        Key of `uns`.
    overwrite
        Replace a key that scmix did not write.

    Returns
    -------
    The table, one row for each split, representation and classifier:

    `split`, `representation`, `classifier`, `kind`
        What was done; `kind` is baseline, scmix, yours or other.
    `n_test`, `n_types`, `majority_rate`
        Tested cells, their types, and the share of the largest.
    `accuracy`, `balanced_accuracy`, `macro_f1`, each with `_sd`, `_low`, `_high`
        Mean and standard deviation over seeds, and 95 % interval by drawing donors again with all
        their cells (cells where there are no groups: then it does not say what to expect of
        another donor). `interval` has the number of donors or cells; with few donors the
        interval is too narrow. A cell without a vector counts as what is most frequent.
    `ece`, `brier`, `aurc`
        Calibration error, Brier score, area under the risk-coverage curve; lower is better.
    `lead`, `lead_low`, `lead_high`
        Macro-F1 minus that of logistic regression on genes, with its paired interval.
    `note`
        What is missing.

    The same is written to `uns[key_added]["table"]`, with `["seeds"]` (scores of each seed),
    `["embedding"]` (silhouette, purity, Leiden NMI and ARI, graph connectivity, cLISI and iLISI,
    species mixing of each representation), `["params"]` and `["left_out"]`.

    Raises
    ------
    InputError
        If labels or groups cannot be used, or the values are no raw counts.
    GeneIdError
        If too few genes are known, or the species is not clear.
    MissingKeyError
        If a layer, column or representation does not exist.

    Examples
    --------
    >>> import scmix
    >>> adata = scmix.datasets.pancreas()[:175:5].copy()
    >>> table = scmix.tl.evaluate(
    ...     adata, "cell_type", species_key="species", others=(), n_splits=2, seeds=[0]
    ... )
    >>> table["representation"].unique().tolist()
    ['none', 'PCA-50', '3,000 genes', 'untrained encoder', 'scmix-mini']
    """
    drawn = _check_numbers(n_splits, seeds)
    check_target(adata, "uns", key_added, overwrite=overwrite, copy=False)
    keys = check_keys(adata, use_rep)
    elsewhere = other_methods(others)
    loaded = checkpoints.load(model)
    genes = GeneOptions(
        species=species, species_key=species_key, gene_ids=gene_ids, on_duplicate=on_duplicate
    )
    cells = read_cells(
        adata,
        label_key,
        groups=groups,
        layer=layer,
        allow_noninteger=allow_noninteger,
        fewest=n_splits,
        **genes,
    )
    reading: dict[str, Any] = {**genes, "allow_noninteger": allow_noninteger}
    known = of_models(cells, loaded, **reading) + of_keys(adata, keys, cells)
    tuned = None if fine_tune is False else {} if fine_tune is True else dict(fine_tune)
    trained = [] if tuned is None else [fine_tuned(loaded, groups, reading, tuned)]
    always = baselines()
    rows = [*always, *chain(*map(on_vectors, known)), *trained, *elsewhere]
    designs = _designs(cells, n_splits, drawn, groups)
    table, by_seed = run(cells, designs, rows, reference=always[-1])
    params = _slots.params(
        label_key=label_key,
        groups=groups,
        use_rep=keys or None,
        model=loaded.name,
        model_sha256=loaded.sha256,
        vocabulary_sha256=loaded.vocabulary.sha256,
        fine_tune=None if tuned is None else {name: str(v) for name, v in tuned.items()},
        n_splits=n_splits,
        seeds=drawn,
        layer=layer,
        **reading,
    )
    made = {
        "params": params,
        "table": table,
        "seeds": by_seed,
        "embedding": quality(cells, known),
        "left_out": _left_out(cells),
    }
    _slots.write(adata, {("uns", key_added): made}, overwrite=overwrite)
    return table.copy()


def _left_out(cells: Cells) -> pd.DataFrame:
    """Types with too few cells."""
    return pd.DataFrame({"type": list(cells.left_out), "n_cells": list(cells.left_out.values())})


def _designs(cells: Cells, n_splits: int, seeds: list[int], groups: str | None) -> list[Design]:
    if cells.two_species:
        return between(cells.species, SPECIES, seeds)
    return [within(cells.codes, cells.groups, n_splits, seeds, groups or "")]


def _check_numbers(n_splits: int, seeds: Sequence[int]) -> list[int]:
    drawn = list(seeds)
    if not drawn or len(set(drawn)) < len(drawn) or min(drawn) < 0:
        raise InputError(f"Found seeds={drawn}; expected different numbers, 0 or above.")
    if n_splits < 2:
        raise InputError(f"Found n_splits={n_splits}; expected 2 or more.")
    return drawn
