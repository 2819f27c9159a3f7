"""Genes deleted or moved in silico, and how the cells move."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from anndata import AnnData

from .. import _slots, checkpoints, inference
from .._errors import InputError
from .._gene_matching import OnDuplicate
from ..classifiers import CellClassifier
from ..effects._engine import POOLS
from ..effects._formulas import formula as formula_of
from ..genes import SPECIES
from ..perturbations import Edit
from ..pp._match_adata import match_adata
from ._perturbation._analysis import Analysis, Options
from ._perturbation._genes import GeneSets, tokens_of
from ._perturbation._result import joined, say
from ._perturbation._source import Source
from ._perturbation._states import check_every_state, read_states
from ._reading import Reader, check_target


def perturb(
    adata: AnnData,
    genes: "str | Sequence[str | Sequence[str]]" = "all",
    kind: str = "delete",
    *,
    model: "str | PathLike | checkpoints.Model | CellClassifier" = "scmix-mini",
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
    screen: int | None = 200,
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
    pool: str | None = None,
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
    as if they were independent. A gene is worth a look when both `padj_state` and `padj_matched`
    are small.

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
        is used. When it was fine-tuned on these very states and cells, the effects are circular:
        fine-tune on other donors.
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
        With `genes="all"`, `kind="delete"` and states: estimate the effect of all genes from one
        forward and one backward pass per cell, and run exactly so many with the largest
        estimates, and `n_sample` others. The rest are marked in the column `estimated`. None, and
        everywhere else: all exactly.
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
        Genes for which cells before and after are kept, for `scmix.pl.perturbation_shift`.
    n_permutations
        Most labellings of donors that are drawn, where there are more than 5,000.
    seed
        Draws cells, genes, labellings and resamples.
    store
        Folder in which effects are kept as they are made: a run that was killed goes on there.
    layer, species, species_key, gene_ids, on_duplicate, allow_noninteger
        As in `scmix.tl.embed`.
    pool, hidden_layer, n_genes
        As in `scmix.tl.embed`; pools are `"mean"`, `"discounted"` and `"cls"`.
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
        and exact effect over the random sample).
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
        If an option does not exist, start and goal are the same, a state has no cell, or a gene
        is in no cell that is perturbed.
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
    if effects not in ("cells", "genes"):
        raise InputError(f"Found effects={effects!r}; expected 'cells' or 'genes'.")
    if effects == "genes" and store is not None:
        raise InputError("Found store= with effects='genes'; expected effects='cells'.")
    for name, value in {"min_cells": min_cells, "max_cells": max_cells, "screen": screen}.items():
        if value is not None and value < 1:
            raise InputError(f"Found {name}={value}; expected at least 1.")
    loaded = model.model if isinstance(model, CellClassifier) else checkpoints.load(model)
    check_target(adata, "uns", key_added, overwrite=overwrite, copy=copy)
    pool = loaded.default_pool if pool is None else pool
    if pool not in POOLS:
        raise InputError(f"Found pool={pool!r}; expected one of {', '.join(POOLS)}.")
    reader = Reader(
        loaded, pool, -2 if hidden_layer is None else hidden_layer, n_genes, device, dtype,
        batch_tokens,
    )  # fmt: skip
    edit = Edit(kind, reader.n_genes, by, unit, readmit)
    sets, chosen = GeneSets.of(genes, anchor), formula_of(formula)
    states = read_states(adata, state_key, start, goal, other_states, donor_key)
    naming: Any = {
        "species": species,
        "species_key": species_key,
        "gene_ids": gene_ids,
        "on_duplicate": on_duplicate,
    }
    match, codes = match_adata(adata, loaded.vocabulary, **naming)
    if len(vectors_of) and np.unique(codes[states.cells]).size > 1:
        raise InputError("Found vectors_of= for two species; expected one. Perturb them apart.")
    for code in np.unique(codes[states.cells]):
        sets.tokens(loaded.vocabulary, code)
        sets.anchor_token(loaded.vocabulary, code)
        tokens_of(list(vectors_of), loaded.vocabulary, code)
    described = reader.params(
        genes="all" if sets.names is None else ["+".join(one) for one in sets.names],
        kind=kind,
        state_key=state_key,
        start=start,
        goal=goal,
        other_states=list(other_states),
        donor_key=donor_key,
        by=by,
        unit=unit,
        anchor=anchor,
        readmit=readmit,
        effects=effects,
        formula=formula,
        screen=screen,
        n_sample=n_sample,
        test_states=test_states,
        max_cells=max_cells,
        min_cells=min_cells,
        n_permutations=n_permutations,
        seed=seed,
        layer=layer,
        **naming,
    )
    options = Options(
        model=loaded,
        encoder=inference.prepare(loaded.encoder, *inference.choose(reader._device, dtype)),
        genes=sets,
        edit=edit,
        formula=chosen,
        layer=reader.hidden_layer,
        pool=pool,
        batch_tokens=batch_tokens,
        by_gene=effects == "genes",
        screen=screen,
        n_sample=n_sample,
        test_states=test_states,
        max_cells=max_cells,
        min_cells=min_cells,
        vectors_of=tuple(vectors_of),
        n_permutations=n_permutations,
        seed=seed,
        store=store,
        described=described,
    )

    source = Source(
        adata, loaded.vocabulary, (match, codes), layer=layer, allow_noninteger=allow_noninteger,
        naming=naming,
    )  # fmt: skip
    vectors = source.vectors(states.cells, reader)
    made = {}
    for code in np.unique(codes[states.cells]):
        here = (codes[states.cells] == code) & np.isfinite(vectors[:, 0])
        check_every_state(states[here], SPECIES[code])
        analysis = Analysis(options, int(code), states[here], vectors[here], source)
        made[SPECIES[code]] = analysis.run()
    target = adata.copy() if copy else adata
    result = joined(made, described, adata)
    say(result)
    _slots.write(target, {("uns", key_added): result}, overwrite=overwrite)
    return target if copy else None
