"""The published statistics: exact small cases, scipy as reference, and the reference tables."""

import ast
import json
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, ranksums

from scmix._errors import InputError
from scmix.statistics import published


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), n_values=st.integers(1, 60), n_genes=st.integers(1, 8))
def test_rank_sum_equals_scipy_with_ties(seed, n_values, n_genes):
    rng = np.random.default_rng(seed)
    genes = rng.integers(n_genes, size=n_values)
    goal, other = rng.integers(-5, 5, size=(2, n_values)) / 10
    table = published.goal_state_rank_sum(genes, goal, alternatives={"x": other}).set_index("Gene")
    for gene in np.unique(genes):
        row, own = table.loc[gene], genes == gene
        for column, values in (("Goal_end", goal), ("Alt_end", other)):
            p = row[f"{column}_vs_random_pval" + ("_x" if column == "Alt_end" else "")]
            assert p == pytest.approx(ranksums(values[own], values).pvalue)
        assert row["Shift_to_goal_end"] == pytest.approx(goal[own].mean())
        assert row["N_Detections"] == own.sum()


def test_goal_table_has_the_published_columns_and_order():
    rng = np.random.default_rng(0)
    genes = np.repeat(["low", "high", "none"], 200)
    goal = rng.normal(size=600) + np.repeat([-1, 1, 0.5], 200)
    names = pd.DataFrame(
        {"Gene_name": ["L", "H", "N"], "Ensembl_ID": ["e1", "e2", "e3"]}, ["low", "high", "none"]
    )
    table = published.goal_state_rank_sum(genes, goal, alternatives={"": -goal}, names=names)
    assert list(table.columns) == [
        *("Gene", "Gene_name", "Ensembl_ID", "Shift_to_goal_end", "Shift_to_alt_end"),
        *("Goal_end_vs_random_pval", "Alt_end_vs_random_pval", "Goal_end_FDR", "Alt_end_FDR"),
        *("N_Detections", "Sig"),
    ]
    assert table["Sig"].is_monotonic_decreasing
    assert table["Gene_name"].iloc[0] == "H"
    assert list(table[table["Sig"] == 1]["Gene"])[-1] == "low"
    np.testing.assert_allclose(
        table["Goal_end_FDR"], false_discovery_control(table["Goal_end_vs_random_pval"])
    )


def test_a_large_pool_is_drawn_as_published(monkeypatch):
    import random

    monkeypatch.setattr(published, "_LARGEST_POOL", 50)
    values = np.random.default_rng(1).normal(size=200)
    genes = np.repeat(["a", "b"], 100)
    pool = random.Random(42).sample(list(values), 50)
    table = published.goal_state_rank_sum(genes, values).set_index("Gene")
    expected = ranksums(values[:100], pool).pvalue
    assert table.loc["a", "Goal_end_vs_random_pval"] == pytest.approx(expected)


def test_vs_null_by_hand():
    nan = np.nan
    table = published.vs_null(
        ["a", "a", "a", "b"], [1.0, 2.0, nan, 5.0], ["a", "a", "c"], [0.0, 1.0, 9.0]
    )
    assert list(table.columns) == [
        *("Gene", "Test_avg_shift", "Null_avg_shift", "Test_vs_null_avg_shift"),
        *("Test_vs_null_pval", "Test_vs_null_FDR", "N_Detections_test", "N_Detections_null"),
        "Sig",
    ]
    a, b = table.set_index("Gene").loc[["a", "b"]].itertuples()
    assert (a.Test_avg_shift, a.Null_avg_shift, a.Test_vs_null_avg_shift) == (1.5, 0.5, 1.0)
    assert a.Test_vs_null_pval == pytest.approx(ranksums([1, 2], [0, 1]).pvalue)
    assert (b.Test_avg_shift, b.Test_vs_null_pval, b.N_Detections_null) == (5, 1, 0)
    assert np.isnan(b.Null_avg_shift)


def test_mixture_components_are_named_by_their_mean():
    """Few genes with impact: the high mean comes first and the published labels swap."""
    rng = np.random.default_rng(2)
    means = np.r_[rng.normal(0.8, 0.01, 30), rng.normal(0.98, 0.005, 300)]
    genes = np.repeat(np.arange(330), 2)
    cells = np.column_stack([means, np.r_[np.full(30, 0.99), means[30:]]]).ravel()
    table = published.mixture_model(np.arange(330), means).set_index("Gene").sort_index()
    assert list(table["Impact_component"]) == [1] * 30 + [0] * 300
    assert published.mixture_model(np.arange(330), means)["Gene"].iloc[0] == means.argmin()
    table = published.mixture_model(genes, cells).set_index("Gene").sort_index()
    assert set(table["Impact_component_percent"].iloc[:30]) == {50.0}
    assert set(table["N_Detections"]) == {2}


def test_mixture_of_pairs_by_hand():
    """Five pairs of two cells; the mixture is fitted on what both edits together leave."""
    rng = np.random.default_rng(5)
    genes = np.repeat(["a", "b", "c", "d", "e"], 2)
    anchor, single = rng.uniform(0.9, 1, size=(2, 10))
    both = np.repeat([0.3, 0.35, 0.9, 0.92, 0.94], 2) + np.tile([-0.01, 0.01], 5)
    both[1] = 0.93  # one cell of the first pair is like those without impact
    both[0] = 0.1
    table = published.mixture_model_pairs(genes, anchor, single, both)
    assert list(table.columns) == [
        *("Gene", "Anchor_shift", "Test_token_shift", "Sum_of_indiv_shifts", "Combo_shift"),
        *("Combo_minus_sum_shift", "Impact_component", "Impact_component_percent"),
        "N_Detections",
    ]
    found = table.set_index("Gene")
    for i, gene in enumerate("abcde"):
        own = slice(2 * i, 2 * i + 2)
        added = 1 - ((1 - anchor[own]) + (1 - single[own]))
        row = found.loc[gene]
        assert row["Anchor_shift"] == pytest.approx(anchor[own].mean())
        assert row["Test_token_shift"] == pytest.approx(single[own].mean())
        assert row["Sum_of_indiv_shifts"] == pytest.approx(added.mean())
        assert row["Combo_shift"] == pytest.approx(both[own].mean())
        assert row["Combo_minus_sum_shift"] == pytest.approx((both[own] - added).mean())
    assert found["Impact_component"].to_dict() == {"a": 1, "b": 1, "c": 0, "d": 0, "e": 0}
    assert found["Impact_component_percent"].to_dict() == {
        "a": 50,
        "b": 100,
        "c": 0,
        "d": 0,
        "e": 0,
    }
    for _, part in table.groupby("Impact_component", sort=False):
        assert part["Combo_minus_sum_shift"].is_monotonic_increasing
    assert table["Impact_component"].is_monotonic_decreasing
    with pytest.raises(InputError, match="at least two genes"):
        published.mixture_model_pairs(["a"], [1.0], [1.0], [0.5])


def test_pairs_without_effect_of_the_anchor_are_the_mixture_of_single_genes():
    rng = np.random.default_rng(2)
    values = np.r_[rng.normal(0.8, 0.01, 30), rng.normal(0.98, 0.005, 300)]
    genes, ones = np.arange(330), np.ones(330)
    pairs = published.mixture_model_pairs(genes, ones, ones, values).set_index("Gene").sort_index()
    alone = published.mixture_model(genes, values).set_index("Gene").sort_index()
    shared = ["Impact_component", "Impact_component_percent", "N_Detections"]
    pd.testing.assert_frame_equal(pairs[shared], alone[shared])


def test_every_published_mode_is_there():
    modes = {"goal_state_rank_sum", "vs_null", "mixture_model", "mixture_model_pairs"}
    assert set(published.__all__) == modes | {"aggregate", "aggregate_gene_shifts"}


def test_bad_input_is_named():
    with pytest.raises(InputError, match="Found no values"):
        published.goal_state_rank_sum([], [])
    with pytest.raises(InputError, match="expected as many"):
        published.mixture_model(["a", "b"], [1.0])
    with pytest.raises(InputError, match="at least two genes"):
        published.mixture_model(["a", "a"], [1.0, 0.5])
    with pytest.raises(InputError, match="Found no values of 'c' among 2 genes"):
        published.aggregate(["a", "b"], [1.0, 0.5], "c")


# --- against the tables of the published code, with SCMIX_DATA ---


@pytest.fixture(scope="module")
def folder(scmix_data):
    return scmix_data / "reference" / "perturbation"


@pytest.fixture(scope="module")
def names(folder):
    ensembl = {
        token: name for name, token in json.loads((folder / "tok1.json").read_text()).items()
    }
    symbols = {e: symbol for symbol, e in json.loads((folder / "names.json").read_text()).items()}
    tokens = [token for token in ensembl if ensembl[token] in symbols]
    ids = [ensembl[token] for token in tokens]
    return pd.DataFrame({"Gene_name": [symbols[i] for i in ids], "Ensembl_ID": ids}, index=tokens)


def raw(folder, name):
    """Published raw values as {key: values}, keys literal tuples, a state in front in goal mode."""
    found = defaultdict(list)
    for table in json.loads((folder / name).read_text()).values():
        for key, values in table.items():
            if isinstance(values, dict):
                for inner, numbers in values.items():
                    found[(key, *ast.literal_eval(inner))] += numbers
            else:
                found[ast.literal_eval(key)] += values
    return found


def flat(values):
    return [key for key in values for _ in values[key]], [v for key in values for v in values[key]]


def reference(folder, name):
    return pd.read_csv(folder / name, index_col=0).reset_index(drop=True)


def assert_same(found, expected):
    pd.testing.assert_frame_equal(
        found, expected, check_dtype=False, check_exact=False, rtol=1e-9, atol=1e-12
    )


def of_state(values, state):
    genes, shifts = flat({key[1]: v for key, v in values.items() if key[0] == state})
    return genes, shifts


@pytest.mark.parametrize("kind", ["delete", "overexpress"])
def test_goal_state_equals_the_reference(folder, names, kind):
    values = raw(folder, f"v2code_V1cell_all_{kind}_goal.json")
    genes, goal = of_state(values, "disease")
    again, other = of_state(values, "other")
    assert genes == again
    table = published.goal_state_rank_sum(genes, goal, alternatives={"other": other}, names=names)
    assert_same(table, reference(folder, f"stats_goal_{kind}.csv"))


def test_goal_state_equals_the_reference_of_mix(folder, names):
    keys, shifts = flat(raw(folder, "mixcode_all_delete_goal.json"))
    _, goal, other = np.array(shifts).T
    genes = [key[0] for key in keys]
    table = published.goal_state_rank_sum(genes, goal, alternatives={"": other}, names=names)
    assert_same(table, reference(folder, "mixstats_goal_delete.csv"))


def test_vs_null_equals_the_reference(folder, names):
    (test, shifts), (null, null_shifts) = (
        flat(raw(folder, f"v2code_V1cell_all_{kind}.json")) for kind in ("delete", "overexpress")
    )
    table = published.vs_null(
        [key[0] for key in test], shifts, [key[0] for key in null], null_shifts, names=names
    )
    assert_same(table, reference(folder, "stats_vs_null_delete_vs_overexpress.csv"))


def test_mixture_equals_the_reference_where_that_is_right(folder, names):
    """There the first component has the higher mean, and the published rule takes it for impact:
    everything below it that is not above the lower mean. Outside the two means both rules agree.
    """
    keys, shifts = flat(raw(folder, "v2code_V1cell_all_delete.json"))
    table = published.mixture_model([key[0] for key in keys], shifts, names=names)
    expected = reference(folder, "stats_mixture_delete.csv")
    assert list(table.columns) == list(expected.columns)
    table, expected = table.set_index("Gene").sort_index(), expected.set_index("Gene").sort_index()
    same = ["Gene_name", "Ensembl_ID", "Test_avg_shift", "N_Detections"]
    assert_same(table[same], expected[same])
    differ = table["Impact_component"] != expected["Impact_component"]
    between = table["Test_avg_shift"].between(0.862892, 0.900898)  # the fitted means
    assert not differ[~between].any()
    assert (table["Impact_component"][~between].nunique()) == 2


def test_aggregate_equals_the_reference(folder):
    keys, shifts = flat(raw(folder, "v2code_V1cell_set1_delete.json"))
    table = published.aggregate([key[0] for key in keys], shifts, 5)
    expected = reference(folder, "stats_aggregate_set1_delete.csv")
    assert_same(table[["Cosine_sim"]], expected[["Cosine_sim"]])
    keys, shifts = flat(raw(folder, "mixcode_set1_delete.json"))
    table = published.aggregate([key[0] for key in keys], shifts, (5,))
    expected = reference(folder, "mixstats_aggregate.csv")
    np.testing.assert_allclose(table["Cosine_sim"], expected["Cosine_shift"])


def test_gene_shifts_equal_the_reference(folder, names):
    keys, shifts = flat(raw(folder, "v2code_V1cellgene_all_delete.json"))
    perturbed, affected = zip(*keys, strict=True)
    table = published.aggregate_gene_shifts(perturbed, affected, shifts, names=names)
    expected = reference(folder, "stats_gene_shifts_delete.csv")
    assert list(table.columns) == list(expected.columns)
    pairs = ["Perturbed", "Affected"]
    found, wanted = (
        t.assign(Affected=t["Affected"].astype(str)).sort_values(pairs, ignore_index=True)
        for t in (table, expected)
    )
    assert_same(found, wanted)
    assert (table["Affected"].iloc[:60] == "cell_emb").all()
    np.testing.assert_allclose(table["Cosine_sim_mean"], expected["Cosine_sim_mean"])
