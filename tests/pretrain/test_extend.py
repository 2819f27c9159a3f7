"""A human model gets mouse genes from their orthologues, and goes on learning."""

import numpy as np
import pandas as pd
import pytest
import torch

from scmix import checkpoints
from scmix._errors import InputError
from scmix._history import read_history
from scmix.encoder import Config
from scmix.genes import Vocabulary
from scmix.pretrain import build_corpus, extend_vocabulary, train, with_species

from .conftest import N_GENES, N_SHARED, counts_of, vocabulary_of, write_cells

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32}
SPECIAL = {"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3}


def human_vocabulary(special: dict[str, int] = SPECIAL, groups: bool = True) -> Vocabulary:
    """Human genes only, under tokens in no particular order, as a published model has them."""
    table = vocabulary_of("separate").genes.query("species == 'human'").reset_index(drop=True)
    tokens = len(special) + np.random.default_rng(0).permutation(len(table))
    table = table.assign(token=tokens, group=table.group if groups else "")
    return Vocabulary.from_table(table, special=special, mode="separate")


@pytest.fixture(scope="module")
def human() -> checkpoints.Model:
    vocabulary = human_vocabulary()
    config = Config(vocab_size=vocabulary.n_tokens, max_position_embeddings=64, **SIZES)
    model = checkpoints.untrained(config, vocabulary, seed=0, name="human")
    torch.nn.init.normal_(
        model.encoder.cls.predictions.bias, generator=torch.Generator().manual_seed(1)
    )
    return model


def both() -> Vocabulary:
    """Human genes under the model's tokens, and mouse genes behind them."""
    old = human_vocabulary()
    mouse = vocabulary_of("separate").genes.query("species == 'mouse'")
    mouse = mouse.assign(token=old.n_tokens + np.arange(len(mouse)))
    return Vocabulary.from_table(
        pd.concat([old.genes, mouse], ignore_index=True), special=SPECIAL, mode="separate"
    )


def rows_of(model: checkpoints.Model) -> tuple[np.ndarray, np.ndarray]:
    encoder = model.encoder
    rows = encoder.bert.embeddings.word_embeddings.weight.detach().numpy()
    return rows, encoder.cls.predictions.bias.detach().numpy()


def token_of(vocabulary: Vocabulary, gene: int, species: str) -> int:
    prefix = "ENSG" if species == "human" else "ENSMUSG"
    return int(vocabulary.genes.set_index("ensembl_id").token[f"{prefix}{gene + 1:011d}"])


def test_known_genes_keep_their_rows_and_orthologues_start_from_theirs(human):
    larger = extend_vocabulary(human, both())
    (rows, bias), (old_rows, old_bias) = rows_of(larger), rows_of(human)
    np.testing.assert_array_equal(rows[: len(old_rows)], old_rows)
    np.testing.assert_array_equal(bias[: len(old_bias)], old_bias)
    for gene in range(N_SHARED):
        mouse = token_of(larger.vocabulary, gene, "mouse")
        partner = token_of(human.vocabulary, gene, "human")
        np.testing.assert_array_equal(rows[mouse], old_rows[partner])
        assert bias[mouse] == old_bias[partner]
    alone = [token_of(larger.vocabulary, gene, "mouse") for gene in range(N_SHARED, N_GENES)]
    assert not np.isin(rows[alone], old_rows).any()
    assert rows[alone].std() == pytest.approx(old_rows[4:].std(), rel=0.2)
    counts = larger.manifest["recipe"]["extended"]
    assert counts == {
        "sha256": human.sha256,
        "kept": N_GENES + len(SPECIAL),
        "orthologues": N_SHARED,
        "random": N_GENES - N_SHARED,
    }


def test_a_human_cell_is_read_as_before(human):
    larger = extend_vocabulary(human, both())
    cell = torch.tensor([2, 40, 10, 1, 33, 3])
    before = human.encoder(cell, [0, 6])
    torch.testing.assert_close(larger.encoder(cell, [0, 6]), before, rtol=0, atol=0)
    old = human.encoder.logits(before)
    torch.testing.assert_close(larger.encoder.logits(before)[:, : old.shape[1]], old)


def test_shared_tokens_and_another_order_of_tokens(human):
    """Into a vocabulary with one token for two orthologues, and other special tokens."""
    shared = vocabulary_of("shared")
    larger = extend_vocabulary(human, shared)
    rows, old_rows = rows_of(larger)[0], rows_of(human)[0]
    for gene in range(N_GENES):
        np.testing.assert_array_equal(
            rows[token_of(shared, gene, "human")],
            old_rows[token_of(human.vocabulary, gene, "human")],
        )
    np.testing.assert_array_equal(rows[shared.special["<mask>"]], old_rows[SPECIAL["<mask>"]])
    assert np.isfinite(rows[shared.special["<mouse>"]]).all()


def test_a_token_of_two_known_genes_starts_from_their_mean(human):
    larger = extend_vocabulary(human, both())
    rows = rows_of(larger)[0].copy()
    rows[len(rows_of(human)[0]) :] += 1
    with torch.no_grad():
        larger.encoder.bert.embeddings.word_embeddings.weight.copy_(torch.from_numpy(rows))
    shared = vocabulary_of("shared")
    again = rows_of(extend_vocabulary(larger, shared))[0]
    pair = [token_of(larger.vocabulary, 0, name) for name in ("human", "mouse")]
    np.testing.assert_allclose(again[token_of(shared, 0, "human")], rows[pair].mean(0), rtol=1e-6)


@pytest.mark.parametrize("mode", ["separate", "shared"])
def test_the_bundled_genes_of_the_other_species_are_added(mode):
    bundled = Vocabulary.bundled().genes.query("species == 'human'").iloc[:500]
    table = bundled[["ensembl_id", "median"]].assign(token=np.arange(500) + 2)
    human = Vocabulary.from_table(table, special={"<pad>": 0, "<mask>": 1}, mode="separate")
    larger = with_species(human, mode=mode)
    assert larger.species == ("human", "mouse")
    kept = larger.genes.set_index("ensembl_id").token[table.ensembl_id]
    assert (kept.to_numpy() == table.token.to_numpy()).all()
    mouse = larger.genes[larger.genes.species == "mouse"]
    assert len(mouse) == (Vocabulary.bundled().genes.species == "mouse").sum()
    n_pairs = int((bundled.group != "").sum())
    known = set(table.token)
    assert mouse.token.isin(known).sum() == (n_pairs if mode == "shared" else 0)
    assert ("<mouse>" in larger.special) == (mode == "shared")
    behind = mouse.token[~mouse.token.isin(known)]
    assert sorted(behind) == list(range(502, 502 + len(behind)))
    with pytest.raises(InputError, match="both species"):
        with_species(larger)


def test_nothing_in_common_is_refused(human):
    genes = pd.DataFrame({"ensembl_id": ["ENSG99999999999"], "median": [1.0], "token": [4]})
    other = Vocabulary.from_table(genes, special=SPECIAL)
    with pytest.raises(InputError, match="no gene in common"):
        extend_vocabulary(human, other)


def test_training_goes_on_from_the_extended_model(human, tmp_path):
    """Mouse cells are read with human rows from the first step on, and learned from."""
    options = {
        "recipe": "mix-geneformer",
        "objectives": {"mlm": 1.0},
        "max_length": 64,
        "tokens_per_step": 1024,
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
        "warmup": 0.1,
        "precision": "fp32",
        "learning_rate": 1e-2,
        "log_every": 10,
        "checkpoint_every": 20,
    }
    human_cells = write_cells(tmp_path / "human.h5ad", counts_of(120, seed=3))
    first = build_corpus(
        [human_cells], tmp_path / "first", vocabulary=human.vocabulary, min_genes=5
    )
    mouse_cells = write_cells(tmp_path / "mouse.h5ad", counts_of(60, seed=4), "mouse")
    second = build_corpus([mouse_cells], tmp_path / "second", vocabulary=both(), min_genes=5)
    learned = checkpoints.load(train(first, tmp_path / "one", start=human, steps=100, **options))
    larger = extend_vocabulary(learned, both())
    for name, start in (("from", larger), ("anew", None)):
        sizes = SIZES if start is None else {}
        train(second, tmp_path / name, start=start, steps=20, validation=second, **options, **sizes)
    began, anew = (
        [r for r in read_history(tmp_path / name / "history.jsonl") if r["kind"] == "validation"]
        for name in ("from", "anew")
    )
    # a mouse gene and its human twin begin alike, so the loss begins up to log 2 too high
    assert began[0]["mouse_mlm"] - np.log(2) < anew[0]["mouse_mlm"] - 0.5
    assert began[-1]["mouse_mlm"] < anew[-1]["mouse_mlm"] - 0.1
    saved = checkpoints.load(tmp_path / "from" / "final")
    assert saved.manifest["recipe"]["start"]["sha256"] == larger.sha256
    assert saved.config.max_position_embeddings == 64


def test_a_start_that_does_not_fit_is_refused(human, corpus, tmp_path):
    with pytest.raises(InputError, match=r"extend_vocabulary\(model, corpus.vocabulary\)"):
        train(corpus, tmp_path, "mix-geneformer-x", start=human, steps=1)
    with pytest.raises(InputError, match="hidden_size=32, but the model to start from has 16"):
        train(corpus, tmp_path, "mix-geneformer-x", start=human, hidden_size=32)
    with pytest.raises(InputError, match=r"max_length=128.* at most 64"):
        train(corpus, tmp_path, "mix-geneformer-x", start=human, max_length=128)
