"""Damaged and hostile weights: refused with a reason, before they are used, and cheaply."""

import gzip
import json
import os
import pickle
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from scmix import checkpoints
from scmix._errors import ModelFileError
from scmix.checkpoints import Model

FILES = ("model.safetensors", "config.json", "vocabulary.csv.gz", "manifest.json")
BIAS = "cls.predictions.bias"

Forge = Callable[[Path, str, bytes], None]
Refused = Callable[..., None]


def header_of(content: bytes) -> tuple[dict, bytes]:
    n_header = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + n_header]), content[8 + n_header :]


def with_header(header: dict | bytes, data: bytes) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


@pytest.mark.parametrize("name", FILES[:3])
def test_one_flipped_bit(saved: Path, name: str, refused: Refused) -> None:
    content = bytearray((saved / name).read_bytes())
    content[len(content) // 2] ^= 1
    (saved / name).write_bytes(content)
    refused(saved, f"{name} has sha256 .* damaged or changed after saving")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 1, 7, 100, -2])
def test_truncated(saved: Path, name: str, keep: int, refused: Refused) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[:keep])
    refused(saved, name.replace(".", r"\."))


@pytest.mark.parametrize("keep", [8, 100, -1])
def test_truncated_weights_are_seen_without_the_manifest(
    saved: Path, forge: Forge, keep: int, refused: Refused
) -> None:
    forge(saved, FILES[0], (saved / FILES[0]).read_bytes()[:keep])
    refused(saved, "truncated")


@pytest.mark.parametrize("name", FILES[:3])
def test_missing(saved: Path, name: str, refused: Refused) -> None:
    (saved / name).unlink()
    refused(saved, name.replace(".", r"\."))


def test_verify_false_skips_the_hash_but_no_other_check(saved: Path, refused: Refused) -> None:
    path = saved / FILES[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    checkpoints.load(saved, verify=False)
    path.write_bytes(content + b"\0")
    refused(saved, "bytes, expected", verify=False)


class Payload:
    def __reduce__(self):
        return (os.mkdir, (os.environ["SCMIX_TEST_TRAP"],))


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that appears if anything in a file is run."""
    monkeypatch.setenv("SCMIX_TEST_TRAP", str(tmp_path / "trap"))
    yield tmp_path / "trap"
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("maker", [pickle.dumps, lambda value: torch_bytes(value)])
def test_renamed_pickles_are_never_run(
    saved: Path, forge: Forge, trap: Path, name: str, maker: Callable, refused: Refused
) -> None:
    forge(saved, name, maker(Payload()))
    refused(saved, name.replace(".", r"\."))


def torch_bytes(value: object) -> bytes:

    buffer = BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_the_trap_works(trap: Path) -> None:
    pickle.loads(pickle.dumps(Payload()))
    assert trap.exists()
    trap.rmdir()


def test_a_renamed_pickle_is_called_one(saved: Path, forge: Forge, refused: Refused) -> None:
    forge(saved, FILES[0], torch_bytes({"a": 1}))
    refused(saved, "not a safetensors file: a Python pickle")


@pytest.mark.parametrize("n_header", [0, 1, 2**20 + 1, 2**40, 2**64 - 1])
def test_length_of_the_header(saved: Path, forge: Forge, n_header: int, refused: Refused) -> None:
    content = (saved / FILES[0]).read_bytes()
    forge(saved, FILES[0], struct.pack("<Q", n_header) + content[8:])
    refused(saved, "not a safetensors file")


def test_more_tensors_than_any_model_has(saved: Path, forge: Forge, refused: Refused) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    many = dict.fromkeys(map(str, range(10_001)), entry)
    forge(saved, FILES[0], with_header(many, b""))
    refused(saved, "names 10,001 tensors, expected at most 10,000")


@pytest.mark.parametrize(
    "raw",
    [
        b'{"' + b'\\"' * 500_000,
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b'{"a":' + b"9" * 1_000_000 + b"}",
        b'{"a":0.' + b"9" * 1_000_000 + b"}",
        b"{" + b",".join(b'"%d":0' % (i % 70_000) for i in range(70_001)) + b"}",
        b"\xff\xfe" * 1000,
        b'{"__metadata__": {"a": 1}}',
        b'{"__metadata__": []}',
        b"[]",
        b"null",
    ],
    ids=range(11),
)
def test_hostile_json(saved: Path, forge: Forge, raw: bytes, refused: Refused) -> None:
    forge(saved, FILES[0], with_header(raw, b""))
    refused(saved, FILES[0])
    for name in ("config.json", "manifest.json"):
        (saved / name).write_bytes(raw)
        refused(saved, "json")


def test_duplicate_names(saved: Path, forge: Forge, refused: Refused) -> None:
    header, data = header_of((saved / FILES[0]).read_bytes())
    text = json.dumps(header)[:-1] + f', "{BIAS}": {json.dumps(header[BIAS])}}}'
    forge(saved, FILES[0], with_header(text.encode(), data))
    refused(saved, f"key '{BIAS}' appears more than once")


def _overlap(header: dict) -> None:
    start = min(e["data_offsets"] for n, e in header.items() if n != "__metadata__")[0]
    length = header[BIAS]["data_offsets"][1] - header[BIAS]["data_offsets"][0]
    header[BIAS]["data_offsets"] = [start + 4, start + 4 + length]


CHANGES = {
    "overlap": (_overlap, "overlaps the tensor before it"),
    "hole": (
        lambda h: [
            e.update(data_offsets=[o + 4 for o in e["data_offsets"]])
            for n, e in h.items()
            if n != "__metadata__"
        ],
        "leaves a hole",
    ),
    "shape": (lambda h: h[BIAS].update(shape=[16, 2]), r"as F32 \[16, 2\], expected F32.*\[32\]"),
    "size": (lambda h: h[BIAS].update(shape=[31]), "a size that follows from its shape"),
    "huge": (lambda h: h[BIAS].update(shape=[2**40, 2**40]), "a size that follows from its shape"),
    "negative": (lambda h: h[BIAS].update(shape=[-4, -8]), "none negative"),
    "true": (lambda h: h[BIAS].update(shape=[True, 32]), "none negative"),
    "fraction": (lambda h: h[BIAS].update(shape=[32.0]), "none negative"),
    "backwards": (lambda h: h[BIAS]["data_offsets"].reverse(), "a size that follows"),
    "offsets": (lambda h: h[BIAS].update(data_offsets=[0]), "two offsets"),
    "dtype": (lambda h: h[BIAS].update(dtype="I32"), "a dtype among F32"),
    "dtype list": (lambda h: h[BIAS].update(dtype=["F32"]), "a dtype among F32"),
    "integers": (lambda h: h[BIAS].update(dtype="I64", shape=[16]), r"as I64 \[16\], expected F32"),
    "more": (lambda h: h[BIAS].update(code="x"), "expected dtype, shape and data_offsets"),
    "name": (
        lambda h: h.update({"evil": h.pop(BIAS)}),
        r"1 \(cls.predictions.bias\) missing, 1 \(",
    ),
    "empty": (
        lambda h: h.update(evil={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
        "above zero",
    ),
    "entry": (lambda h: h.update({BIAS: 3}), "expected dtype, shape and data_offsets"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_headers_that_lie(saved: Path, forge: Forge, change: str, refused: Refused) -> None:
    header, data = header_of((saved / FILES[0]).read_bytes())
    damage, message = CHANGES[change]
    damage(header)
    forge(saved, FILES[0], with_header(header, data))
    refused(saved, message)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(
    saved: Path, forge: Forge, value: float, refused: Refused
) -> None:
    tensors = from_safetensors((saved / FILES[0]).read_bytes())
    tensors[BIAS][3] = value
    forge(saved, FILES[0], to_safetensors(tensors))
    refused(saved, f"NaN or infinite numbers in {BIAS}")


@pytest.fixture(scope="session")
def original(config, vocabulary, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    model = checkpoints.untrained(config, vocabulary, seed=3)
    checkpoints.save(folder, model.encoder, vocabulary, recipe={}, training_data=[], licence="x")
    return folder


mutations = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "delete", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=5,
)


def mutate(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, where, new in changes:
        at = int(where * len(content))
        if kind == "set":
            content = content[:at] + new + content[at + len(new) :]
        elif kind == "insert":
            content = content[:at] + new + content[at:]
        elif kind == "delete":
            content = content[:at] + content[at + len(new) :]
        else:
            content = content[:at] + content[at : at + 200] * 2 + content[at + 200 :]
    return content


def load_mutated(original: Path, name: str, content: bytes, forge: Forge) -> Model | None:
    folder = original.with_name("mutated")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder)
    forge(folder, name, content)
    start = time.process_time()
    try:
        return checkpoints.load(folder)
    except ModelFileError:
        return None
    finally:
        assert time.process_time() - start < 2


fuzz = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def plainly_write(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)


@fuzz
@given(name=st.sampled_from(FILES), changes=mutations)
def test_mutated_files(original: Path, name: str, changes: list) -> None:
    content = mutate((original / name).read_bytes(), changes)
    loaded = load_mutated(original, name, content, plainly_write)
    if loaded is not None:
        assert name == "manifest.json" or content == (original / name).read_bytes()
        assert loaded.sha256 == checkpoints.load(original).sha256


@fuzz
@given(name=st.sampled_from(FILES), changes=mutations, in_header=st.booleans())
def test_mutated_files_that_the_manifest_vouches_for(
    original: Path, forge: Forge, name: str, changes: list, in_header: bool
) -> None:
    content = (original / name).read_bytes()
    if name == FILES[2]:
        content = gzip.compress(mutate(gzip.decompress(content), changes), mtime=0)
    elif name == FILES[0] and in_header:  # where mutations are most likely to be understood
        header, data = header_of(content)
        content = with_header(mutate(json.dumps(header).encode(), changes), data)
    else:
        content = mutate(content, changes)
    loaded = load_mutated(original, name, content, forge)
    if loaded is not None:
        weights = loaded.encoder.state_dict()
        assert all(torch.isfinite(tensor).all() for tensor in weights.values())
        assert loaded.config.vocab_size == loaded.vocabulary.n_tokens


@fuzz
@given(content=st.binary(max_size=300), name=st.sampled_from(FILES))
def test_arbitrary_bytes(original: Path, forge: Forge, name: str, content: bytes) -> None:
    assert load_mutated(original, name, content, forge) is None
