"""Pickled dictionaries, read without unpickling: nothing that a file names is looked up or called.

A pickle is a program for a small stack machine. The machine here knows the instructions that
Python writes for a dictionary of text to text or numbers, and the two calls that numpy writes for
its scalars, which it recognises by name and does itself. Any other instruction or name ends it.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._errors import ModelFileError

Number = int | float
_MAX_STEPS = 5_000_000  # 80,000 genes with numpy scalars take 800,000
_MAX_TEXT = 1_000
_MAX_INT = 2**63

_CALLS = {
    "numpy dtype": "dtype",
    "numpy.core.multiarray scalar": "scalar",
    "numpy._core.multiarray scalar": "scalar",  # since numpy 2
}
_NUMBERS = {"i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_PUSHED = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINFLOAT", "FLOAT"}
_PUSHED |= {"BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4"}
_PUSHED |= {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class _Refused(ValueError):
    """What the pickle wants is not part of a dictionary."""


@dataclass(frozen=True)
class _Call:
    """A name that stands for something numpy would call."""

    what: str


@dataclass
class _Dtype:
    code: str
    order: str = ""


def parse_pickle(content: bytes, path: Path) -> dict[str, str | Number]:
    """A dictionary of text to text or numbers from a pickle.

    Parameters
    ----------
    content
        All bytes of the file, whose number the caller has limited.
    path
        For messages.

    Returns
    -------
    The dictionary; numpy scalars have become Python numbers.

    Raises
    ------
    ModelFileError
        The pickle is damaged, or holds or does anything else.
    """
    try:
        return _Machine().run(content)
    except _Refused as error:
        raise ModelFileError(
            f"{path} is a pickle that {error}; expected a plain dictionary of names to numbers or "
            "names, and nothing was run. If you trust where it comes from, open it there and save "
            "the dictionary as JSON."
        ) from error
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise ModelFileError(
            f"{path} is not a pickle that can be read: {str(error)[:200]}. Copy it again from "
            "where it came from."
        ) from error


class _Machine:
    """Stack, marks and memo, as in the machine of Python."""

    def __init__(self) -> None:
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        self._dict: dict[str, str | Number] | None = None
        pop = self._stack.pop
        self._actions: dict[str, Callable[[], object]] = {
            "MARK": lambda: self._marks.append(len(self._stack)),
            "MEMOIZE": lambda: self._put(len(self._memo)),
            "EMPTY_DICT": lambda: self._push(self._new_dict()),
            "DICT": self._marked_dict,
            "SETITEM": lambda: self._set_items([pop(), pop()][::-1]),
            "SETITEMS": lambda: self._set_items(self._marked()),
            "TUPLE1": lambda: self._push_tuple([pop()]),
            "TUPLE2": lambda: self._push_tuple([pop(), pop()][::-1]),
            "TUPLE3": lambda: self._push_tuple([pop(), pop(), pop()][::-1]),
            "TUPLE": lambda: self._push_tuple(self._marked()),
            "STACK_GLOBAL": lambda: self._push_call(" ".join(map(_text, [pop(), pop()][::-1]))),
            "REDUCE": lambda: self._push(_called(arguments=pop(), call=pop())),
            "BUILD": lambda: self._build(pop()),
        }
        self._actions_with: dict[str, Callable[[object], object]] = {
            **dict.fromkeys(_PUSHED, self._push),
            **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self._put),
            **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), self._get),
            **dict.fromkeys(("PROTO", "FRAME"), lambda argument: None),
            "GLOBAL": self._push_call,
        }

    def run(self, content: bytes) -> dict[str, str | Number]:
        for step, (opcode, argument, position) in enumerate(pickletools.genops(content)):
            name = opcode.name
            if name in self._actions_with:
                self._actions_with[name](argument)
            elif name in self._actions:
                self._actions[name]()
            elif name in _CONSTANTS:
                self._push(_CONSTANTS[name])
            elif name != "STOP":
                raise _Refused(f"holds more than a dictionary (instruction {name})")
            elif position is not None and position + 1 != len(content):
                raise ValueError("bytes follow its end")
            if step > _MAX_STEPS:
                raise _Refused(f"takes more than {_MAX_STEPS:,} steps to read")
        if self._dict is None or len(self._stack) != 1 or self._stack[0] is not self._dict:
            raise _Refused("holds something else than one dictionary")
        return self._dict

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _put(self, key: object) -> None:
        if not isinstance(key, int) or not 0 <= key <= _MAX_STEPS:
            raise ValueError("a place in its memo is not one")
        self._memo[key] = self._stack[-1]

    def _get(self, key: object) -> None:
        self._stack.append(self._memo[key])  # type: ignore[index]

    def _marked(self) -> list[object]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _push_tuple(self, values: list[object]) -> None:
        if any(isinstance(value, tuple | dict | _Call) for value in values):
            raise _Refused("holds more than a dictionary (nested tuples)")
        self._stack.append(tuple(values))

    def _push_call(self, name: object) -> None:
        if name not in _CALLS:
            raise _Refused(f"asks for {_shown(name).replace(' ', '.')} to be called")
        self._stack.append(_Call(_CALLS[name]))

    def _new_dict(self) -> dict[str, str | Number]:
        if self._dict is not None:
            raise _Refused("holds more than one dictionary")
        self._dict = {}
        return self._dict

    def _marked_dict(self) -> None:
        values = self._marked()
        self._stack.append(self._new_dict())
        self._set_items(values)

    def _set_items(self, values: list[object]) -> None:
        target = self._stack[-1]
        if self._dict is None or target is not self._dict or len(values) % 2:
            raise _Refused("sets items of something that is no dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            key = _text(key)
            if key in self._dict:
                raise _Refused(f"has the name {_shown(key)} twice")
            self._dict[key] = _value(value, key)

    def _build(self, state: object) -> None:
        dtype = self._stack[-1]
        if not isinstance(dtype, _Dtype) or not isinstance(state, tuple) or len(state) < 2:
            raise _Refused("sets the state of an object")
        if state[1] not in ("<", ">", "|"):
            raise _Refused(f"holds numbers in the byte order {_shown(state[1])}")
        dtype.order = str(state[1])


def _called(arguments: object, call: object) -> object:
    """What numpy would return: a dtype, or a scalar of one as a Python number."""
    if not isinstance(call, _Call) or not isinstance(arguments, tuple):
        raise _Refused("calls something that is no function of numpy")
    if call.what == "dtype":
        if not arguments or arguments[0] not in _NUMBERS:
            raise _Refused(f"holds numpy values of the kind {_shown(arguments[:1])}")
        return _Dtype(str(arguments[0]))
    dtype, raw = arguments if len(arguments) == 2 else (None, None)
    if not isinstance(dtype, _Dtype) or not dtype.order or not isinstance(raw, bytes):
        raise _Refused("holds numpy values that are no plain numbers")
    kind = np.dtype(dtype.order.replace("|", "") + dtype.code)
    if len(raw) != kind.itemsize:
        raise ValueError(f"a number has {len(raw)} bytes, expected {kind.itemsize}")
    return np.frombuffer(raw, kind)[0].item()


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise _Refused(f"has {_shown(value)} where a name was expected")
    return value


def _value(value: object, key: str) -> str | Number:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Refused(f"gives {_shown(key)} a value of type {type(value).__name__.strip('_')}")
    if isinstance(value, int) and not -_MAX_INT <= value < _MAX_INT:
        raise _Refused(f"gives {_shown(key)} a number of {value.bit_length():,} bits")
    return value


def _shown(value: object) -> str:
    """Never the digits of a huge number, nor kilobytes of text."""
    known = isinstance(value, str) or (isinstance(value, tuple) and len(str(value)) < 100)
    return repr(value)[:100] if known else f"a value of type {type(value).__name__}"
