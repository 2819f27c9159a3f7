"""A value decoder beside the encoder: stored, checked and loaded like the weights."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from scmix import checkpoints, models
from scmix._errors import InputError
from scmix.checkpoints import Model
from scmix.decoders import Settings, ValueDecoder
from scmix.encoder import Config

FILES = ("decoder.json", "decoder.safetensors")
SIZES = {"width": 8, "num_layers": 1, "num_heads": 2, "intermediate_size": 12, "n_bins": 5}

Forge = Callable[[Path, str, bytes], None]
Refused = Callable[..., None]


@pytest.fixture(params=["value_autoencoder", "restore"])
def decoder(request: pytest.FixtureRequest, config: Config) -> ValueDecoder:
    torch.manual_seed(0)
    made = ValueDecoder(Settings(request.param, reads_depth=True, **SIZES), config)
    for tensor in made.state_dict().values():
        tensor.normal_()
    return made


@pytest.fixture
def with_decoder(model: Model, decoder: ValueDecoder, save: Callable[..., Path]) -> Path:
    return save(model, decoder=decoder)


def test_round_trip(model: Model, decoder: ValueDecoder, with_decoder: Path) -> None:
    loaded = checkpoints.load(with_decoder).decoder
    assert loaded is not None
    assert loaded.settings == decoder.settings
    assert not loaded.training
    assert loaded.state_dict().keys() == decoder.state_dict().keys()
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    described = json.loads((with_decoder / "manifest.json").read_text())
    assert set(FILES) < set(described["files"])
    assert described["format_version"] == 2
    encoder = checkpoints.load(with_decoder).encoder.state_dict()
    assert all(torch.equal(x, encoder[name]) for name, x in model.encoder.state_dict().items())


def test_half_precision(decoder: ValueDecoder, model: Model, save: Callable[..., Path]) -> None:
    loaded = checkpoints.load(save(model, decoder=decoder, dtype="float16")).decoder
    assert loaded is not None
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float()), name


def test_loading_draws_no_random_numbers(with_decoder: Path) -> None:
    before = torch.get_rng_state()
    checkpoints.load(with_decoder)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_without_one(saved: Path) -> None:
    assert checkpoints.load(saved).decoder is None
    assert json.loads((saved / "manifest.json").read_text())["format_version"] == 1
    assert models.untrained(saved).decoder is None


def test_a_decoder_of_another_encoder(
    model: Model, config: Config, save: Callable[..., Path]
) -> None:
    other = ValueDecoder(Settings("restore", **SIZES), Config(vocab_size=9, hidden_size=4))
    with pytest.raises(InputError, match=r"width 4 and 9 tokens, .* width 16 with 32 tokens"):
        save(model, decoder=other)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit(with_decoder: Path, name: str, refused: Refused) -> None:
    content = bytearray((with_decoder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (with_decoder / name).write_bytes(content)
    refused(with_decoder, f"{name} has sha256")


@pytest.mark.parametrize("name", FILES)
def test_one_of_two_files(with_decoder: Path, name: str, refused: Refused) -> None:
    content = json.loads((with_decoder / "manifest.json").read_text())
    del content["files"][name]
    (with_decoder / "manifest.json").write_text(json.dumps(content))
    refused(with_decoder, "lists only one of decoder.json and decoder.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "pickle"},
        {"width": 10**9},
        {"num_layers": 1.0},
        {"n_bins": None},
        {"total": 1},
        {"unknown": 1},
    ],
)
def test_hostile_settings(with_decoder: Path, forge: Forge, change: dict, refused: Refused) -> None:
    content = json.loads((with_decoder / "decoder.json").read_text()) | change
    forge(with_decoder, "decoder.json", json.dumps(content).encode())
    refused(with_decoder, "does not describe a value decoder")


def test_missing_setting(with_decoder: Path, forge: Forge, refused: Refused) -> None:
    content = json.loads((with_decoder / "decoder.json").read_text())
    del content["width"]
    forge(with_decoder, "decoder.json", json.dumps(content).encode())
    refused(with_decoder, "does not describe a value decoder")


def test_tensors_must_be_those_of_the_settings(
    with_decoder: Path, forge: Forge, refused: Refused
) -> None:
    tensors = from_safetensors((with_decoder / FILES[1]).read_bytes())
    smaller = {**tensors, "mean": tensors["mean"][:, :-1].contiguous()}
    forge(with_decoder, FILES[1], to_safetensors(smaller))
    refused(with_decoder, r"holds mean as F32 \[2, 31\]")
    del tensors["anchor"]
    forge(with_decoder, FILES[1], to_safetensors(tensors))
    refused(with_decoder, r"1 \(anchor\) missing")


def test_values_that_are_not_finite(with_decoder: Path, forge: Forge, refused: Refused) -> None:
    tensors = from_safetensors((with_decoder / FILES[1]).read_bytes())
    tensors["scale"][0, 0] = torch.nan
    forge(with_decoder, FILES[1], to_safetensors(tensors))
    refused(with_decoder, "NaN or infinite numbers in scale")
