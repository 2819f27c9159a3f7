"""Dictionaries as text, and where they are looked for."""

import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scmix._errors import IncompatibleModelError, InputError, ModelFileError
from scmix.checkpoints import _dictionaries
from scmix.checkpoints._dictionaries import (
    find_medians,
    find_names,
    find_tokens,
    read,
    read_medians,
    read_names,
    read_tokens,
)

TOKENS = {"<pad>": 0, "<mask>": 1, "ENSG00000000003": 2}


def test_the_same_from_every_kind_of_file(tmp_path: Path) -> None:
    texts = {
        "a.json": json.dumps(TOKENS),
        "b.csv": "".join(f"{name},{token}\n" for name, token in TOKENS.items()),
        "c.csv": "gene,token\r\n" + "".join(f'"{n}",{t}\r\n\r\n' for n, t in TOKENS.items()),
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
        assert read_tokens(tmp_path / name) == TOKENS
    (tmp_path / "d.pickle").write_bytes(pickle.dumps(TOKENS))
    assert read_tokens(tmp_path / "d.pickle") == TOKENS
    (tmp_path / "e.csv").write_text("symbol,id\nA,ENSG1\nNAN,ENSG2\n")
    assert read_names(tmp_path / "e.csv") == {"symbol": "id", "A": "ENSG1", "NAN": "ENSG2"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"a,1,2\n", "without exactly two columns"),
        ("a.csv", b"a\n", "without exactly two columns"),
        ("a.csv", b"a,1\na,2\n", "a name more than once"),
        ("a.csv", b'"a,1\n', "is not a CSV file"),
        ("a.csv", b"\xff,1\n", "is not a CSV file"),
        ("a.csv", b"\n", "no entries"),
        ("a.csv", b"gene,token\n", "expected a whole number"),
        ("a.json", b'{"a": 1, "a": 2}', "more than once"),
        ("a.json", b'{"a": NaN}', "NaN"),
        ("a.json", b'{"a": [1]}', "the entry 'a'"),
        ("a.json", b'{"a": true}', "the entry 'a'"),
        ("a.json", b'{"a": null}', "the entry 'a'"),
        ("a.json", b"{" * 10_000, "nested more than"),
        ("a.json", b"[1]", "expected a JSON object"),
        ("a.json", b"{}", "no entries"),
        ("a.json", b'{"<pad>": 0, "<mask>": 1, "a\\nb": 2}', "expected a name"),
        ("a.json", b'{"<pad>": 0, "a": 1}', "has no <mask>"),
        ("a.pkl", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("a.pkl", b"", "has 0 bytes"),
    ],
)
def test_text_that_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=message) as info:
        read_tokens(tmp_path / name)
    assert str(tmp_path / name) in str(info.value)


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("missing.pkl", "folder.pkl", "pipe.pkl"):
        if name.startswith("folder"):
            (tmp_path / name).mkdir()
        elif name.startswith("pipe"):
            os.mkfifo(tmp_path / name)
        with pytest.raises(ModelFileError, match=name):
            read(tmp_path / name)
    with pytest.raises(InputError, match=r"expected a dictionary as \.pkl"):
        read(tmp_path / "tokens.py")
    (tmp_path / "large.json").write_text(json.dumps(TOKENS))
    monkeypatch.setattr(_dictionaries, "_MAX_BYTES", 10)
    with pytest.raises(ModelFileError, match="expected 1 to 10"):
        read(tmp_path / "large.json")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e999", "x", "9" * 5000])
def test_medians_are_numbers_above_zero(tmp_path: Path, value: str) -> None:
    (tmp_path / "a.csv").write_text(f"ENSG1,1.5\nENSG2,{value}\n")
    with pytest.raises(ModelFileError, match="gives 'ENSG2' the median"):
        read_medians(tmp_path / "a.csv")


def put(path: Path, values: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(values))
    return path


def test_the_nearest_that_fits_is_found(tmp_path: Path) -> None:
    model = tmp_path / "repository" / "model"
    model.mkdir(parents=True)
    code = tmp_path / "repository" / "geneformer"
    code.mkdir()
    (code / "token_dictionary_broken.pkl").write_bytes(b"broken")
    with pytest.raises(IncompatibleModelError, match=r"token_dictionary_broken.*not a pickle"):
        find_tokens(model, 3)
    far = put(code / "gene_dictionaries_30m" / "token_dictionary_gc30M.pkl", TOKENS)
    assert find_tokens(model, 3) == far
    put(code / "token_dictionary_gc104M.pkl", {**TOKENS, "ENSG2": 3})
    assert find_tokens(model, 3) == far
    near = put(model / "my_token_dictionary.pkl", TOKENS)
    assert find_tokens(model, 3) == near
    with pytest.raises(IncompatibleModelError, match="expected a token dictionary of 5 entries"):
        find_tokens(model, 5)


def test_medians_and_names_that_belong_to_the_tokens(tmp_path: Path) -> None:
    put(tmp_path / "gene_median_dictionary_a.pkl", {"ENSG1": 1.0})
    fitting = put(tmp_path / "gene_median_dictionary_b.pkl", {"ENSG1": 1.0, "ENSG2": 2.0})
    assert find_medians(tmp_path, {"ENSG1", "ENSG2"}) == fitting
    tokens = put(tmp_path / "token_dictionary.pkl", TOKENS)
    assert find_names(tokens) is None
    names = put(tmp_path / "gene_name_id_dict.pkl", {"A": "ENSG1"})
    assert find_names(tokens) == names
    put(tmp_path / "gene_name_id_dict_2.pkl", {"A": "ENSG1"})
    assert find_names(tokens) is None


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:0123456789.eN\n<pad', max_size=60))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(tmp_path: Path, content: bytes | str) -> None:
    raw = content if isinstance(content, bytes) else content.encode()
    for suffix in (".json", ".csv", ".pkl"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(raw)
        try:
            values = read(path)
        except ModelFileError:
            continue
        assert all(type(value) in (str, int, float) for value in values.values())
