"""What the table of slots says is what the functions read and write."""

import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anndata as ad
import pytest

import scmix

PAGE = Path(__file__).parents[2] / "docs" / "slots.md"
ROW = re.compile(r"^\| \{func\}`scmix\.((?:pp|tl)\.\w+)` \|(.*)\|(.*)\|$", re.MULTILINE)
WRITTEN = re.compile(r'`(\w+)\["([^"]+)"\]`')
READ = re.compile(r'`(obs|obsm|obsp|uns)\[("?)(\w+)"?\]`')
SLOTS = ("obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns")

# Options with which a function reads and writes the most; `genes` and `classifier` are made below.
MOST = {
    "pp.map_genes": {"species_key": "species"},
    "pp.rank_encode": {"species_key": "species"},
    "tl.embed": {"species_key": "species"},
    "tl.gene_embeddings": {"source": "context", "species_key": "species"},
    "tl.orthologue_pca": {"species_key": "species"},
    "tl.fine_tune": {"label_key": "cell_type", "groups": "donor", "species_key": "species"},
    "tl.fine_tune_genes": {"species_key": "species", "n_folds": 2, "epochs": 0},
    "tl.annotate": {
        "reject": "distance",
        "sets": "lac",
        "smooth": True,
        "species_key": "species",
    },
    "tl.transfer_labels": {
        "label_key": "cell_type",
        "use_rep": "X_own",
        "center": "species",
        "species_key": "species",
    },
    "tl.evaluate": {
        "label_key": "cell_type",
        "groups": "donor",
        "use_rep": "X_own",
        "species_key": "species",
        "n_splits": 2,
        "seeds": [0],
        "others": (),
    },
    "tl.cross_fit": {"state_key": "state", "donor_key": "donor", "species_key": "species"},
    "tl.perturb": {
        "state_key": "state",
        "start": "well",
        "goal": "ill",
        "donor_key": "donor",
        "species_key": "species",
        "min_cells": 2,
    },
}
MOST["tl.impute"] = {"species_key": "species"}
LEAST = {name: {"min_cells": 2} if name == "tl.perturb" else {} for name in MOST}
LEAST["tl.transfer_labels"] = {"label_key": "cell_type"}
LEAST["tl.evaluate"] = MOST["tl.evaluate"]
LEAST["tl.fine_tune"] = {"label_key": "cell_type"}
LEAST["tl.fine_tune_genes"] = MOST["tl.fine_tune_genes"]
LEAST["tl.cross_fit"] = MOST["tl.cross_fit"]
LONG = {"tl.annotate", "tl.evaluate"}


def rows() -> dict[str, tuple[str, str]]:
    """What each function reads and writes, as the page says it."""
    return {name: rest for name, *rest in ROW.findall(PAGE.read_text(encoding="utf-8"))}


def test_every_function_has_a_row_and_is_tried() -> None:
    names = [f"pp.{name}" for name in scmix.pp.__all__]
    names += [f"tl.{name}" for name in scmix.tl.__all__]
    assert sorted(rows()) == sorted(names)
    assert sorted(MOST) == sorted(names)


def marked(name: str) -> object:
    return pytest.param(name, marks=pytest.mark.slow if name in LONG else ())


@pytest.mark.parametrize("name", [marked(name) for name in MOST])
def test_slots_are_those_of_the_table(name, cells, tiny) -> None:
    reads, writes = rows()[name]
    always = writes.split("; with options")[0]
    calls = [(MOST[name], WRITTEN.findall(writes))]
    if LEAST[name] != MOST[name]:
        calls.append((LEAST[name], WRITTEN.findall(always)))
    for options, expected in calls:
        adata = only_what_is_read(cells, reads, options)
        counts, before = adata.X.copy(), slots(adata)
        run(name, adata, cells, tiny, options)
        assert slots(adata) - before == set(expected)
        assert before <= slots(adata)
        assert (counts != adata.X).nnz == 0


def only_what_is_read(cells: ad.AnnData, reads: str, options: dict) -> ad.AnnData:
    """Counts, names, and the slots of the column; where a parameter names the key, with its value.

    Labels of a reference are given to `run`, so they are left out of the cells to be labelled.
    """
    reads = reads.split("; of the reference")[0]
    made = ad.AnnData(cells.X.copy(), obs=cells.obs[[]].copy(), var=cells.var[[]].copy())
    for slot, quote, key in READ.findall(reads):
        key = key if quote else options.get(key)
        if slot in ("obs", "obsm") and key is not None:
            getattr(made, slot)[key] = getattr(cells, slot)[key]
    if "connectivities" in reads:
        add_graph(made, cells)
    return made


def add_graph(made: ad.AnnData, cells: ad.AnnData) -> None:
    import scanpy as sc

    full = cells.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.neighbors(full, n_neighbors=5, use_rep="X_own")
    made.obsp["connectivities"] = full.obsp["connectivities"]
    made.uns["neighbors"] = full.uns["neighbors"]


def run(name: str, adata: ad.AnnData, cells: ad.AnnData, tiny, options: dict) -> None:
    part, verb = name.split(".")
    function = getattr(getattr(scmix, part), verb)
    arguments: list[object] = [adata]
    if name == "tl.annotate":
        arguments.append(classifier(cells, tiny))
    elif name == "tl.transfer_labels":
        arguments.append(cells)
    elif name == "tl.fine_tune_genes":
        arguments.append(dict(zip(adata.var_names[:60], "abc" * 20, strict=True)))
    elif name == "tl.perturb":
        arguments.append(list(adata.var_names[:2]))
    if name in ("tl.fine_tune", "tl.cross_fit"):
        options = options | {"epochs": 0}
    if name not in ("pp.map_genes", "pp.rank_encode", "tl.orthologue_pca", "tl.annotate"):
        options = options | {"model": tiny}
    if name == "tl.impute":
        options = options | {"model": with_decoder(tiny)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function(*arguments, **options)


def with_decoder(tiny):
    from scmix.decoders import Settings, ValueDecoder

    return replace(tiny, decoder=ValueDecoder(Settings("restore"), tiny.config).eval())


def classifier(cells: ad.AnnData, tiny):
    return scmix.tl.fine_tune(cells, "cell_type", model=tiny, epochs=0, validation_share=0.4)


def slots(adata: ad.AnnData) -> set[tuple[str, str]]:
    return set(_slots(adata))


def _slots(adata: ad.AnnData) -> Iterator[tuple[str, str]]:
    for slot in SLOTS:
        for key in getattr(adata, slot):
            yield slot, str(key)
