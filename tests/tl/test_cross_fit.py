import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scmix
from scmix import checkpoints
from scmix._errors import InputError, MissingKeyError
from scmix.encoder import Config
from scmix.genes import Vocabulary
from scmix.statistics import StateNull
from scmix.tl._perturbation._measured import every_fold

STATES = {"state_key": "state", "start": "ill", "goal": "well", "donor_key": "donor"}
SMALL = {"recipe": "tuned", "epochs": 1, "frozen_layers": 0, "gene_votes": False, "device": "cpu"}


@pytest.fixture(scope="module")
def model():
    config = Config(
        vocab_size=Vocabulary.bundled().n_tokens,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
        initializer_range=0.3,
    )
    return checkpoints.untrained(config, Vocabulary.bundled(), seed=0)


@pytest.fixture
def cells(make_adata):
    """72 cells of 12 donors, six in each of two states; 30 genes."""
    adata = make_adata("human", n_obs=72, n_vars=30)
    adata.obs["donor"] = [f"d{i % 12:02d}" for i in range(72)]
    adata.obs["state"] = pd.Categorical(["ill" if i % 12 < 6 else "well" for i in range(72)])
    return adata


@pytest.fixture
def folds(cells, model):
    return scmix.tl.cross_fit(cells, "state", "donor", model=model, **SMALL)


def perturbed(adata, model, **options):
    chosen = {**STATES, "device": "cpu", "dtype": "float32", "min_cells": 2, **options}
    names = adata.var_names[:4].tolist()
    return scmix.tl.perturb(adata, names, model=model, copy=True, **chosen).uns["perturbation"]


def test_every_donor_is_read_by_the_encoder_that_has_not_seen_it(cells, folds):
    found = perturbed(cells, folds)
    sides = found["params"]["cross_fit"]
    assert len(set(sides["model_sha256"])) == 2
    by_donor = dict(zip(sides["donor"], sides["model_sha256"], strict=True))
    assert set(by_donor) == set(cells.obs["donor"])
    from scmix._slots import iter_sequences

    for one in folds:
        block = next(
            iter_sequences(cells, one.model.vocabulary, species="human", n_genes=one.n_genes)
        )
        seen = one.seen(one.prepare(block.sequences, block.species))
        reads = cells.obs["donor"].map(by_donor).to_numpy() == one.model.sha256
        assert seen[~reads].all()
        assert not seen[reads].any()
        state = cells.obs["state"].to_numpy()[reads]
        assert len(set(cells.obs["donor"][reads][state == "ill"])) == 3


def test_effects_are_the_mean_over_donors_of_each_fold_by_itself(cells, folds):
    found = perturbed(cells, folds)
    scores = found["scores"].set_index("gene")
    assert found["params"]["inference"] == "permutation"
    assert found["params"]["p_min"] == pytest.approx(1 / 20)
    sides = found["params"]["cross_fit"]
    expected, p = [], []
    for one in folds:
        donors = np.array(sides["donor"])[np.array(sides["model_sha256"]) == one.model.sha256]
        part = cells[cells.obs["donor"].isin(donors)].copy()
        alone = perturbed(part, one)["scores"].set_index("gene").loc[scores.index]
        expected.append((alone.effect * alone.n_donors).to_numpy() / scores.n_donors.to_numpy())
        p.append(np.where(np.sign(alone.effect) > 0, 1, -1) * alone.p_state.to_numpy())
    np.testing.assert_allclose(scores.effect, np.sum(expected, axis=0), atol=1e-6)
    agree = np.sign(p[0]) == np.sign(p[1])
    np.testing.assert_allclose(scores.p_state, np.where(agree, np.abs(p).max(axis=0), 1))


def test_p_of_all_folds():
    def null(effect, p):
        p = np.array(p)
        return StateNull(np.array(effect), np.ones((2, 3)), p, p, 0.1, 10, True, "permutation")

    both = every_fold([null([1, 1, 1], [0.2, 0.1, np.nan]), null([2, -1, 1], [0.1, 0.1, 0.3])])
    np.testing.assert_array_equal(both.p, [0.2, 1, np.nan])
    assert both.inference == "permutation"


def test_an_encoder_that_saw_the_states_of_these_cells_gives_no_p(cells, model):
    circular = scmix.tl.fine_tune(cells, "state", groups="donor", model=model, **SMALL)
    with pytest.warns(UserWarning, match="72 of these 72 cells: it finds a difference"):
        found = perturbed(cells, circular)
    assert found["params"]["inference"] == "descriptive"
    assert found["params"]["n_circular"] == 72
    assert found["scores"].p_state.isna().all()
    with pytest.raises(InputError, match=r"no classifier that has not seen donor 'd00' \(12 such"):
        perturbed(cells, [circular, circular])


def test_another_label_of_the_same_cells_is_not_circular(cells, model, recwarn):
    cells.obs["type"] = np.where(np.arange(72) % 2, "B cell", "T cell")
    found = perturbed(cells, scmix.tl.fine_tune(cells, "type", model=model, **SMALL))
    assert found["params"]["n_circular"] == 0
    assert found["params"]["inference"] == "permutation"
    assert not [w for w in recwarn if "finds a difference" in str(w.message)]


def test_a_store_of_each_fold(cells, folds, tmp_path):
    once = perturbed(cells, folds, store=tmp_path)["scores"]
    assert {path.name for path in tmp_path.glob("*.rows")} == {"human.rows", "human-1.rows"}
    pd.testing.assert_frame_equal(perturbed(cells, folds, store=tmp_path)["scores"], once)
    values = scmix.effects.read_store(tmp_path)
    assert set(values.donor) == set(cells.obs["donor"])


def test_what_is_refused(cells, model, folds):
    cross_fit = scmix.tl.cross_fit
    with pytest.raises(MissingKeyError, match="patient"):
        cross_fit(cells, "state", "patient", model=model)
    with pytest.raises(InputError, match="n_folds=7 and 6 donors"):
        cross_fit(cells, "state", "donor", n_folds=7, model=model)
    with pytest.raises(InputError, match="Found groups; expected none"):
        cross_fit(cells, "state", "donor", groups="donor")
    with pytest.warns(UserWarning, match="A fold has 2 donors"):
        cross_fit(cells, "state", "donor", n_folds=3, model=model, **{**SMALL, "epochs": 0})
    with pytest.raises(InputError, match=r"list that scmix\.tl\.cross_fit returns"):
        perturbed(cells, [folds[0], model])


def test_folds_have_as_many_donors_of_each_state():
    from scmix.tl._cross_fit import _folds

    donors = np.array([f"d{i}" for i in range(9)])
    states = np.array(["a"] * 4 + ["b"] * 5)
    fold = _folds(states, donors, 2, 0)
    assert sorted(np.bincount(fold[:4])) == [2, 2]
    assert sorted(np.bincount(fold[4:])) == [2, 3]
    assert (_folds(states, donors, 2, 0) == fold).all()


@pytest.mark.slow
def test_false_positive_rate_without_and_with_cross_fitting():
    """benchmarks/bench_cross_fit.py on few data sets, in which the states do not differ."""
    path = Path(__file__).parents[2] / "benchmarks" / "bench_cross_fit.py"
    if not path.exists():
        pytest.skip("the benchmarks are not here")
    found = runpy.run_path(str(path))["simulate"](16)  # standard errors are 0.04 to 0.07
    assert found["on its own cells"] > 0.4
    assert found["cross-fitted"] < 0.2
    assert found["one fold of these"] < 0.3
    assert found["not fine-tuned"] < 0.2
