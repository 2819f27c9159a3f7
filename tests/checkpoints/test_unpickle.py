"""Pickled dictionaries: equal to what Python reads from honest files; hostile ones do nothing."""

import os
import pickle
import pickletools
import struct
import time
from collections import OrderedDict, defaultdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scmix._errors import ModelFileError
from scmix.checkpoints import _unpickle
from scmix.checkpoints._unpickle import parse_pickle

PATH = Path("token_dictionary.pkl")


def parse(content: bytes) -> dict:
    return parse_pickle(content, PATH)


def published(kind: type = np.int16, n_genes: int = 40) -> bytes:
    """As Geneformer's dictionaries were written: numpy scalars, protocol 4."""
    names = ["<pad>", "<mask>", *(f"ENSG{i:011d}" for i in range(n_genes))]
    return pickle.dumps({name: kind(i) for i, name in enumerate(names)}, 4)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(
    "kind", [np.int16, np.int32, np.int64, np.uint8, np.float16, np.float32, np.float64, int, float]
)
def test_published_layout(kind: type, protocol: int) -> None:
    values = {"<pad>": kind(0), "ENSG00000000003": kind(2.001186019549122), "ENSGR1": kind(100)}
    found = parse(pickle.dumps(values, protocol))
    assert found == values
    assert {type(value) for value in found.values()} <= {int, float}


def test_names_of_numpy_before_2_and_big_endian_numbers() -> None:
    content = pickle.dumps({"a": np.float64(1.5), "b": np.float64(2.5)}, 3)
    old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert parse(old) == {"a": 1.5, "b": 2.5}
    big = np.array([258], ">i2")[0]
    swapped = pickle.dumps({"a": big}, 4).replace(b"<", b">").replace(b"\x02\x01", b"\x01\x02")
    assert parse(swapped) == {"a": 258}


values = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=20)
)


@given(st.dictionaries(st.text(max_size=20), values, max_size=1200), st.integers(0, 5))
@settings(max_examples=60)
def test_plain_dictionaries_of_every_protocol(expected: dict, protocol: int) -> None:
    found = parse(pickle.dumps(expected, protocol))
    assert found == expected
    assert list(map(type, found.values())) == list(map(type, expected.values()))


class Call:
    """Pickles as a call of any function."""

    def __init__(self, *call) -> None:
        self.call = call

    def __reduce__(self):
        return self.call


class State:
    def __setstate__(self, state) -> None:
        raise AssertionError("run")


def hostile(tmp_path: Path) -> dict[str, object]:
    touch = f"touch {tmp_path / 'run'}"
    loop: dict = {}
    loop["self"] = loop
    bomb: tuple = ()
    for _ in range(60):
        bomb = (bomb, bomb)
    return {
        "os.system": Call(os.system, (touch,)),
        "os.system as a value": {"ENSG1": Call(os.system, (touch,))},
        "os.system as a name": {Call(os.system, (touch,)): 1},
        "eval": {"a": Call(eval, (f"__import__('os').system({touch!r})",))},
        "getattr": {"a": Call(getattr, ("a", "upper"))},
        "numpy loader": {"a": Call(np.load, (str(tmp_path / "x.npy"), None, True))},
        "any numpy function": {"a": Call(np.full, (10**6, 1.0))},
        "a class": {"a": State()},
        "a class with state": {"a": Call(State, (), {"b": 1})},
        "dictionary in itself": loop,
        "nested dictionary": {"a": {"b": 1}},
        "list": {"a": [1, 2]},
        "list instead": [("a", 1)],
        "tuple": {"a": (1, 2)},
        "nested tuples": {"a": bomb},
        "set": {"a": {1}},
        "bytes": {"a": b"b"},
        "None": {"a": None},
        "bool": {"a": True},
        "number as a name": {1: 1},
        "complex": {"a": 1j},
        "fraction": {"a": Fraction(1, 3)},
        "array": {"a": np.arange(3)},
        "date": {"a": np.datetime64("2020-01-01")},
        "object scalar": {"a": np.array([Call(os.system, (touch,))], object)},
        "structured scalar": {"a": np.zeros(1, [("x", "f8")])[0]},
        "numpy bool": {"a": np.bool_(True)},
        "numpy text": {"a": np.str_("b")},
        "dtype": {"a": np.dtype("i4")},
        "huge number": {"a": 10**4000},
        "huge text": {"a" * 5000: 1},
        "ordered": OrderedDict(a=1),
        "default": defaultdict(int, a=1),
        "text": "a",
        "number": 1,
    }


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_everything_else_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    for name, value in hostile(tmp_path).items():
        try:
            content = pickle.dumps(value, protocol)
        except TypeError:  # what cannot be hashed is no name
            continue
        start = time.process_time()
        with pytest.raises(ModelFileError, match=r"token_dictionary\.pkl"):
            pytest.fail(f"{name}: {parse(content)}")
        assert time.process_time() - start < 2
    assert list(tmp_path.iterdir()) == []


def test_what_was_asked_for_is_named() -> None:
    for call, name in [((os.system, ("true",)), f"{os.name}.system"), ((eval, ("1",)), "eval")]:
        with pytest.raises(ModelFileError, match=rf"asks for .*{name}.* nothing was run.*as JSON"):
            parse(pickle.dumps({"a": Call(*call)}))


EMPTY, STOP = b"\x80\x04}", b"."
HANDMADE = {
    "object dtype": b"\x80\x03}X\x01\x00\x00\x00acnumpy.core.multiarray\nscalar\n"
    b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK?tbC\x08aaaaaaaa\x86Rs.",
    "class of Python 2": b"}U\x01aios\nsystem\n(U\x04truetRs.",
    "instance": b"(S'true'\nios\nsystem\n.",
    "object built": b"\x80\x02(cos\nsystem\nX\x04\x00\x00\x00trueo.",
    "new object": b"\x80\x02cos\nsystem\n)\x81.",
    "extension registry": b"\x80\x02\x82\x01.",
    "persistent id": b"Pos.system\n.",
    "persistent id from the stack": EMPTY + b"Q.",
    "name from the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "name made of a dictionary": EMPTY + b"}\x93.",
    "state of a dictionary": EMPTY + b"}b.",
    "call of a dictionary": EMPTY + b")R.",
    "numbers without bytes": EMPTY + b"\x8c\x01acnumpy.core.multiarray\nscalar\n)Rs.",
    "a name that takes 2**60 steps to hash": EMPTY + b")" + b"\x94h\x00\x86" * 60 + b"K\x01s.",
    "two dictionaries": EMPTY + b"}.",
    "nothing": b"\x80\x04.",
    "no pop from nothing": b"\x80\x04s.",
    "no mark": EMPTY + b"u.",
    "memo of nothing": EMPTY + b"h\x07.",
    "odd number of items": EMPTY + b"(\x8c\x01au.",
    "a name twice": EMPTY + b"(\x8c\x01aK\x01\x8c\x01aK\x02u.",
    "bytes after the end": EMPTY + b".rest",
    "second pickle": EMPTY + b".\x80\x04}.",
    "text longer than the file": EMPTY + b"X\xff\xff\xff\x7fa",
    "text of 2**60 bytes": EMPTY + b"\x8d" + struct.pack("<Q", 2**60) + b"a",
    "number of 2**31 bytes": EMPTY + b"\x8b\xff\xff\xff\x7f\x01",
    "bytearray of 2**60 bytes": EMPTY + b"\x96" + struct.pack("<Q", 2**60),
    "frame of 2**60 bytes": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"}h",
    "invalid UTF-8": EMPTY + b"\x8c\x01\xffK\x01s.",
    "protocol 255": b"\x80\xff",
    "far memo place": b"\x80\x02}r\xff\xff\xff\xffX\x01\x00\x00\x00a.",
    "torch archive": b"PK\x03\x04" + bytes(100),
    "text": b"version https://example.org",
    "empty": b"",
}


@pytest.mark.parametrize("name", HANDMADE)
def test_handmade_pickles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("run"))
    start = time.process_time()
    with pytest.raises(ModelFileError, match=r"token_dictionary\.pkl is (not )?a pickle"):
        parse(HANDMADE[name])
    assert time.process_time() - start < 1


def test_truncated_anywhere() -> None:
    content = published()
    for end in range(len(content)):
        with pytest.raises(ModelFileError):
            parse(content[:end])


def test_steps_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"\x80\x04}" + b"\x94" * 2000 + b"."
    assert parse(content) == {}
    monkeypatch.setattr(_unpickle, "_MAX_STEPS", 1000)
    with pytest.raises(ModelFileError, match="more than 1,000 steps"):
        parse(content)


def check(content: bytes) -> None:
    """Refused, or a dictionary of the right types, equal to what Python reads."""
    try:
        found = parse(content)
    except ModelFileError:
        return
    assert all(type(name) is str for name in found)
    assert all(type(value) in (str, int, float) for value in found.values())
    calls = {f"{a}" for op, a, _ in pickletools.genops(content) if op.name == "GLOBAL"}
    assert calls <= set(_unpickle._CALLS)


@given(st.data())
@settings(max_examples=300)
def test_damaged_anywhere(data: st.DataObject) -> None:
    content = bytearray(published(data.draw(st.sampled_from([np.int16, np.float64, int])), 4))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["byte", "opcode", "insert", "delete", "double"]))
        new = data.draw(st.integers(0, 255))
        if kind == "byte":
            content[at] = new
        elif kind == "opcode":
            content[at] = ord(data.draw(st.sampled_from(sorted(pickletools.code2op))))
        elif kind == "insert":
            content[at:at] = bytes([new])
        elif kind == "delete" and len(content) > 1:
            del content[at : at + 1 + new % 8]
        else:
            content[at:at] = content[at : at + new]
        if not content:
            break
    check(bytes(content))


pieces = st.sampled_from(
    [
        *(code.encode("latin1") for code in pickletools.code2op),
        *(b"(", b"}", b"t", b"\x85", b"\x86", b"\x94", b"h\x00", b"h\x01", b"K\x05", b"s", b"u"),
        *(b"\x8c\x01a", b"\x8c\x05numpy", b"\x8c\x05dtype", b"\x8c\x02f8", b"\x8c\x01<", b"\x93"),
        *(
            b"R",
            b"b",
            b"\x89\x88\x87",
            b"C\x08aaaaaaaa",
            b"N",
            b"cnumpy\ndtype\n",
            b"cos\nsystem\n",
        ),
    ]
)


@given(st.lists(pieces, max_size=40))
@settings(max_examples=300)
def test_any_program(program: list[bytes]) -> None:
    check(b"\x80\x04}" + b"".join(program) + b".")
