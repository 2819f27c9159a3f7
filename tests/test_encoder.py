import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM

from scmix._errors import IncompatibleModelError, InputError
from scmix.batches import Sequences
from scmix.encoder import Config, Encoder

CONFIG = Config(
    vocab_size=80,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=40,
)
LENGTHS = [5, 5, 40, 1, 7]


def wild(model, seed=0):
    """Every parameter drawn anew, so that none is zero or one."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.25, generator=generator)
    return model.eval()


def cells(lengths=LENGTHS, seed=0):
    rng = np.random.default_rng(seed)
    return Sequences.from_list([rng.integers(2, CONFIG.vocab_size, n) for n in lengths])


def flat(sequences):
    return torch.from_numpy(sequences.tokens), sequences.indptr


def transformers_model(config=CONFIG):
    return wild(BertForMaskedLM(BertConfig(**config.to_dict())))


@torch.no_grad()
def assert_equal_outputs(encoder, reference):
    sequences = cells()
    hidden = encoder(*flat(sequences), all_layers=True)
    logits = encoder.logits(hidden[-1])
    for i, tokens in enumerate(sequences):
        expected = reference(torch.from_numpy(tokens).long()[None], output_hidden_states=True)
        span = slice(*sequences.indptr[[i, i + 1]])
        assert len(hidden) == len(expected.hidden_states)
        for found, states in zip(hidden, expected.hidden_states, strict=True):
            torch.testing.assert_close(found[span], states[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(logits[span], expected.logits[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("act", ["silu", "gelu", "gelu_new", "relu"])
def test_equals_transformers_with_its_state_dict(act):
    config = replace(CONFIG, hidden_act=act)
    reference = transformers_model(config)
    encoder = Encoder(config).eval()
    encoder.load_state_dict(reference.state_dict())
    assert_equal_outputs(encoder, reference)


def test_transformers_equals_with_our_state_dict():
    encoder = wild(Encoder(CONFIG))
    reference = BertForMaskedLM(BertConfig(**CONFIG.to_dict())).eval()
    result = reference.load_state_dict(encoder.state_dict(), strict=False)
    tied = ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"]
    assert sorted(result.missing_keys) == sorted(tied)
    assert result.unexpected_keys == []
    assert_equal_outputs(encoder, reference)


def test_pooler_equals_transformers():
    from transformers import BertModel

    reference = wild(BertModel(BertConfig(**CONFIG.to_dict())))
    state = {f"bert.{name}": value for name, value in reference.state_dict().items()}
    head = {k: v for k, v in Encoder(CONFIG).state_dict().items() if k.startswith("cls.")}
    encoder = Encoder(CONFIG, pooler=True).eval()
    encoder.load_state_dict({**state, **head})
    tokens = torch.arange(10, 19)
    found = encoder.pooler(encoder(tokens, [0, 9])[:1])
    torch.testing.assert_close(found, reference(tokens[None]).pooler_output, atol=1e-5, rtol=0)


def test_no_pooler():
    with pytest.raises(InputError, match="no pooler"):
        Encoder(CONFIG).pooler(torch.zeros(1, 32))


def test_untied_decoder_is_refused():
    state = transformers_model().state_dict()
    state["cls.predictions.decoder.weight"] = state["cls.predictions.decoder.weight"] + 1
    with pytest.raises(IncompatibleModelError, match="tied"):
        Encoder(CONFIG).load_state_dict(state)


def test_foreign_parameters_are_refused():
    state = Encoder(CONFIG).state_dict()
    with pytest.raises(RuntimeError, match="classifier"):
        Encoder(CONFIG).load_state_dict({**state, "classifier.weight": torch.zeros(2, 2)})
    del state["bert.encoder.layer.1.output.dense.bias"]
    with pytest.raises(RuntimeError, match=r"layer\.1\.output\.dense\.bias"):
        Encoder(CONFIG).load_state_dict(state)


def test_published_embeddings(scmix_data):
    folder = scmix_data / "reference" / "perturbation"
    config = Config.from_dict(json.loads((folder / "model_v1style/config.json").read_text()))
    encoder = Encoder(config).eval()
    encoder.load_state_dict(load_file(folder / "model_v1style/model.safetensors"))
    data = json.loads((folder / "d1.json").read_text())
    sequences = Sequences.from_list(data["input_ids"])
    for geneformer_layer, layer in ((0, -1), (-1, -2)):
        table = pd.read_csv(folder / f"emb_cell_V1_layer{geneformer_layer}.csv", index_col=0)
        expected = table.set_index("cid").loc[data["cid"]].to_numpy()
        with torch.no_grad():
            hidden = encoder(*flat(sequences), layer=layer)
            found = encoder.pool(hidden, sequences.indptr).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


@torch.no_grad()
def test_what_is_added_goes_to_the_word_embeddings():
    reference = transformers_model()
    encoder = Encoder(CONFIG).eval()
    encoder.load_state_dict(reference.state_dict())
    tokens, indptr = flat(cells([9]))
    added = torch.randn(9, CONFIG.hidden_size)
    words = reference.bert.embeddings.word_embeddings(tokens.long()) + added
    expected = reference.bert(inputs_embeds=words[None]).last_hidden_state[0]
    torch.testing.assert_close(encoder(tokens, indptr, added=added), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layer", [-4, -2, -1, 0, 2, 3])
def test_layers_not_needed_are_not_run(layer):
    encoder = wild(Encoder(CONFIG))
    every = encoder(*flat(cells()), all_layers=True)
    ran = []
    for block in encoder.bert.encoder.layer:
        block.register_forward_hook(lambda *_: ran.append(1))
    found = encoder(*flat(cells()), layer=layer)
    assert torch.equal(found, every[layer])
    assert len(ran) == range(4)[layer]


@pytest.mark.parametrize("layer", [4, -5])
def test_layer_that_is_not_there(layer):
    with pytest.raises(InputError, match="hidden states 0"):
        Encoder(CONFIG)(*flat(cells()), layer=layer)


def test_lengths_are_checked():
    encoder = Encoder(CONFIG)
    with pytest.raises(InputError, match=r"41 tokens; .* at most 40"):
        encoder(torch.ones(41, dtype=torch.int64), [0, 41])
    with pytest.raises(InputError, match="ends at 4, but there are 5"):
        encoder(torch.ones(5, dtype=torch.int64), [0, 4])


def test_pool_is_the_mean_of_kept_tokens():
    hidden = torch.randn(6, 4)
    keep = torch.tensor([True, False, True, True, False, False])
    encoder = Encoder(CONFIG)
    found = encoder.pool(hidden, [0, 3, 4, 6], keep)
    torch.testing.assert_close(found[:2], torch.stack([hidden[[0, 2]].mean(0), hidden[3]]))
    assert found[2].isnan().all()
    every = encoder.pool(hidden.bfloat16(), torch.tensor([0, 2, 6]))
    assert every.dtype == torch.float32
    expected = hidden.bfloat16().float()
    torch.testing.assert_close(every, torch.stack([expected[:2].mean(0), expected[2:].mean(0)]))


@pytest.mark.parametrize("keep", [None, torch.tensor([True, False, True, True, True])])
def test_pool_has_a_gradient(keep):
    hidden = torch.randn(5, 3, dtype=torch.float32, requires_grad=True)
    Encoder(CONFIG).pool(hidden, [0, 3, 5], keep)[0].sum().backward()
    share = torch.full((3,), 1 / 3) if keep is None else keep[:3] / 2
    torch.testing.assert_close(hidden.grad[:, 0], torch.cat([share, torch.zeros(2)]))


def test_training_in_bfloat16_follows_float32():
    config = replace(CONFIG, hidden_dropout_prob=0.0)
    gradients = []
    for enabled in (False, True):
        encoder = wild(Encoder(config)).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            hidden = encoder(*flat(cells()))
            loss = encoder.logits(hidden[:20]).float().logsumexp(1).mean() + hidden.float().std()
        loss.backward()
        used = [p.grad for name, p in encoder.named_parameters() if "bias" not in name]
        assert all(p.dtype == torch.float32 for p in encoder.parameters())
        gradients.append(torch.cat([grad.flatten() for grad in used]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98


def test_every_parameter_learns():
    encoder = wild(Encoder(CONFIG, pooler=True)).train()
    hidden = encoder(*flat(cells()))
    (encoder.logits(hidden).logsumexp(1).sum() + encoder.pooler(hidden[:3]).sum()).backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


def test_attention_dropout_is_applied_in_training_only():
    encoder = wild(
        Encoder(replace(CONFIG, attention_probs_dropout_prob=0.5, hidden_dropout_prob=0))
    )
    before = encoder(*flat(cells()))
    assert torch.equal(encoder(*flat(cells())), before)
    assert not torch.allclose(encoder.train()(*flat(cells())), before)


def test_config_round_trip():
    assert Config.from_dict(CONFIG.to_dict()) == CONFIG
    assert Config.from_dict(BertConfig(**CONFIG.to_dict()).to_dict()) == CONFIG


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"hidden_act": "mish"}, "hidden_act='mish', expected one of"),
        ({"num_attention_heads": 5}, "not a multiple"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob"),
    ],
)
def test_config_of_another_computation_is_refused(change, message):
    with pytest.raises(IncompatibleModelError, match=message):
        Config.from_dict({**CONFIG.to_dict(), **change})


def test_config_must_state_its_sizes():
    values = CONFIG.to_dict()
    del values["hidden_size"], values["vocab_size"]
    with pytest.raises(IncompatibleModelError, match="hidden_size, vocab_size"):
        Config.from_dict(values)
