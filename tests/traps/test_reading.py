"""The reader of notifications: the same as pysnmp's, and unmoved by whatever else arrives."""

import socket
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyasn1.codec.ber import decoder, encoder
from pyasn1.error import PyAsn1Error
from pysnmp.error import PySnmpError
from pysnmp.proto.api import v1, v2c
from pysnmp.proto.api.verdec import decode_message_version

from nms_workers.errors import ParseError
from nms_workers.traps import ber
from nms_workers.traps.names import Names
from nms_workers.traps.values import MAX_TEXT, octets, written
from tests.traps.conftest import COLD_START, V2C, Receive, Send

ARC = st.integers(0, 2**32 - 1)
OIDS = st.builds(lambda head, tail: (1, *head, *tail), st.tuples(st.integers(0, 39)), st.lists(ARC, max_size=20))
VALUES = st.one_of(
    st.integers(-(2**31), 2**31 - 1).map(v2c.Integer32),
    st.integers(0, 2**32 - 1).map(v2c.Counter32),
    st.integers(0, 2**32 - 1).map(v2c.Gauge32),
    st.integers(0, 2**32 - 1).map(v2c.TimeTicks),
    st.integers(0, 2**64 - 1).map(v2c.Counter64),
    st.binary(max_size=300).map(v2c.OctetString),
    st.binary(max_size=30).map(v2c.Opaque),
    st.binary(min_size=4, max_size=4).map(v2c.IpAddress),
    OIDS.map(v2c.ObjectIdentifier),
)
VARIABLES = st.lists(st.tuples(OIDS, VALUES), max_size=8)
UPTIMES = st.integers(0, 2**32 - 1)


def _message(api: Any, community: bytes, pdu: Any) -> bytes:
    message = api.Message()
    api.apiMessage.set_defaults(message)
    api.apiMessage.set_community(message, community)
    api.apiMessage.set_pdu(message, pdu)
    return bytes(encoder.encode(message))


@st.composite
def notifications(draw: st.DrawFn) -> bytes:
    """A trap or inform of version 2c."""
    pdu = v2c.SNMPv2TrapPDU() if draw(st.booleans()) else v2c.InformRequestPDU()
    v2c.apiPDU.set_defaults(pdu)
    first = [
        ((1, 3, 6, 1, 2, 1, 1, 3, 0), v2c.TimeTicks(draw(UPTIMES))),
        ((1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0), v2c.ObjectIdentifier(draw(OIDS))),
    ]
    v2c.apiPDU.set_varbinds(pdu, first + draw(VARIABLES))
    return _message(v2c, draw(st.binary(max_size=40)), pdu)


@st.composite
def traps_of_version_1(draw: st.DrawFn) -> bytes:
    """A trap of version 1."""
    pdu = v1.TrapPDU()
    v1.apiTrapPDU.set_defaults(pdu)
    v1.apiTrapPDU.set_enterprise(pdu, draw(OIDS))
    v1.apiTrapPDU.set_agent_address(pdu, "192.0.2.1")
    v1.apiTrapPDU.set_generic_trap(pdu, draw(st.integers(0, 6)))
    v1.apiTrapPDU.set_specific_trap(pdu, draw(st.integers(0, 2**31 - 1)))
    v1.apiTrapPDU.set_timestamp(pdu, draw(UPTIMES))
    return _message(v1, draw(st.binary(max_size=40)), pdu)


def as_version(data: bytes) -> int:
    """The version a message says it has, by pysnmp."""
    return int(decode_message_version(data))


def as_pysnmp_reads(data: bytes) -> tuple[Any, ...]:
    """Community, uptime, notification and variables as text, by pysnmp.

    Raises:
        PyAsn1Error, PySnmpError: it does not read it.
    """
    api = v1 if as_version(data) == 0 else v2c
    message, rest = decoder.decode(data, asn1Spec=api.Message())
    if rest:
        raise PySnmpError("something is behind the message")
    pdu = api.apiMessage.get_pdu(message)
    community = bytes(api.apiMessage.get_community(message))
    if api is v1:
        of = v1.apiTrapPDU
        enterprise, generic = of.get_enterprise(pdu), int(of.get_generic_trap(pdu))
        own = f"{enterprise}.0.{int(of.get_specific_trap(pdu))}"
        trap = own if generic == 6 else f"1.3.6.1.6.3.1.1.5.{generic + 1}"
        return community, int(of.get_timestamp(pdu)), trap, _plain(of.get_varbinds(pdu))
    (_, uptime), (_, trap), *others = v2c.apiPDU.get_varbinds(pdu)
    return community, int(uptime), str(trap), _plain(others)


def _plain(varbinds: Any) -> list[tuple[str, Any]]:
    return [(str(name), _value(value)) for name, value in varbinds]


def _value(value: Any) -> Any:
    kind = value.__class__.__name__
    if kind in ("OctetString", "Opaque"):
        return octets(bytes(value))
    if kind == "IpAddress":
        return ".".join(map(str, bytes(value)))
    return str(value) if kind.startswith("ObjectIdentifier") else int(value)


def as_we_read(data: bytes) -> tuple[Any, ...]:
    """The same by our reader."""
    message = ber.read(data)
    assert message is not None
    variables = [(name, written(tag, contents)) for name, tag, contents in message.varbinds]
    return message.community, message.uptime, message.trap, variables


@settings(max_examples=150, deadline=None)
@given(st.one_of(notifications(), traps_of_version_1()))
def test_both_read_the_same(data: bytes) -> None:
    assert as_we_read(data) == as_pysnmp_reads(data)


@settings(max_examples=150, deadline=None)
@given(st.one_of(notifications(), traps_of_version_1()), st.lists(st.tuples(st.integers(0), st.integers(0, 255))))
def test_what_is_damaged_is_refused_or_read_the_same(data: bytes, damage: list[tuple[int, int]]) -> None:
    damaged = bytearray(data)
    for place, byte in damage:
        damaged[place % len(data)] = byte
    try:
        ours = as_we_read(bytes(damaged))
    except ParseError:
        return
    except AssertionError:  # the damage made it one of version 3
        assert as_version(bytes(damaged)) == 3
        return
    with suppress(PyAsn1Error, PySnmpError):  # pysnmp refuses more, such as values beyond their range
        assert ours == as_pysnmp_reads(bytes(damaged))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\x30\x80\x02\x01\x01")  # an indefinite length
@example(b"\x30\x84\xff\xff\xff\xff")
@example(bytes.fromhex("3003020103"))
def test_garbage_is_refused(data: bytes) -> None:
    for read in (ber.read, ber.read_envelope):
        with suppress(ParseError):
            read(data)


@settings(max_examples=60, deadline=None)
@given(notifications())
def test_every_beginning_of_a_notification_is_refused(data: bytes) -> None:
    for end in range(len(data)):
        with pytest.raises(ParseError):
            ber.read(data[:end])


def test_too_many_variables_are_refused() -> None:
    pdu = v2c.SNMPv2TrapPDU()
    v2c.apiTrapPDU.set_defaults(pdu)
    many = [((1, 3, 6, 1), v2c.Integer32(1))] * (ber.MAX_VARBINDS + 1)
    v2c.apiPDU.set_varbinds(pdu, v2c.apiPDU.get_varbinds(pdu)[:1] + many)

    with pytest.raises(ParseError, match="more than 256 variables"):
        ber.read(_message(v2c, b"public", pdu))


def test_octets_are_text_or_digits_and_bounded() -> None:
    assert octets(b"eth0\x00") == "eth0"
    assert octets(b"") == ""
    assert octets(b"\x00\x1b\x21") == "00:1b:21"
    assert octets(b"\xff\xfe") == "ff:fe"
    assert octets(b"a\x1b[2Jb") == "61:1b:5b:32:4a:62"  # nothing that moves a terminal
    assert len(octets(b"x" * 5000)) == MAX_TEXT
    assert len(octets(b"\xff" * 5000)) <= MAX_TEXT


def test_our_names_are_whole() -> None:
    names = Names()

    assert names.notification("1.3.6.1.2.1.14.16.2.2").name == "ospfNbrStateChange"
    assert names.notification("1.3.6.1.2.1.15.7.0.2").name == "bgpBackwardTransition"  # of version 1
    peer = ("1.3.6.1.2.1.15.3.1.2.192.0.2.1", ber.INTEGER, b"\x01")
    assert names.variable(peer)[:] == ("bgpPeerState.192.0.2.1", "bgpPeerState", "192.0.2.1", "idle")


@pytest.mark.parametrize(("state", "told"), [(1, "firing"), (8, "resolved")])
def test_a_condition_may_be_told_by_a_value(state: int, told: str) -> None:
    names = Names()
    varbind = ("1.3.6.1.2.1.14.10.1.6.192.0.2.1.0", ber.INTEGER, bytes([state]))

    assert names.tells(names.notification("1.3.6.1.2.1.14.16.2.2"), [varbind]) == (told, ("192.0.2.1.0",))


def test_a_receiver_outlives_garbage(receive: Receive, send: Send) -> None:
    receiving = receive(users=[{"username": "anybody"}])
    v3 = bytes.fromhex("303a020103300e020101020300ffe3040100020103")
    garbage = [b"", b"\x00", b"\x30", b"0" * 500, bytes(1400), v3, v3 + bytes(41)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        for one in garbage:
            wire.sendto(one, ("127.0.0.1", receiving.port))

    receiving.wait(malformed=6, refused=1)
    send(receiving.port, V2C, "", COLD_START)

    receiving.wait(told=1)
    assert [one["kind"] for one in receiving.events()] == ["coldStart"]
