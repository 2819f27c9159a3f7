"""Round trips: through our own folder, to transformers and back."""

import errno
import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

from scmix import checkpoints
from scmix._errors import IncompatibleModelError, InputError, ModelFileError, ResourceError
from scmix.checkpoints import Model
from scmix.encoder import Config, Encoder
from scmix.genes import Vocabulary

Save = Callable[..., Path]
LENGTHS = (5, 1, 9)


def assert_same_weights(one: Encoder, other: Encoder) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def assert_same_outputs(encoder: Encoder, bert: BertForMaskedLM) -> None:
    """Every hidden state and the logits of every token, cell by cell, to 1e-5."""
    tokens = torch.arange(sum(LENGTHS)) % encoder.config.vocab_size
    indptr = [0, *np.cumsum(LENGTHS).tolist()]
    with torch.no_grad():
        hidden = encoder(tokens, indptr, all_layers=True)
        logits = encoder.logits(hidden[-1])
        for start, stop in pairwise(indptr):
            out = bert.eval()(tokens[None, start:stop], output_hidden_states=True)
            for ours, theirs in zip(hidden, out.hidden_states, strict=True):
                torch.testing.assert_close(ours[start:stop], theirs[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(logits[start:stop], out.logits[0], atol=1e-5, rtol=1e-5)


@pytest.fixture
def bert(config: Config) -> BertForMaskedLM:
    torch.manual_seed(0)
    settings = {k: v for k, v in config.to_dict().items() if k not in ("architectures",)}
    return BertForMaskedLM(BertConfig(**settings))


@pytest.fixture
def plain(bert: BertForMaskedLM, tmp_path: Path) -> Path:
    bert.save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def test_round_trip(model: Model, saved: Path) -> None:
    loaded = checkpoints.load(saved)
    assert_same_weights(loaded.encoder, model.encoder)
    assert loaded.config == model.config
    assert loaded.vocabulary.sha256 == model.vocabulary.sha256
    assert (loaded.name, loaded.path) == ("tiny", saved)
    assert loaded.manifest["recipe"] == {"epochs": 1}
    assert loaded.manifest["training_data"] == ["a"]
    assert loaded.manifest["licence"] == "CC0-1.0"
    assert not loaded.encoder.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in loaded.encoder.parameters())
    weights = (saved / "model.safetensors").read_bytes()
    assert loaded.sha256 == model.sha256 == hashlib.sha256(weights).hexdigest()


def test_the_manifest_lists_every_other_file(model: Model, save: Save) -> None:
    folder = save(model, card="# A tiny model\n")
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert {path.name for path in folder.iterdir()} == {*files, "manifest.json"}
    for name, entry in files.items():
        content = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert (folder / "README.md").read_text() == "# A tiny model\n"


def test_float16_storage(model: Model, save: Save) -> None:
    half, full = save(model, "half", dtype="float16"), save(model, "full")
    weights = "model.safetensors"
    assert (half / weights).stat().st_size < 0.7 * (full / weights).stat().st_size
    loaded = checkpoints.load(half)
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(loaded.encoder.state_dict()[name], tensor.half().float())
    again = save(loaded, "again", dtype="float16")
    assert (again / weights).read_bytes() == (half / weights).read_bytes()


def test_numbers_too_large_for_float16_are_refused(model: Model, save: Save) -> None:
    with torch.no_grad():
        model.encoder.cls.predictions.bias[0] = 1e6
    with pytest.raises(
        InputError, match=r'cls\.predictions\.bias as float16; pass dtype="float32"'
    ):
        save(model, dtype="float16")
    save(model)


def test_nan_is_never_saved(model: Model, save: Save, tmp_path: Path) -> None:
    with torch.no_grad():
        model.encoder.cls.predictions.bias[0] = torch.nan
    with pytest.raises(InputError, match=r"NaN or infinite numbers in cls\.predictions\.bias"):
        save(model)
    assert list(tmp_path.iterdir()) == []


def test_pooler_is_kept(config: Config, vocabulary: Vocabulary, save: Save) -> None:
    model = checkpoints.untrained(config, vocabulary, pooler=True)
    loaded = checkpoints.load(save(model))
    assert loaded.encoder.has_pooler
    assert_same_weights(loaded.encoder, model.encoder)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_opens_in_transformers(model: Model, save: Save, dtype: str) -> None:
    folder = save(model, dtype=dtype)
    bert, info = BertForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    assert bert.dtype == torch.float32
    assert_same_outputs(checkpoints.load(folder).encoder, bert)


@pytest.mark.parametrize("act", ["silu", "gelu", "relu"])
def test_opens_from_transformers(
    config: Config, vocabulary: Vocabulary, tmp_path: Path, act: str
) -> None:
    settings = replace(config, hidden_act=act).to_dict()
    bert = BertForMaskedLM(BertConfig(**settings))
    bert.save_pretrained(tmp_path / "plain")
    loaded = checkpoints.load(tmp_path / "plain", vocabulary=vocabulary)
    assert not loaded.encoder.has_pooler
    assert_same_outputs(loaded.encoder, bert)


def test_transformers_and_back_changes_nothing(model: Model, saved: Path, tmp_path: Path) -> None:
    BertForMaskedLM.from_pretrained(saved).save_pretrained(tmp_path / "back")
    loaded = checkpoints.load(tmp_path / "back", vocabulary=model.vocabulary)
    assert_same_weights(loaded.encoder, model.encoder)


def test_a_folder_of_transformers_4(scmix_data: Path, make_vocabulary: Callable) -> None:
    folder = scmix_data / "reference" / "perturbation" / "model_v1style"
    vocabulary = make_vocabulary(60)
    n_tokens = json.loads((folder / "config.json").read_text())["vocab_size"]
    assert vocabulary.n_tokens == n_tokens
    loaded = checkpoints.load(folder, vocabulary=vocabulary)
    assert_same_outputs(loaded.encoder, BertForMaskedLM.from_pretrained(folder))


def test_a_bfloat16_file_with_a_pooler_and_tied_copies(
    bert: BertForMaskedLM, plain: Path, vocabulary: Vocabulary
) -> None:
    width, n_positions = bert.config.hidden_size, bert.config.max_position_embeddings
    tensors = {k: v.bfloat16().clone() for k, v in bert.state_dict().items()}
    tensors["bert.pooler.dense.weight"] = torch.ones(width, width)
    tensors["bert.pooler.dense.bias"] = torch.ones(width)
    tensors["bert.embeddings.position_ids"] = torch.arange(n_positions)[None]
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})
    loaded = checkpoints.load(plain, vocabulary=vocabulary)
    assert loaded.encoder.has_pooler
    assert_same_outputs(loaded.encoder, bert.bfloat16().float())


def test_untied_decoder_is_refused(plain: Path, vocabulary: Vocabulary) -> None:
    tensors = load_file(plain / "model.safetensors")
    embeddings = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder.weight"] = embeddings + 1
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(IncompatibleModelError, match="tied"):
        checkpoints.load(plain, vocabulary=vocabulary)


def test_plain_folder_needs_a_vocabulary(plain: Path) -> None:
    with pytest.raises(IncompatibleModelError, match="Pass vocabulary="):
        checkpoints.load(plain)


def test_vocabulary_of_another_size(plain: Path, make_vocabulary: Callable) -> None:
    with pytest.raises(IncompatibleModelError, match=r"has vocab_size 32, its vocabulary 42 tok"):
        checkpoints.load(plain, vocabulary=make_vocabulary(40))


def test_vocabulary_that_differs_from_the_models_own(
    saved: Path, vocabulary: Vocabulary, make_vocabulary: Callable
) -> None:
    checkpoints.load(saved, vocabulary=vocabulary)
    with pytest.raises(IncompatibleModelError, match="trained with another vocabulary"):
        checkpoints.load(saved, vocabulary=make_vocabulary(40))


def test_other_tasks_are_refused(bert: BertForMaskedLM, plain: Path, vocabulary) -> None:
    bert.bert.save_pretrained(plain)
    with pytest.raises(IncompatibleModelError, match=r"describes \['BertModel'\]"):
        checkpoints.load(plain, vocabulary=vocabulary)


def test_weights_as_a_pickle_are_refused_with_the_next_step(plain: Path, vocabulary) -> None:
    torch.save({}, plain / "pytorch_model.bin")
    (plain / "model.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"pytorch_model\.bin, a Python pickle.*save_pretrain"):
        checkpoints.load(plain, vocabulary=vocabulary)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": {"a": {1, 2}}}, "JSON cannot hold"),
        ({"recipe": {"loss": float("nan")}}, "JSON cannot hold"),
        ({"recipe": [1]}, "expected a dict and a list"),
        ({"training_data": "pbmc"}, "expected a dict and a list"),
        ({"licence": " "}, "licence"),
        ({"dtype": "bfloat16"}, "dtype='bfloat16', expected one of float32, float16"),
    ],
)
def test_save_refuses(
    model: Model, save: Save, tmp_path: Path, options: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        save(model, **options)
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_the_vocabulary(
    model: Model, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Vocabulary, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Vocabulary, "write", full)
    with pytest.raises(ResourceError, match=r"No space left on device.*TMPDIR"):
        save(model)
    assert list(tmp_path.iterdir()) == []


def test_save_refuses_a_vocabulary_of_another_size(
    model: Model, save: Save, make_vocabulary: Callable
) -> None:
    with pytest.raises(InputError, match="vocab_size 32 in the configuration and 42 tokens"):
        save(replace(model, vocabulary=make_vocabulary(40)))


def test_untrained_depends_on_the_seed_alone(config: Config, vocabulary: Vocabulary) -> None:
    torch.manual_seed(1)
    one = checkpoints.untrained(config, vocabulary, seed=5)
    torch.manual_seed(2)
    same = checkpoints.untrained(config, vocabulary, seed=5)
    other = checkpoints.untrained(config, vocabulary, seed=6)
    assert_same_weights(one.encoder, same.encoder)
    assert one.sha256 == same.sha256 != other.sha256
    with pytest.raises(InputError, match="seed=-1"):
        checkpoints.untrained(config, vocabulary, seed=-1)


def test_global_random_state_is_left_alone(model: Model, save: Save) -> None:
    before = torch.random.get_rng_state(), random.getstate()
    checkpoints.untrained(model.config, model.vocabulary, seed=1)
    checkpoints.load(save(model))
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == random.getstate()


def test_a_model_is_returned_as_it_is(model: Model) -> None:
    assert checkpoints.load(model) is model


def test_repr(saved: Path) -> None:
    model = checkpoints.load(saved)
    assert repr(model).splitlines() == [
        "Model 'tiny': 2 layers, width 16, 2 heads, 0.01 M parameters",
        "  vocabulary: shared, 15 human, 15 mouse genes, 32 tokens",
        f"  sha256: {model.sha256[:12]}",
    ]
    assert model.n_parameters == sum(p.numel() for p in model.encoder.parameters())
