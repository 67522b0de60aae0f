"""Answers of a fail2ban server: pickles, read without unpickling.

A pickle is a program that may import and call anything. Here `pickletools` only splits it into its opcodes, and those
that build plain values are carried out; nothing is imported, nothing is called. What comes out is a tree no larger
than the answer it came from: lists, mappings and nested tuples that stand in two places are refused, so nothing can
unfold.

Source: the opcodes are described in the standard library's `pickletools`.
"""

import pickletools
import re
import struct
from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple

from nms_workers.errors import ParseError

MAX_ANSWER = 16 << 20  # bytes; a hundred thousand bans with their times fill 7 MiB
_MAX_OPCODES = 500_000  # a ban takes two
_MAX_BITS = 64
_MAX_ERROR_TEXT = 500

_HINT = "does a fail2ban server listen there?"
_ERROR_NAME = re.compile(r"(?i).*(error|exception)\Z")
_SCALARS = (type(None), bool, int, float, str, bytes)


class ErrorText(NamedTuple):
    """An exception of the server: the name of its class and what it says."""

    kind: str
    text: str


class _Name(NamedTuple):
    """The name of a class, never the class itself."""

    module: str
    name: str


def loads(data: bytes) -> Any:
    """The value of a pickle: None, bool, int of 64 bits, float, str, bytes, list, tuple, dict or `ErrorText`.

    Raises:
        ParseError: it is no whole pickle, holds something else, or is larger than an answer may be.
    """
    if len(data) > MAX_ANSWER:
        raise ParseError(f"an answer is longer than {MAX_ANSWER >> 20} MiB", hint=_HINT)
    machine = _Machine()
    try:
        for opcode, argument, position in islice(pickletools.genops(data), _MAX_OPCODES):
            if opcode.name == "STOP":
                return machine.result(whole=position == len(data) - 1)
            machine.step(opcode.name, argument)
    except _Refusal as exc:
        raise ParseError(f"an answer {exc}", hint=_HINT) from None
    except (ValueError, LookupError, TypeError, AttributeError, struct.error) as exc:
        raise ParseError(f"an answer is no whole pickle ({type(exc).__name__})", hint=_HINT) from None
    raise ParseError(f"an answer has more than {_MAX_OPCODES} parts", hint=_HINT)


class _Refusal(Exception):
    """Why an answer is not read."""


class _Machine:
    """The stack and the memo of the opcodes that build plain values."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._repeated = 0  # the size of all that stands in more than one place

    def step(self, name: str, argument: Any) -> None:
        """Carry out one opcode."""
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self._stack.append(_small(argument))
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, argument)
        elif name not in _WITHOUT_EFFECT:
            raise _Refusal(f"has the opcode {name}")

    def result(self, *, whole: bool) -> Any:
        """The one value that is left."""
        value = self._stack.pop()
        if self._stack or self._marks or not whole or isinstance(value, _Name):
            raise _Refusal("is not one value")
        return value

    def mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def put(self, index: Any) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def get(self, index: Any) -> None:
        value = self._memo[index]
        self._repeated += _size(value)
        if self._repeated > MAX_ANSWER:
            raise _Refusal("repeats too much")
        self._stack.append(value)

    def new(self, kind: type[list[Any]] | type[dict[Any, Any]]) -> None:
        self._stack.append(kind())

    def extend(self, items: list[Any]) -> None:
        of = self._stack[-1]
        if type(of) is not list:
            raise _Refusal("appends to something else than a list")
        of.extend(items)

    def update(self, items: list[Any]) -> None:
        of = self._stack[-1]
        if type(of) is not dict or len(items) % 2 or not all(isinstance(key, (str, int)) for key in items[::2]):
            raise _Refusal("has a mapping that is not by text")
        of.update(zip(items[::2], items[1::2], strict=True))

    def collect(self, count: int) -> None:
        """Put the topmost values into a tuple."""
        self._stack.append(tuple(self.take(count)))

    def tuple_since_mark(self, _: Any) -> None:
        self._stack.append(tuple(self.since_mark()))

    def take(self, count: int) -> list[Any]:
        if len(self._stack) - (self._marks[-1] if self._marks else 0) < count:
            raise _Refusal("takes what is not there")
        items = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return items

    def name_from_text(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(_Name(module, name))

    def name_from_stack(self, _: Any) -> None:
        module, name = self.take(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise _Refusal("names a class by something else than text")
        self._stack.append(_Name(module, name))

    def call(self, _: Any) -> None:
        """Where a pickle would call a class: an address comes as `str(text)`, an error as its class and arguments."""
        called, arguments = self.take(2)
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise _Refusal("calls something else than a class")
        if called == ("builtins", "str") and len(arguments) == 1:
            self._stack.append(_text(arguments[0]))
        elif _ERROR_NAME.match(called.name):
            told = ", ".join(str(one) for one in arguments if isinstance(one, (str, int, float)))
            self._stack.append(ErrorText(called.name[:100], told[:_MAX_ERROR_TEXT]))
        else:
            raise _Refusal(f"holds a {called.module[:60]}.{called.name[:60]}, which is not loaded")

    def forget_state(self, _: Any) -> None:
        """What an exception carries besides its arguments is not kept."""
        self.take(1)
        if not isinstance(self._stack[-1], ErrorText):
            raise _Refusal("sets the state of something else than an error")


def _small(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise _Refusal(f"has a number of more than {_MAX_BITS} bits")
    return value


def _size(value: Any) -> int:
    """How much it costs that a value stands in one more place."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, _SCALARS):
        return 1
    if (
        isinstance(value, tuple)
        and not isinstance(value, ErrorText)
        and all(isinstance(one, _SCALARS) for one in value)
    ):
        return sum(map(_size, value)) + 1
    raise _Refusal("holds one thing in two places")


def _text(value: Any) -> str:
    """The name of what is banned: an address, or the parts that a filter names it by."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple) and all(isinstance(one, _SCALARS) for one in value):
        return str(value)
    raise _Refusal("makes text of something else than text")


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
    | {"SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES"}
)
_WITHOUT_EFFECT = frozenset({"PROTO", "FRAME"})
_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "MEMOIZE": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "EMPTY_LIST": lambda machine, _: machine.new(list),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "EMPTY_DICT": lambda machine, _: machine.new(dict),
    "SETITEM": lambda machine, _: machine.update(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.since_mark()),
    "TUPLE": _Machine.tuple_since_mark,
    "TUPLE1": lambda machine, _: machine.collect(1),
    "TUPLE2": lambda machine, _: machine.collect(2),
    "TUPLE3": lambda machine, _: machine.collect(3),
    "GLOBAL": _Machine.name_from_text,
    "STACK_GLOBAL": _Machine.name_from_stack,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.forget_state,
}
