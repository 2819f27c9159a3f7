"""Hostile configurations, vocabularies, manifests and folders: refused with a reason, cheaply."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scmix import checkpoints
from scmix._errors import IncompatibleModelError, InputError, ModelFileError

FILES = ("model.safetensors", "config.json", "vocabulary.csv.gz", "manifest.json")

Forge = Callable[[Path, str, bytes], None]
Refused = Callable[..., None]


HOSTILE_CONFIG = {
    "auto_map": ({"auto_map": {"AutoModel": "evil.Model"}}, "asks for code of its own"),
    "extra": ({"vocab_sise": 3}, r"unknown key 'vocab_sise' \(did you mean 'vocab_size'\?\)"),
    "path": ({"vocab_file": "../../etc/passwd"}, "unknown key 'vocab_file'"),
    "huge": ({"hidden_size": 10**17}, "expected an integer from 1 to 16,384"),
    "float": ({"num_hidden_layers": 2.0}, "expected an integer from 1 to 256"),
    "bool": ({"num_hidden_layers": True}, "expected an integer from 1 to 256"),
    "text": ({"vocab_size": "32"}, "expected an integer from 1"),
    "zero": ({"num_attention_heads": 0}, "expected an integer from 1"),
    "heads": ({"num_attention_heads": 3}, "expected a divisor of hidden_size = 16"),
    "dropout": ({"hidden_dropout_prob": 1.5}, "expected a number from 0 to below 1"),
    "eps": ({"layer_norm_eps": -1}, "expected a number above 0"),
    "act": ({"hidden_act": ["silu"]}, "expected a name"),
    "act name": ({"hidden_act": "__import__"}, "Found hidden_act='__import__'"),
    "relative": ({"position_embedding_type": "relative_key"}, "does not compute"),
    "decoder": ({"is_decoder": True}, "does not compute"),
    "untied": ({"tie_word_embeddings": False}, "does not compute"),
    "type": ({"model_type": "llama"}, "does not compute"),
    "classifier": ({"architectures": ["BertForSequenceClassification"]}, "expected .'BertForMask"),
    "layers": ({"num_hidden_layers": 200}, "missing"),
    "wide": ({"hidden_size": 16_384, "num_attention_heads": 1}, r"expected F32 or .* 16384\]"),
    "vocabulary": ({"vocab_size": 1_000_000}, "its vocabulary 32 tokens"),
}


@pytest.mark.parametrize("case", HOSTILE_CONFIG)
def test_hostile_config(saved: Path, forge: Forge, case: str, refused: Refused) -> None:
    added, message = HOSTILE_CONFIG[case]
    content = json.loads((saved / "config.json").read_text()) | added
    forge(saved, "config.json", json.dumps(content).encode())
    refused(saved, message)


@pytest.mark.parametrize("raw", ["NaN", "Infinity", "-Infinity", "1e999", "1" * 30, "[" * 50])
def test_numbers_that_json_does_not_have(
    saved: Path, forge: Forge, raw: str, refused: Refused
) -> None:
    text = (saved / "config.json").read_text().replace("1e-12", raw)
    forge(saved, "config.json", text.encode())
    refused(saved, r"config\.json cannot be read as plain JSON")


@pytest.mark.parametrize("key", ["vocab_size", "hidden_act", "hidden_size", "model_type"])
def test_incomplete_config(saved: Path, forge: Forge, key: str, refused: Refused) -> None:
    content = json.loads((saved / "config.json").read_text())
    del content[key]
    forge(saved, "config.json", json.dumps(content).encode())
    refused(saved, key)


def test_gzip_bombs_are_not_unpacked(saved: Path, forge: Forge, refused: Refused) -> None:
    forge(saved, FILES[2], gzip.compress(bytes(2**28), compresslevel=1))
    refused(saved, "unpacks to more than", n_bytes=2**27)


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,2\n",
        gzip.compress(b""),
        gzip.compress(b"a,b\n1,2\n"),
        gzip.compress(b"\xff\xfe\0"),
        gzip.compress(b"x") + b"trailing",
        gzip.compress(b"x")[:-4],
    ],
    ids=range(6),
)
def test_files_that_are_no_vocabulary(
    saved: Path, forge: Forge, content: bytes, refused: Refused
) -> None:
    forge(saved, FILES[2], content)
    refused(saved, r"vocabulary\.csv\.gz")


def test_vocabulary_with_a_gene_less(saved: Path, forge: Forge, refused: Refused) -> None:
    text = gzip.decompress((saved / FILES[2]).read_bytes()).strip().rpartition(b"\n")[0]
    forge(saved, FILES[2], gzip.compress(text + b"\n"))
    refused(saved, "has vocab_size 32, its vocabulary 31 tokens", IncompatibleModelError)


HOSTILE_MANIFEST: dict[str, tuple[dict, str]] = {
    "newer": ({"format_version": 3}, "has format_version 3, this scmix reads up to 2"),
    "version": ({"format_version": "1"}, "expected 1 or more"),
    "format": ({"format": "other"}, "does not say"),
    "recipe": ({"recipe": 3}, r"no recipe \(dict\)"),
    "licence": ({"licence": None}, r"no licence \(str\)"),
    "data": ({"training_data": "x"}, "no training_data"),
    "files": ({"files": []}, "lists the files"),
    "none": ({"files": {}}, "lists the files"),
}


@pytest.mark.parametrize("case", HOSTILE_MANIFEST)
def test_hostile_manifest(saved: Path, case: str, refused: Refused) -> None:
    added, message = HOSTILE_MANIFEST[case]
    content = json.loads((saved / "manifest.json").read_text()) | added
    (saved / "manifest.json").write_text(json.dumps(content))
    kind = IncompatibleModelError if case == "newer" else ModelFileError
    refused(saved, message, kind)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("../secret", {"sha256": "0" * 64, "bytes": 3}),
        ("/etc/passwd", {"sha256": "0" * 64, "bytes": 3}),
        ("config.json", {"sha256": "0" * 63, "bytes": 3}),
        ("config.json", {"sha256": "0" * 64, "bytes": "3"}),
        ("config.json", {"sha256": 0, "bytes": 3}),
        ("config.json", None),
    ],
)
def test_hostile_list_of_files(saved: Path, name: str, entry: object, refused: Refused) -> None:
    content = json.loads((saved / "manifest.json").read_text())
    content["files"][name] = entry
    (saved / "manifest.json").write_text(json.dumps(content))
    refused(saved, "expected model.safetensors|expected sha256 and bytes")


@pytest.mark.parametrize("name", FILES)
def test_links_out_of_the_folder(saved: Path, tmp_path: Path, name: str, refused: Refused) -> None:
    (saved / name).rename(tmp_path / name)
    (saved / name).symlink_to(tmp_path / name)
    refused(saved, r"is a link to a file outside .*\(cp -rL")


def test_links_inside_the_folder_are_fine(saved: Path) -> None:
    before = checkpoints.load(saved).sha256
    (saved / FILES[0]).rename(saved / "weights")
    (saved / FILES[0]).symlink_to("weights")
    assert checkpoints.load(saved).sha256 == before


def test_a_link_to_a_checkpoint_is_fine(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(saved)
    assert checkpoints.load(tmp_path / "latest").name == "latest"


@pytest.mark.parametrize("name", FILES)
def test_folders_and_pipes_in_place_of_files(saved: Path, name: str, refused: Refused) -> None:
    (saved / name).unlink()
    (saved / name).mkdir()
    refused(saved, name.replace(".", r"\."))
    if hasattr(os, "mkfifo"):
        (saved / name).rmdir()
        os.mkfifo(saved / name)
        refused(saved, "is not a plain file")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_claims_a_terabyte(saved: Path, name: str, refused: Refused) -> None:
    with (saved / name).open("wb") as file:
        file.truncate(2**40)
    refused(saved, f"bytes, expected|{name} has")


def test_no_folder_or_no_model(saved: Path, tmp_path: Path, refused: Refused) -> None:
    with pytest.raises(InputError, match="is neither a model that ships with scmix"):
        checkpoints.load(tmp_path / "nothing")
    refused(saved / "config.json", "is a file, expected a folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"has no model\.safetensors")
