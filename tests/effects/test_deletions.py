"""The first layer that deletions have in common gives what running each deletion gives."""

import numpy as np
import pytest
import torch

from scmix.batches import Sequences
from scmix.effects import Engine, Plan, _engine
from scmix.effects._deletions import Deletions
from scmix.encoder import Config, Encoder
from scmix.genes import Vocabulary
from scmix.perturbations import Edit

LENGTH = 30


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    config = Config(
        vocab_size=Vocabulary.bundled().n_tokens,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=LENGTH,
        initializer_range=0.4,
    )
    return Encoder(config).eval().requires_grad_(False)


@pytest.mark.parametrize("layer", [1, -2, -1])
def test_hidden_states_of_every_deletion(encoder, layer):
    tokens = np.random.default_rng(0).permutation(500)[:LENGTH] + 10
    made = Deletions(encoder, tokens, layer)
    places = np.array([1, 2, 7, 28, 29, 3, 3])  # in any order
    found = made.hidden(places).view(len(places), LENGTH - 1, -1)
    for place, hidden in zip(places, found, strict=True):
        rest = torch.from_numpy(np.delete(tokens, place))
        expected = encoder(rest, [0, LENGTH - 1], layer=layer)
        torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("readmit", [True, False])
def test_effects_are_those_of_single_runs(encoder, monkeypatch, readmit):
    rng = np.random.default_rng(1)
    vocabulary = Vocabulary.bundled()
    own = np.flatnonzero(vocabulary.species_of_token[0])[:400]
    lengths = (LENGTH + 3, LENGTH - 1, LENGTH, 12)  # longer than is read, as long, shorter
    cells = Sequences.from_list([rng.permutation(own)[:n] for n in lengths])
    plan = Plan(Edit("delete", LENGTH - 1, readmit=readmit), vocabulary.n_tokens)
    engine = Engine(encoder, vocabulary, plan, -2, by_token=True, batch_tokens=100)

    def run(fewest):
        monkeypatch.setattr(_engine, "FEWEST", fewest)
        return list(engine.run(cells, np.zeros(4, np.int8)))

    together, alone = run(1), run(10**9)
    for name in ("cell", "number", "original", "perturbed", "similarity", "affected", "cosine"):
        one, other = (
            np.concatenate([getattr(x, name) for x in found]) for found in (together, alone)
        )
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_one_cell_is_prepared_once(encoder, monkeypatch):
    made = []

    class Counted(Deletions):
        def __init__(self, *arguments):
            made.append(1)
            super().__init__(*arguments)

    monkeypatch.setattr("scmix.effects._deletions.Deletions", Counted)
    monkeypatch.setattr(_engine, "FEWEST", 5)
    vocabulary = Vocabulary.bundled()
    own = np.flatnonzero(vocabulary.species_of_token[0])[:60]
    cells = Sequences.from_list([own[:20], own[20:40], own[40:43]])
    plan = Plan(Edit("delete", LENGTH - 1), vocabulary.n_tokens)
    engine = Engine(encoder, vocabulary, plan, -1, batch_tokens=40)
    list(engine.run(cells, np.zeros(3, np.int8)))
    assert len(made) == 2  # the third cell has three genes
