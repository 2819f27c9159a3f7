import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scmix
from scmix import checkpoints
from scmix._errors import GeneIdError, InputError, MissingKeyError
from scmix.encoder import Config
from scmix.genes import Vocabulary
from scmix.statistics import benjamini_hochberg
from scmix.tl import _spool

LENGTH = 24


@pytest.fixture(scope="module")
def model():
    vocabulary = Vocabulary.bundled()
    config = Config(
        vocab_size=vocabulary.n_tokens,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=LENGTH,
        initializer_range=0.3,
    )
    return checkpoints.untrained(config, vocabulary, seed=0)


@pytest.fixture
def cells(make_adata):
    """36 cells of 6 donors, three in each of two states; 30 genes."""
    adata = make_adata("human", n_obs=36, n_vars=30)
    adata.obs["donor"] = [f"d{i % 6}" for i in range(36)]
    adata.obs["state"] = pd.Categorical(["ill" if i % 6 < 3 else "well" for i in range(36)])
    return adata


@pytest.fixture
def perturb(model):
    scmix.settings.progress = False

    def run(adata, genes="all", kind="delete", **options):
        defaults = {"model": model, "device": "cpu", "dtype": "float32", "min_cells": 2}
        states = {"state_key": "state", "start": "ill", "goal": "well", "donor_key": "donor"}
        chosen = {**defaults, **states, "screen": None, **options}
        result = scmix.tl.perturb(adata, genes, kind, copy=True, **chosen)
        return result.uns[options.get("key_added", "perturbation")]

    return run


SCREENED = "screen_correlation"
COLUMNS = {
    *("gene", "symbol", "species", "orthologue", "n_cells", "n_donors", "mean_rank", "detection"),
    *("effect", "ci_low", "ci_high", "p_state", "padj_state", "p_matched", "padj_matched"),
    *("de_logfc", "de_rank", "detection_rate", "mean_expression", "flag", "estimated"),
}


def by_gene(found):
    return found["scores"].set_index("gene")


def test_scores_of_every_gene(cells, perturb):
    found = perturb(cells)
    scores = found["scores"]
    assert set(scores) >= COLUMNS
    assert set(scores.gene) == set(cells.var_names)
    assert not scores.estimated.any()
    assert scores.effect.is_monotonic_decreasing
    assert found["params"]["inference"] == "permutation"
    assert found["params"]["p_min"] == pytest.approx(1 / 20)  # 6 donors, 3 in each state
    assert scores.p_state.between(0.05 - 1e-9, 1).all()
    ill = cells[cells.obs.state == "ill"].to_df()
    one = by_gene(found)
    expected = np.log2(1 + ill.div(ill.sum(axis=1), axis=0) * 1e4).mean()
    np.testing.assert_allclose(one.mean_expression, expected[one.index], rtol=1e-5)
    np.testing.assert_allclose(one.detection_rate, (ill > 0).mean()[one.index])


def test_effect_by_hand(cells, perturb, model):
    """Two runs of tl.embed, one without the gene, give the same effect where nothing is pooled
    away: with pool "cls" there would be a token; with one gene left out of the mean, by hand."""
    gene = cells.var_names[3]
    found = by_gene(perturb(cells, [gene], n_genes=23)).loc[gene]
    from scmix import inference
    from scmix._slots import iter_sequences
    from scmix.batches import add_special

    block = next(iter_sequences(cells, model.vocabulary, species="human", n_genes=24))
    token = int(model.vocabulary.genes.set_index("ensembl_id").token[gene])

    def embed(rows):
        part = add_special(rows, model.vocabulary, 0, max_length=24)
        ids = [*model.vocabulary.special_ids, token]
        run = inference.run(
            model.encoder, part, special_ids=ids, layer=-2, device="cpu", dtype="float32"
        )
        return run.astype(float)

    from scmix.batches import Sequences

    read = [row[:23] for row in block.sequences]
    plain = inference.run(
        model.encoder,
        add_special(Sequences.from_list(read), model.vocabulary, 0, max_length=24),
        special_ids=model.vocabulary.special_ids,
        layer=-2,
        device="cpu",
        dtype="float32",
    ).astype(float)
    donor, goal = cells.obs.donor.to_numpy(), (cells.obs.state == "well").to_numpy()
    centre = np.mean([plain[donor == d].mean(axis=0) for d in np.unique(donor)], axis=0)

    def unit(x):
        return (x - centre) / np.linalg.norm(x - centre, axis=-1, keepdims=True)

    rows = {d: unit(plain[donor == d]).mean(axis=0) for d in np.unique(donor)}
    sides = [sum(rows[d] for d in np.unique(donor[goal == side])) for side in (False, True)]
    direction = sides[1] / np.linalg.norm(sides[1]) - sides[0] / np.linalg.norm(sides[0])
    short = [i for i in range(36) if len(block.sequences[i]) < 24]  # no gene is let back in
    assert short
    has = [i for i in range(36) if not goal[i] and token in read[i]]
    effects = {d: [] for d in np.unique(donor[~goal])}
    for i in has:
        row = block.sequences[i]
        after = np.array([g for g in row if g != token])[:23]
        same = [g for g in read[i] if g in after]
        extra = [g for g in after if g not in same]
        ids = [*model.vocabulary.special_ids, token, *extra]
        pair = [
            inference.run(
                model.encoder,
                add_special(Sequences.from_list([genes]), model.vocabulary, 0, max_length=24),
                special_ids=ids,
                layer=-2,
                device="cpu",
                dtype="float32",
            ).astype(float)[0]
            for genes in (read[i], after)
        ]
        effects[donor[i]].append((unit(pair[1]) - unit(pair[0])) @ direction)
    expected = np.mean([np.mean(values) for values in effects.values() if values])
    assert found.effect == pytest.approx(expected, abs=1e-5)
    assert found.n_cells == len(has)


def test_genes_by_symbol_and_orthologue(cells, perturb):
    genes = Vocabulary.bundled().genes
    human = genes[genes.ensembl_id.isin(cells.var_names) & (genes.group != "")].iloc[0]
    mouse = genes[(genes.species == "mouse") & (genes.group == human.group)].iloc[0]
    for name in (human.ensembl_id, mouse.ensembl_id):
        scores = perturb(cells, [name])["scores"]
        assert scores.gene.tolist() == [human.ensembl_id]
        assert scores.orthologue.tolist() == [mouse.ensembl_id]


def test_two_species_are_scored_apart(both, perturb):
    found = perturb(
        both, species_key="species", n_genes=8, start=None, goal=None, state_key=None,
        donor_key=None,
    )  # fmt: skip
    scores = found["scores"]
    assert set(scores.species) == {"human", "mouse"}
    assert (scores.gene.str.startswith("ENSMUSG") == (scores.species == "mouse")).all()
    assert found["params"]["inference"] == "descriptive"
    assert (scores.effect.dropna() > 0).all()  # how far they move
    with pytest.raises(InputError, match="vectors_of= for two species"):
        scmix.tl.perturb(both, species_key="species", vectors_of=["B2M"])


@pytest.mark.parametrize(
    ("kind", "formula"),
    [("inhibit", "centred"), ("overexpress", "geneformer_v1"), ("activate", "geneformer_v2")],
)
def test_kinds_and_formulas(cells, perturb, kind, formula):
    found = perturb(cells, kind=kind, formula=formula)
    assert np.isfinite(found["scores"].effect).any()
    assert found["params"]["kind"] == kind
    if formula != "centred":
        assert found["params"]["inference"] == "descriptive"


def test_effects_on_genes(cells, perturb):
    names = cells.var_names[:2].tolist()
    pairs = perturb(cells, names, effects="genes")["genes"]
    assert set(pairs.perturbed) == set(names)
    assert not (pairs.perturbed == pairs.affected).any()
    assert set(pairs.affected) <= set(cells.var_names)
    np.testing.assert_allclose(pairs.effect, 1 - pairs.similarity)


def test_screening_marks_estimates(cells, perturb):
    exact = by_gene(perturb(cells))
    found = perturb(cells, screen=5, n_sample=6)
    scores = by_gene(found)
    assert scores.estimated.sum() == len(scores) - 11
    same = scores.index[~scores.estimated]
    np.testing.assert_allclose(scores.effect[same], exact.effect[same], atol=1e-6)
    np.testing.assert_allclose(scores.n_cells, exact.n_cells[scores.index])
    assert scores.p_state[scores.estimated].isna().all()
    assert scores.p_family.isna().all()
    assert -1 <= found["params"]["by_species"]["human"]["screen_correlation"] <= 1


def test_what_the_design_can_reach_is_said(cells, perturb, caplog):
    caplog.set_level("INFO", logger="scmix")
    found = perturb(cells, screen=3, n_sample=5)
    looked_at = found["scores"][found["scores"].effect.notna()]
    p, n = looked_at.p_state.mask(looked_at.estimated, 1.0), len(looked_at)
    expected = benjamini_hochberg(p)[~looked_at.estimated]
    np.testing.assert_array_equal(looked_at.padj_state[~looked_at.estimated], expected)
    assert (
        "human: the smallest p-value that these donors can give is 0.05; no gene can pass BH at "
        f"0.05: {n} of {n} genes (8 with a p-value, the others only estimated) would have to "
        "reach it. More donors, fewer genes" in caplog.text
    )
    n, correlation = (found["params"]["by_species"]["human"][x] for x in ("n_sample", SCREENED))
    said = f"rank correlation of estimated and exact effects over {n} random genes"
    assert f"{said}: {correlation:.2f}." in caplog.text
    caplog.clear()
    perturb(cells, list(cells.var_names[:2]))
    assert "0.05; 2 of 2 genes must reach it for any to pass BH at 0.05." in caplog.text
    caplog.clear()
    perturb(cells, list(cells.var_names[:2]), donor_key=None)
    assert "fewer than three donors in a state" in caplog.text


@pytest.mark.parametrize(
    ("n_ways", "n_tested", "n_estimated", "said"),
    [
        (70, 25, 0, "8 of 25 genes must reach it for any"),
        (70, 32, 79, "32 of 111 genes (32 with a p-value, the others only estimated) must reach"),
        (70, 31, 80, "32 of 111 genes (31 with a p-value, the others only estimated) would have"),
        (20, 9, 0, "9 of 9 genes must reach it for any"),
        (19, 9, 0, "too large for any gene to pass BH at 0.05. More donors would lower it."),
        (70, 0, 5, "but no gene has one"),
    ],
)
def test_a_gene_can_pass_exactly_where_it_is_said(n_ways, n_tested, n_estimated, said):
    from scmix.tl._perturbation._result import _reach

    line = _reach(1 / n_ways, n_tested, n_estimated, "More donors")
    assert said in line
    best = benjamini_hochberg([1 / n_ways] * n_tested + [1.0] * n_estimated)
    assert ("must reach it" in line) == (best.min() <= 0.05 + 1e-12)


def test_few_permutations_are_named(cells, perturb, caplog, monkeypatch):
    from scmix.statistics import _labellings

    monkeypatch.setattr(_labellings, "MOST_LISTED", 0)  # so that labellings are drawn
    caplog.set_level("INFO", logger="scmix")
    perturb(cells, list(cells.var_names[:2]), n_permutations=9)
    assert (
        "human: the smallest p-value that 9 permutations can give is 0.1; too large for any gene "
        "to pass BH at 0.05. More permutations (n_permutations) would lower it." in caplog.text
    )


def test_progress_shows_the_time_that_is_left(cells, perturb, capsys):
    scmix.settings.progress = True
    perturb(cells, screen=3, n_sample=5)
    shown = capsys.readouterr().err
    for name in ("screen", "perturb"):
        assert re.search(rf"{name}: +\d+%.*/\d+ \[\d\d:\d\d<", shown)


def test_vectors_are_kept_in_a_file_and_read_some_at_a_time(cells, perturb, monkeypatch):
    genes = list(cells.var_names[:3])
    whole = perturb(cells, vectors_of=genes)
    monkeypatch.setattr(_spool, "CELLS_AT_ONCE", 5)
    monkeypatch.setattr(_spool, "_IN_MEMORY", 100)
    parts = perturb(cells, vectors_of=genes)
    pd.testing.assert_frame_equal(parts["scores"], whole["scores"], check_exact=True)
    for name in ("original", "perturbed", "states"):
        np.testing.assert_array_equal(parts["vectors"][name], whole["vectors"][name])


def test_a_killed_run_goes_on(cells, perturb, tmp_path, monkeypatch):
    expected = perturb(cells)["scores"]
    from scmix.effects._store import Store

    append = Store.append

    def dies(self, rows):
        if self.n_steps == 2:
            raise KeyboardInterrupt
        append(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", dies)
        with pytest.raises(KeyboardInterrupt):
            perturb(cells, store=tmp_path)
    with open(tmp_path / "human.rows", "ab") as file:
        file.write(b"half a record")
    from scmix.effects import Engine

    n_cells, run = [], Engine.run

    def counted(self, cells, species):
        n_cells.append(len(cells))
        return run(self, cells, species)

    monkeypatch.setattr(Engine, "run", counted)
    resumed = perturb(cells, store=tmp_path)["scores"]
    assert sum(n_cells) == 36 - 16  # two steps of eight cells were there
    pd.testing.assert_frame_equal(resumed, expected)
    n_cells.clear()
    perturb(cells, store=tmp_path)
    assert not n_cells
    with pytest.raises(InputError, match="effects of another run"):
        perturb(cells, kind="inhibit", store=tmp_path)


def test_a_killed_run_with_effects_on_genes_goes_on(cells, perturb, tmp_path, monkeypatch):
    names = cells.var_names[:3].tolist()
    expected = perturb(cells, names, effects="genes")
    from scmix.effects._store import Store, Sums

    save = Sums.save

    def dies(self, totals, n_steps, *, at_once=False):
        if n_steps == 3:
            raise KeyboardInterrupt  # one step is in the store and not in the sums
        save(self, totals, n_steps, at_once=True)

    with monkeypatch.context() as patch:
        patch.setattr(Sums, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            perturb(cells, names, effects="genes", store=tmp_path)
    n_appended, append = [], Store.append

    def counted(self, rows):
        n_appended.append(len(rows))
        append(self, rows)

    monkeypatch.setattr(Store, "append", counted)
    for _ in range(2):
        found = perturb(cells, names, effects="genes", store=tmp_path)
        pd.testing.assert_frame_equal(found["genes"], expected["genes"])
        pd.testing.assert_frame_equal(found["scores"], expected["scores"])
        assert len(n_appended) == 1  # of three steps of eight cells, two were there


def test_the_store_has_what_the_published_tests_take(cells, perturb, tmp_path):
    from scmix.statistics.published import goal_state_rank_sum

    found = by_gene(perturb(cells, formula="geneformer_v2", store=tmp_path))
    values = scmix.effects.read_store(tmp_path)
    assert set(values.state) == {"ill"}
    assert set(values.cell) <= set(cells.obs_names)
    donors = cells.obs.donor[values.cell].to_numpy()
    assert (values.donor.to_numpy() == donors).all()
    table = goal_state_rank_sum(values.gene, values.towards_well).set_index("Gene")
    shown = found[found.flag == ""].index
    np.testing.assert_allclose(table.Shift_to_goal_end[shown], found.effect[shown], atol=1e-6)
    np.testing.assert_array_equal(table.N_Detections[shown], found.n_cells[shown])
    with pytest.raises(InputError, match="no effects in"):
        scmix.effects.read_store(tmp_path / "elsewhere")


def test_stores_have_what_the_mixture_of_pairs_takes(cells, perturb, tmp_path):
    from scmix.statistics.published import mixture_model_pairs

    stateless = dict.fromkeys(("state_key", "start", "goal", "donor_key"))
    anchor = by_gene(perturb(cells, **stateless)).n_cells.idxmax()
    for store, option in (("single", None), ("pairs", anchor)):
        options = {"anchor": option, "formula": "geneformer_v2", **stateless}
        perturb(cells, store=tmp_path / store, min_cells=1, **options)
    single, pairs = (scmix.effects.read_store(tmp_path / name) for name in ("single", "pairs"))
    alone = single[single.gene == anchor].set_index("cell").similarity
    pairs["gene"] = pairs.gene.str.removeprefix(f"{anchor}+")
    values = pairs.merge(single, on=["cell", "gene"], suffixes=("_both", ""))
    table = mixture_model_pairs(
        values.gene, values.cell.map(alone), values.similarity, values.similarity_both
    )
    assert len(table) == cells.n_vars - 1
    assert table.N_Detections.sum() == len(pairs) == len(values)
    assert set(table.Impact_component) == {0, 1}
    assert table.notna().all(axis=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "overexpress"}, "kind='overexpress'"),
        ({"anchor": "B2M"}, "an anchor"),
        ({"effects": "genes"}, "effects='genes'"),
        ({"genes": ["B2M"]}, "a list of genes"),
        ({"state_key": None, "start": None, "goal": None}, "no states"),
    ],
)
def test_screening_is_refused_where_it_says_nothing(cells, perturb, options, message):
    with pytest.raises(InputError, match=f"screen=5 with {message}; .*screen=None"):
        perturb(cells, **{"screen": 5, **options})


def test_a_gene_is_not_compared_with_its_family(monkeypatch):
    from scmix.tl._perturbation import _tables
    from scmix.tl._perturbation._families import families

    symbols = ["GATA4", "GATA6", "RPL13A", "RPL3", "Hba-a1", "CD4", "ENSG00000000001", "A1+B2"]
    assert families(symbols) == ["GATA", "GATA", "RPL", "RPL", "HBA", "", "", ""]
    given = []
    monkeypatch.setattr(
        _tables, "matched_null", lambda *a, exclude, **k: given.append(exclude) or matched(*a)
    )
    from scmix.statistics import matched_null as matched

    table = pd.DataFrame(
        {
            "symbol": ["GATA4", "GATA6", "ACTB"], "n_cells": 20, "n_donors": 3, "n_unchanged": 0,
            "effect": [0.1, 0.2, 0.3], "estimated": False, "mean_rank": 1.0, "species": "human",
        }
    )  # fmt: skip
    _tables.finish(table, np.ones((3, 3)), None, table.effect.to_numpy(), 3, 2, 0)
    assert given == [["GATA", "GATA", ""]]


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_survives_a_file(cells, model, tmp_path, suffix):
    scmix.tl.perturb(
        cells, cells.var_names[:3].tolist(), model=model, state_key="state", start="ill",
        goal="well", donor_key="donor", vectors_of=cells.var_names[:2].tolist(), device="cpu",
        min_cells=2,
    )  # fmt: skip
    path = tmp_path / f"x.{suffix}"
    getattr(cells, f"write_{suffix}")(path)
    again = getattr(ad, f"read_{suffix}")(path).uns["perturbation"]
    before = cells.uns["perturbation"]
    np.testing.assert_allclose(again["scores"].effect, before["scores"].effect)
    assert again["vectors"]["perturbed"].shape == (2, 18, 16)
    assert set(again["vectors"]["cells"]) <= set(cells.obs_names)


def test_edits_that_change_nothing(cells, perturb):
    top = cells.to_df().loc[:, lambda x: x.columns[:1]].columns[0]
    alone = cells.copy()
    alone.X = alone.X.toarray()
    alone.X[:, 0] = 1e6  # first in every cell
    scores = by_gene(perturb(alone, [top], "overexpress"))
    assert scores.flag[top] == "no_op"
    assert np.isnan(scores.effect[top])
    assert scores.n_unchanged[top] == 18


def test_genes_in_few_cells(cells, perturb):
    gene = cells.var_names[5]
    with pytest.warns(UserWarning, match="fewer than 19"):
        scores = by_gene(perturb(cells, [gene], min_cells=19))
    assert scores.flag[gene] == "few_cells"
    assert np.isnan(scores.effect[gene])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "active"}, InputError, "kind='active'; expected one of delete"),
        ({"genes": ["NOT_A_GENE"]}, GeneIdError, "NOT_A_GENE"),
        ({"genes": ["ENSG00000111640"]}, InputError, "GAPDH in no human cell"),
        ({"genes": "B2M"}, InputError, "expected 'all' or a list"),
        ({"genes": []}, InputError, "at least one gene"),
        ({"genes": [["B2M", "B2M"]]}, InputError, "B2M twice"),
        ({"genes": [["B2M", "ENSG00000166710"]]}, InputError, "two names of one gene"),
        ({"goal": "ill"}, InputError, "expected different states"),
        ({"goal": "cured"}, InputError, "no cell with .* 'cured'; there are ill, well"),
        ({"goal": None}, InputError, "expected two states"),
        ({"state_key": "stat"}, MissingKeyError, "'state'"),
        ({"donor_key": "patient"}, MissingKeyError, "no column 'patient'"),
        ({"formula": "v3"}, InputError, "formula='v3'"),
        ({"effects": "tokens"}, InputError, "effects='tokens'"),
        ({"pool": "first"}, InputError, "pool='first'"),
        ({"screen": 0}, InputError, "screen=0"),
        ({"anchor": "B2M", "genes": ["CD3E"]}, InputError, "with_anchor"),
    ],
)
def test_what_is_refused(cells, model, options, error, message):
    chosen = {"state_key": "state", "start": "ill", "goal": "well", "donor_key": "donor", **options}
    with pytest.raises(error, match=message):
        scmix.tl.perturb(cells, model=model, device="cpu", **chosen)
    assert "perturbation" not in cells.uns


def test_one_donor_per_state_is_descriptive(cells, perturb):
    cells.obs["donor"] = cells.obs["state"].astype(str)
    found = perturb(cells, cells.var_names[:3].tolist())
    assert found["params"]["inference"] == "descriptive"
    assert found["scores"].p_state.isna().all()
    assert np.isfinite(found["scores"].effect).all()
