"""Genes deleted or moved in silico, and how the cells move."""

from collections.abc import Sequence
from os import PathLike
from typing import Any, Literal

from anndata import AnnData

from .. import _slots, checkpoints
from .._gene_matching import OnDuplicate
from .._opening import opened
from ..classifiers import CellClassifier
from ..effects._formulas import formula as formula_of
from ..perturbations import Edit
from ._perturbation._analysis import Options
from ._perturbation._checks import check_choices, check_genes, checked_screen
from ._perturbation._genes import GeneSets
from ._perturbation._models import Models, warn_circular
from ._perturbation._score import score
from ._perturbation._source import Source
from ._perturbation._states import read_states
from ._reading import check_target


def perturb(
    adata: AnnData,
    genes: "str | Sequence[str | Sequence[str]]" = "all",
    kind: str = "delete",
    *,
    model: "str | PathLike | checkpoints.Model | CellClassifier | Sequence[CellClassifier]" = (
        "scmix-mini"
    ),
    state_key: str | None = None,
    start: str | None = None,
    goal: str | None = None,
    other_states: Sequence[str] = (),
    donor_key: str | None = None,
    by: float = 1,
    unit: str = "quartiles",
    anchor: str | None = None,
    readmit: bool = True,
    effects: str = "cells",
    formula: str = "centred",
    screen: "int | Literal['auto'] | None" = "auto",
    n_sample: int = 100,
    test_states: bool = True,
    max_cells: int | None = 1000,
    min_cells: int = 10,
    vectors_of: Sequence[str] = (),
    n_permutations: int = 4999,
    seed: int = 0,
    store: "str | PathLike | None" = None,
    layer: str | None = None,
    species: str | None = None,
    species_key: str | None = None,
    gene_ids: str | None = None,
    on_duplicate: OnDuplicate = "error",
    allow_noninteger: bool = False,
    pool: str = "mean",
    hidden_layer: int | None = None,
    n_genes: int | None = None,
    key_added: str = "perturbation",
    device: str | None = None,
    dtype: str = "auto",
    batch_tokens: int | None = None,
    overwrite: bool = False,
    copy: bool = False,
) -> AnnData | None:
    """Delete, overexpress, inhibit or activate genes in cells, and measure how the cells move.

    Every cell of the start state is read with and without the edit. The effect of a gene is how
    much nearer its cells come to the goal, in cosine, than to the start; without states, how far
    they move. What is said about chance rests on donors and on genes of like rank, never on cells
    as if they were independent. A gene is compared neither with itself nor with its family: genes
    whose symbols have one stem (`RPL`, `HLA`, `CD3`), for want of a table of paralogues. It is
    worth a look when both `padj_state` and `padj_matched` are small.

    Parameters
    ----------
    adata
        Raw counts, cells by genes: in memory, a view, backed or dask.
    genes
        `"all"`: every gene that is read of a cell, one by one. A list of symbols or Ensembl ids:
        each one by itself. A list of lists: the genes of each together, in the cells that have
        all of them (`scmix.perturbations.pairs` and `with_anchor` make such lists). Genes of the
        other species stand for their one-to-one orthologues.
    kind
        `"delete"`; `"overexpress"`: to the front, put in where it is absent and named; `"inhibit"`:
        down; `"activate"`: up.
    model
        A name of `scmix.models.list()`, a folder, a loaded model, or a classifier, whose encoder
        is used. An encoder that learned to tell these states apart on these very cells finds a
        difference whether there is one or not: then there is a warning, and no `p_state`. Pass the
        list of classifiers of `scmix.tl.cross_fit` instead: each donor is read by one that has not
        seen it, states are compared within these folds, and `p_state` is the largest of the folds
        (1 where they disagree about the direction).
    state_key
        Column of `obs` with the states. Without it cells have no direction to move in.
    start, goal
        The state whose cells are perturbed, and the one that they should move to.
    other_states
        More states to measure the movement towards.
    donor_key
        Column of `obs` with the donors, the replicates. Fewer than three in a state give effects
        without p-values (`params["inference"]` is `"descriptive"`).
    by, unit
        How far `"inhibit"` and `"activate"` go; see `scmix.perturbations.inhibit`.
    anchor
        With `genes="all"`: a gene that is perturbed together with each other gene.
    readmit
        Whether deletion from a cell with more genes than the model reads lets the next one in.
        False as in the published code.
    effects
        `"cells"`, or `"genes"`: also how much every other gene changes, in cells of the start
        state, which are then the only ones that are perturbed (no `p_state`).
    formula
        `"centred"`: the mean cell is subtracted before cosines are taken, both means are over the
        same genes without the perturbed one, and the movement towards the start is subtracted.
        `"geneformer_v1"` (and Mix-Geneformer) and `"geneformer_v2"`: as published.
    screen
        Estimate the effect of all genes from one forward and one backward pass per cell, and run
        exactly so many with the largest estimates, and `n_sample` others. The rest are marked in
        the column `estimated`. This is for `genes="all"`, `kind="delete"` and states; moves of
        genes have no useful first order. "auto": 200 where it can be done. None: all exactly.
    n_sample
        Genes drawn at random among the others, to see how well the estimates rank.
    test_states
        Perturb cells of the goal state too, which the permutation of states over donors needs.
        Doubles the work; False for effects and intervals only.
    max_cells
        Most cells that are perturbed of a state, drawn evenly over donors; None for all.
    min_cells
        A gene that fewer cells have gets no effect, and the flag `"few_cells"`.
    vectors_of
        Genes for which cells before and after are kept, for `scmix.pl.perturbation_shift`. Of
        several encoders, by the first.
    n_permutations
        Most labellings of donors that are drawn, where there are more than 5,000.
    seed
        Draws cells, genes, labellings and resamples.
    store
        Folder in which effects are kept as they are made: a run that was killed goes on there.
        `scmix.effects.read_store` reads those of every cell.
    layer, species, species_key, gene_ids, on_duplicate, allow_noninteger
        As in `scmix.tl.embed`.
    pool, hidden_layer, n_genes
        As in `scmix.tl.embed`; pools are `"mean"` and `"cls"`.
    key_added
        Key of `uns`.
    device, dtype, batch_tokens
        As in `scmix.tl.embed`.
    overwrite
        Replace a key that scmix did not write.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    Nothing, or the copy, with `uns[key_added]`:

    `params` : dict
        Options, model, and per species `inference`, `p_min` (the smallest p-value that the design
        can reach), `n_possible` labellings, and `screen_correlation` (Spearman's, between estimate
        and exact effect over the random sample). With several encoders, `cross_fit`: which reads
        which donor.
    `scores` : DataFrame
        One row per gene or set and species: `gene`, `symbol`, `species`, `orthologue`, `goal`,
        `n_cells`, `n_donors`, `mean_rank`, `detection`, `effect`, `ci_low`, `ci_high` (95 %, over
        donors), `p_state`, `padj_state`, `p_family`, `z_matched`, `p_matched`, `padj_matched`,
        `de_logfc`, `de_rank`, `detection_rate`, `mean_expression` (what expression alone says),
        `n_unchanged`, `estimated` (then without `p_state`; and no row has `p_family`, for which all
        effects must be known), `flag` (`"few_cells"`, `"few_donors"`, `"no_op"`: the edit
        changes nothing), and `effect_<state>` for other states. Largest effects first.
    `genes` : DataFrame
        With `effects="genes"`: `perturbed`, `affected`, `n_cells`, `effect` (1 - `similarity`).
    `vectors` : dict
        With `vectors_of`: `cells`, `genes`, `symbols`, `original`, `perturbed`, `states`.

    Raises
    ------
    InputError
        If an option does not exist, start and goal are the same, a state has no cell, a gene is
        in no cell that is perturbed, or every encoder has seen a donor.
    GeneIdError
        If a gene is not known to the model in this species.
    MissingKeyError
        If a column or layer does not exist.

    Examples
    --------
    >>> import scmix
    >>> adata = scmix.datasets.pbmc3k()[::200].copy()
    >>> scmix.tl.perturb(adata, ["RPL13", "RPS2"], min_cells=2)
    >>> scores = adata.uns["perturbation"]["scores"]
    >>> sorted(scores.symbol), bool((scores.effect > 0).all())
    (['RPL13', 'RPS2'], True)
    """
    cells, cells_layer = opened(adata, layer)
    loaded = Models.of(model)
    check_target(adata, "uns", key_added, overwrite=overwrite, copy=copy)
    readers = loaded.readers(pool, hidden_layer, n_genes, device, dtype, batch_tokens)
    sets, edit = GeneSets.of(genes, anchor), Edit(kind, readers[0].n_genes, by, unit, readmit)
    limits = {"min_cells": min_cells, "max_cells": max_cells}
    check_choices(effects, limits)
    states = read_states(cells, state_key, start, goal, other_states, donor_key)
    screen = checked_screen(screen, sets, edit, effects, has_goal=bool(states.names))
    naming: Any = {
        "species": species, "species_key": species_key, "gene_ids": gene_ids,
        "on_duplicate": on_duplicate,
    }  # fmt: skip
    source = Source.of(cells, loaded.vocabulary, cells_layer, allow_noninteger, naming)
    check_genes(sets, vectors_of, source, states)
    n_circular = loaded.circular(states, source, state_key)
    warn_circular(n_circular, len(states.cells))
    folds = loaded.folds(readers, states, source)
    described = loaded.params(
        readers, folds, states,
        genes=sets.described(), kind=kind, state_key=state_key, start=start, goal=goal,
        other_states=list(other_states), donor_key=donor_key, by=by, unit=unit, anchor=anchor,
        readmit=readmit, effects=effects, formula=formula, screen=screen, n_sample=n_sample,
        test_states=test_states, max_cells=max_cells, min_cells=min_cells, seed=seed,
        n_permutations=n_permutations, layer=layer, n_circular=n_circular, **naming,
    )  # fmt: skip
    options = Options(
        genes=sets, edit=edit, formula=formula_of(formula), by_gene=effects == "genes",
        screen=screen, n_sample=n_sample, test_states=test_states and not n_circular,
        max_cells=max_cells, min_cells=min_cells, vectors_of=tuple(vectors_of),
        n_permutations=n_permutations, seed=seed, store=store, described=described,
    )  # fmt: skip
    result = score(options, folds, states, source)
    target = adata.copy() if copy else adata
    _slots.write(target, {("uns", key_added): result}, overwrite=overwrite)
    return target if copy else None
