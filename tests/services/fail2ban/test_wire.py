"""Answers are read without unpickling: nothing is imported or called, nothing hangs, nothing grows without bound."""

import os
import pickle
import struct
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nms_workers.errors import ParseError
from nms_workers.services.fail2ban import wire

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(value=plain, protocol=st.integers(3, pickle.HIGHEST_PROTOCOL))
def test_reads_what_python_writes(value: Any, protocol: int) -> None:
    # a copy shares nothing with itself, as the server's answers do not
    assert wire.loads(pickle.dumps(pickle.loads(pickle.dumps(value)), protocol)) == value  # noqa: S301 - our own


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_a_parse_error(data: bytes) -> None:
    for attempt in (data, b"\x80\x05" + data, b"\x80\x05" + data + b"."):
        _read_or_refused(attempt)


_REAL = pickle.dumps(
    (
        0,
        [
            ("Filter", [("Currently failed", 1), ("File list", ["/var/log/a"])]),
            ("Actions", [("Banned IP list", ["::1"])]),
        ],
    )
)


@settings(max_examples=500)
@given(at=st.integers(0, len(_REAL) - 1), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_answer_is_a_value_or_a_parse_error(at: int, byte: int, cut: bool) -> None:
    data = _REAL[:at] if cut else _REAL[:at] + bytes([byte]) + _REAL[at + 1 :]
    if cut:
        with pytest.raises(ParseError):
            wire.loads(data)
    else:
        _read_or_refused(data)


def _read_or_refused(data: bytes) -> None:
    try:
        wire.loads(data)
    except ParseError:
        return


def test_addresses_and_errors_come_as_text() -> None:
    # as fail2ban 1.0.2 sent them
    address = (
        b"\x80\x05\x95+\x00\x00\x00\x00\x00\x00\x00K\x00]\x94\x8c\x08builtins\x94\x8c\x03str\x94\x93\x94"
        b"\x8c\t127.0.0.9\x94\x85\x94R\x94a\x86\x94."
    )
    error = (
        b"\x80\x05\x95?\x00\x00\x00\x00\x00\x00\x00K\x01\x8c\x13fail2ban.exceptions\x94"
        b"\x8c\x14UnknownJailException\x94\x93\x94\x8c\x04nope\x94\x85\x94R\x94\x86\x94."
    )
    assert wire.loads(address) == (0, ["127.0.0.9"])
    assert wire.loads(error) == (1, wire.ErrorText("UnknownJailException", "nope"))
    assert wire.loads(pickle.dumps((1, OSError(2, "no such file")))) == (
        1,
        wire.ErrorText("FileNotFoundError", "2, no such file"),
    )


class _Calls:
    def __init__(self, *reduced: Any) -> None:
        self._reduced = reduced

    def __reduce__(self) -> Any:
        return self._reduced


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "call",
    [
        (os.system, ("touch {flag}",)),
        (eval, ("open('{flag}', 'w')",)),
        (exec, ("open('{flag}', 'w')",)),
        (open, ("{flag}", "w")),
        (__import__, ("nms_never_imported",)),
        (getattr, ("", "join")),
        (bytearray, (10**12,)),
        (str, (b"\xff", "utf-8", "strict")),
    ],
    ids=lambda call: call[0].__name__,
)
def test_nothing_is_called(call: tuple[Any, tuple[Any, ...]], protocol: int, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    arguments = tuple(one.format(flag=flag) if isinstance(one, str) else one for one in call[1])
    with pytest.raises(ParseError):
        wire.loads(pickle.dumps((0, _Calls(call[0], arguments)), protocol))
    assert not flag.exists()


def test_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nms_never_imported.py").write_text("class LoadedError(Exception): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    error = b"\x80\x04\x8c\x12nms_never_imported\x8c\x0bLoadedError\x93\x8c\x04text\x85R."
    assert wire.loads(error) == wire.ErrorText("LoadedError", "text")
    for one in (
        b"cnms_never_imported\nLoaded\n.",
        b"(inms_never_imported\nLoaded\n.",
        b"cnms_never_imported\nLoaded\n)\x81.",
    ):
        with pytest.raises(ParseError):
            wire.loads(b"\x80\x02" + one)
    assert "nms_never_imported" not in sys.modules


_UNFOLDING = b"K\x01\x85" + b"".join(b"\x94h" + bytes([i]) + b"\x86" for i in range(60))

HOSTILE = {
    "a list in itself": b"\x80\x04]\x94h\x00a.",
    "a tuple that unfolds": b"\x80\x04" + _UNFOLDING + b".",
    "a key that unfolds": b"\x80\x04}" + _UNFOLDING + b"Ns.",
    "a key that is a tuple": b"\x80\x04})Ns.",
    "a text that repeats": b"\x80\x04](X"
    + struct.pack("<I", 1 << 20)
    + b"x" * (1 << 20)
    + b"\x94"
    + b"h\x00" * 10_000
    + b"e.",
    "a huge bytearray": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
    "a huge text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
    "a number of many digits": b"\x80\x02I" + b"9" * 1_000_000 + b"\n.",
    "a number of many bytes": b"\x80\x02\x8b" + struct.pack("<I", 1_000_000) + b"\x7f" * 1_000_000 + b".",
    "many parts": b"\x80\x04" + b"(" * 600_000 + b"N.",
    "many lists": b"\x80\x04" + b"]" * 600_000 + b".",
    "a persistent id": b"\x80\x04Pid\n.",
    "an extension": b"\x80\x02\x82\x01.",
    "another mark than its own": b"\x80\x04(e.",
    "no value": b"\x80\x04.",
    "two values": b"\x80\x04NN.",
    "the name of a class": b"\x80\x04cbuiltins\nstr\n.",
    "something after the end": b"\x80\x04N.N.",
    "a state for a list": b"\x80\x04]}b.",
    "nothing": b"",
    "too much": b"\x80\x04" + b"N" * wire.MAX_ANSWER,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_answers_are_refused_in_bounded_time(what: str) -> None:
    start = time.process_time()
    with pytest.raises(ParseError):
        wire.loads(HOSTILE[what])
    assert time.process_time() - start < 10


@pytest.mark.parametrize("what", ["many lists", "a text that repeats", "a huge bytearray", "a huge text"])
def test_hostile_answers_are_refused_in_bounded_memory(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_MAX_OPCODES", 50_000)  # tracing makes each of them slow
    tracemalloc.start()
    try:
        with pytest.raises(ParseError):
            wire.loads(HOSTILE[what])
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [b"\x80\x04Nr\xff\xff\xff\xff.", b"\x80\x05\x95" + struct.pack("<Q", 1 << 62) + b"N."],
    ids=["memo", "frame"],
)
def test_a_large_number_alone_costs_nothing(data: bytes) -> None:
    tracemalloc.start()
    try:
        assert wire.loads(data) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_flat_tuple_may_stand_in_many_places() -> None:
    pair = ("Total failed", 0)
    assert wire.loads(pickle.dumps([pair, [pair, {"a": pair}]])) == [pair, [pair, {"a": pair}]]
    twice = [pair]
    with pytest.raises(ParseError, match="holds one thing in two places"):
        wire.loads(pickle.dumps([twice, twice]))


def test_a_deep_answer_is_read_and_let_go() -> None:
    value = wire.loads(b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".")
    assert isinstance(value, list)


def test_a_hundred_thousand_bans_fit() -> None:
    bans = [f"2001:db8:{i:x}::{i:x} \t2026-01-01 00:00:00 + 600 = 2026-01-01 00:10:00" for i in range(100_000)]
    assert wire.loads(pickle.dumps((0, bans), pickle.HIGHEST_PROTOCOL)) == (0, bans)
