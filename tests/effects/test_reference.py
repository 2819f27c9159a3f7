"""What the published code returned on seeded inputs, file by file."""

import ast
import json
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from scmix.batches import Sequences
from scmix.effects import FORMULAS, Engine, Measure, Plan
from scmix.encoder import Config, Encoder
from scmix.perturbations import Edit

LENGTH, N_TOKENS = 32, 62
STATES = ("healthy", "disease", "other")
VOCABULARY = SimpleNamespace(
    special={"<pad>": 0, "<mask>": 1},
    special_ids=np.array([0, 1]),
    prefix=lambda code: [],
    suffix=list,
)
SETS = {"all": None, "set1": np.array([[5]]), "set2": np.array([[5, 6]])}


@pytest.fixture(scope="module")
def reference(request):
    folder = request.getfixturevalue("scmix_data") / "reference" / "perturbation"
    config = json.loads((folder / "model_v1style" / "config.json").read_text())
    encoder = Encoder(Config.from_dict(config)).eval()
    encoder.load_state_dict(load_file(folder / "model_v1style" / "model.safetensors"))
    states = json.loads((folder / "state_embs_v1_exact_mean.json").read_text())
    vectors = np.array([states[name] for name in STATES])
    data = json.loads((folder / "d1.json").read_text())
    return SimpleNamespace(
        folder=folder,
        encoder=encoder,
        cells=Sequences.from_list(data["input_ids"]),
        disease=np.array(data["disease"]),
        directions=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
    )


def published(reference, name):
    """All values of a file by key; keys are (state,) perturbed, affected."""
    found = defaultdict(list)

    def read(content, front):
        for key, value in content.items():
            if isinstance(value, dict):
                read(value, (*front, key))
            else:
                found[(*front, *ast.literal_eval(key))].extend(value)

    files = json.loads((reference.folder / f"{name}.json").read_text())
    for content in files.values():
        read(content, ())
    return dict(found)


def effects(reference, kind, genes, formula, cells=None):
    chosen = FORMULAS[formula]
    engine = Engine(
        reference.encoder,
        VOCABULARY,
        Plan(Edit(kind, LENGTH, readmit=False), N_TOKENS, SETS[genes]),
        leave_out=chosen.leave_out,
        same_genes=chosen.same_genes,
        by_token=chosen.by_token,
        batch_tokens=50,
    )
    cells = reference.cells if cells is None else cells
    return list(engine.run(cells, np.zeros(len(cells), int)))


def similarities(parts):
    found = defaultdict(list)
    for part in parts:
        for number, changed, value in zip(part.number, part.changed, part.similarity, strict=True):
            if changed:
                found[int(number)].append(value)
    return found


def shifts(reference, parts):
    """Movement towards each state by set, one row per cell."""
    found = defaultdict(list)
    measure = Measure(np.zeros(16), reference.directions)
    for part in parts:
        moved = measure(part.original[part.changed], part.perturbed[part.changed])[1]
        for number, row in zip(part.number[part.changed], moved, strict=True):
            found[int(number)].append(row)
    return {number: np.array(rows) for number, rows in found.items()}


def assert_same(found, expected, atol=1e-5):
    """Equal as multisets of rows: the published lists do not say which cell a value is of."""
    found, expected = np.array(found), np.array(expected)
    assert found.shape == expected.shape
    order = [np.argsort(x if x.ndim == 1 else x[:, 0]) for x in (found, expected)]
    np.testing.assert_allclose(found[order[0]], expected[order[1]], atol=atol)


@pytest.mark.parametrize("kind", ["delete", "overexpress"])
@pytest.mark.parametrize(
    ("code", "formula"), [("v2code_V1cell", "geneformer_v2"), ("mixcode", "geneformer_v1")]
)
def test_similarity_of_every_gene(reference, code, formula, kind):
    expected = published(reference, f"{code}_all_{kind}")
    found = similarities(effects(reference, kind, "all", formula))
    assert {(gene, "cell_emb") for gene in found} == set(expected)
    for gene, values in found.items():
        assert_same(values, expected[gene, "cell_emb"])


@pytest.mark.parametrize("kind", ["delete", "overexpress"])
def test_shift_of_every_gene_towards_states(reference, kind):
    start = reference.cells[reference.disease == "healthy"]
    v2 = published(reference, f"v2code_V1cell_all_{kind}_goal")
    found = shifts(reference, effects(reference, kind, "all", "geneformer_v2", start))
    assert {(state, gene, "cell_emb") for state in STATES for gene in found} == set(v2)
    for gene, rows in found.items():
        for column, state in enumerate(STATES):
            assert_same(rows[:, column], v2[state, gene, "cell_emb"])
    mix = published(reference, f"mixcode_all_{kind}_goal")
    found = shifts(reference, effects(reference, kind, "all", "geneformer_v1", start))
    assert {(gene, "cell_emb") for gene in found} == set(mix)
    for gene, rows in found.items():
        assert_same(rows, mix[gene, "cell_emb"])


@pytest.mark.parametrize("name", ["set1_delete", "set2_delete", "set1_overexpress"])
def test_similarity_of_sets(reference, name):
    genes, kind = name.split("_")
    (expected,) = published(reference, f"v2code_V1cell_{name}").values()
    (found,) = similarities(effects(reference, kind, genes, "geneformer_v2")).values()
    assert_same(found, expected)


@pytest.mark.parametrize("genes", ["set1", "set2"])
@pytest.mark.parametrize("kind", ["delete", "overexpress"])
def test_shift_of_sets_towards_states(reference, kind, genes):
    start = reference.cells[reference.disease == "healthy"]
    expected = published(reference, f"v2code_V1cell_{genes}_{kind}_goal")
    (found,) = shifts(reference, effects(reference, kind, genes, "geneformer_v2", start)).values()
    by_state = {key[0]: values for key, values in expected.items()}
    for column, state in enumerate(STATES):
        assert_same(found[:, column], by_state[state])


def by_gene(parts, label):
    """Cosine of every other gene of every cell by the labels that it is given."""
    found = defaultdict(list)
    for part in parts:
        starts = np.searchsorted(part.pair, np.arange(len(part.cell) + 1))
        for edit in np.flatnonzero(part.changed):
            pairs = slice(starts[edit], starts[edit + 1])
            perturbed, right = int(part.number[edit]), part.affected[pairs].tolist()
            labels = label(part.cell[edit], perturbed, right)
            for name, cosine in zip(labels, part.cosine[pairs], strict=False):
                found[perturbed, name].append(cosine)
    return found


@pytest.mark.parametrize("kind", ["delete", "overexpress"])
@pytest.mark.parametrize(
    ("code", "formula"),
    [("v2code_V1cellgene_all", "geneformer_v2"), ("mixcode_cellgene", "geneformer_v1")],
)
def test_every_other_gene(reference, code, formula, kind):
    """Equal when labelled as published; only the labels of V2's deletions are the right ones."""
    cells = [cell.tolist() for cell in reference.cells]

    def label(cell, perturbed, right):
        others = [gene for gene in cells[cell] if gene != perturbed]
        assert right == others  # ours are the genes in their order
        if formula == "geneformer_v1":
            return cells[cell]  # the perturbed gene was not taken out of the labels
        return others if kind == "delete" else others[1:]  # the gene in front was

    parts = effects(reference, kind, "all", formula)
    expected = published(reference, f"{code}_{kind}")
    found = by_gene(parts, label)
    assert set(found) == {key for key in expected if key[1] != "cell_emb"}
    for key, values in found.items():
        assert_same(values, expected[key])
    for gene, values in similarities(parts).items():
        assert_same(values, expected[gene, "cell_emb"])


def test_similarity_of_a_set_as_mix_geneformer_averages_it(reference):
    """Its mean misses the last gene of every cell."""
    (expected,) = published(reference, "mixcode_set1_delete").values()
    found = []
    for part in effects(reference, "delete", "set1", "geneformer_v1"):
        for edit in np.flatnonzero(part.changed):
            found.append(part.cosine[part.pair == edit][:-1].mean())
    assert_same(found, expected)


def padded_states(reference, cells):
    """Last hidden states of cells in one padded batch, padding included, as published."""
    from transformers import BertModel

    folder = reference.folder / "model_v1style"
    bert = BertModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False)
    ids = torch.zeros(len(cells), max(map(len, cells)), dtype=torch.long)
    for row, cell in zip(ids, cells, strict=True):
        row[: len(cell)] = torch.tensor(cell)
    with torch.no_grad():
        return bert.eval()(ids, attention_mask=(ids > 0).long()).last_hidden_state.numpy()


def mean_as_published(states, cell, genes, length):
    """The set's positions are taken out, and then as many are averaged as there were before: where
    the batch has room, as many states of padding come in as genes were taken out."""
    out = [i for i in range(len(states)) if not (i < len(cell) and cell[i] in genes)]
    return states[out[:length]].mean(axis=0)


@pytest.mark.parametrize("name", ["set1_delete", "set1_overexpress", "set2_overexpress"])
def test_shift_of_sets_as_mix_geneformer_averages_it(reference, name):
    """Its means hold padding. Only where there is none (the longest cell) is ours the same."""
    set_name, kind = name.split("_")
    genes = SETS[set_name][0].tolist()
    (expected,) = published(reference, f"mixcode_{name}_goal").values()
    start = [cell.tolist() for cell in reference.cells[reference.disease == "healthy"]]
    if kind == "delete":
        start = [cell for cell in start if set(genes) <= set(cell)]
    start = sorted(start, key=len, reverse=True)
    front = genes if kind == "overexpress" else []
    edited = [(front + [g for g in cell if g not in genes])[:LENGTH] for cell in start]
    absent = [len(set(front) - set(cell)) for cell in start]
    before = [
        mean_as_published(states, cell, genes, min(len(cell), LENGTH - n))
        for states, cell, n in zip(padded_states(reference, start), start, absent, strict=True)
    ]
    after = [
        mean_as_published(states, cell, genes, len(cell))
        for states, cell in zip(padded_states(reference, edited), edited, strict=True)
    ]
    measure = Measure(np.zeros(16), reference.directions)
    found = measure(np.array(before), np.array(after))[1]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    cells = Sequences.from_list(start)
    (ours,) = shifts(reference, effects(reference, kind, set_name, "geneformer_v1", cells)).values()
    np.testing.assert_allclose(ours[0], expected[0], atol=1e-5)
    assert np.abs(ours[1:] - expected[1:]).max() > 1e-3


@pytest.mark.parametrize("name", ["set1_overexpress", "set2_delete_goal"])
def test_sets_that_mix_geneformer_cannot_do(reference, name):
    """It stops with an error that says nothing about the cells."""
    content = json.loads((reference.folder / f"mixcode_{name}.json").read_text())
    assert list(content) == ["error"]
