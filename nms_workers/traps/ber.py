"""Reads SNMP notifications of versions 1 and 2c from their bytes, and the outside of version 3.

Source: RFC 1157 section 4.1.6, RFC 3416 section 3, RFC 3412 section 6, RFC 3414 section 2.4; the rules of encoding are
ITU-T X.690, of which SNMP uses definite lengths only (RFC 3417 section 8). No compiled library on PyPI receives
notifications, and pysnmp takes a millisecond for each; what is read here is so little that reading it by hand is 50
times as fast. A test holds both equal.

Everything is bounded: an element ends where the one around it ends, a length has at most four bytes, lists at most
`MAX_VARBINDS` elements, and nothing recurses.
"""

from functools import lru_cache
from typing import NamedTuple

from nms_workers.errors import ParseError

MAX_VARBINDS = 256
_REMEMBERED_BYTES = 512
MAX_SUBIDENTIFIERS = 128  # RFC 2578 section 3.5

INTEGER, OCTETS, NULL, OBJECT_IDENTIFIER, SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x30
ADDRESS, COUNTER, GAUGE, TICKS, OPAQUE, COUNTER64 = 0x40, 0x41, 0x42, 0x43, 0x44, 0x46
RESPONSE, TRAP_V1, INFORM, TRAP_V2 = 0xA2, 0xA4, 0xA6, 0xA7

_UPTIME = "1.3.6.1.2.1.1.3.0"
_TRAP_OID = "1.3.6.1.6.3.1.1.4.1.0"
_GENERIC = "1.3.6.1.6.3.1.1.5"
_V1_ENTERPRISE_SPECIFIC = 6
_MAX_NUMBER = {INTEGER: 5, COUNTER: 5, GAUGE: 5, TICKS: 5, COUNTER64: 9}  # bytes: one more than bits, for a sign

Varbind = tuple[str, int, bytes]  # object identifier, tag, contents


class Message(NamedTuple):
    """A notification.

    Args:
        version: 0 for version 1, 1 for version 2c, 3 for version 3.
        community: empty for version 3.
        kind: the tag of its PDU: `TRAP_V1`, `TRAP_V2` or `INFORM`.
        trap: which notification it is; that of version 1 as RFC 3584 section 3.1 translates it.
        uptime: sysUpTime, in hundredths of a second.
        varbinds: without the two that version 2 puts first, sysUpTime and snmpTrapOID.
        agent: agent-addr of version 1: four bytes.
        pdu_at: where the PDU begins in the message.
    """

    version: int
    community: bytes
    kind: int
    trap: str
    uptime: int
    varbinds: tuple[Varbind, ...]
    agent: bytes = b""
    pdu_at: int = 0


class Envelope(NamedTuple):
    """The outside of a message of version 3: what is told before it is authenticated."""

    flags: int
    engine_id: bytes
    boots: int
    time: int
    user: bytes


def read(data: bytes) -> Message | None:
    """A notification of version 1 or 2c; None: the message is of version 3, whose outside `read_envelope` reads.

    Raises:
        ParseError: it is no such thing; the message says why, in words that hold nothing of the datagram.
    """
    try:
        at, end = _enter(data, 0, len(data), SEQUENCE)
        start, at = _enter(data, at, end, INTEGER)
        if at - start != 1 or data[start] not in (0, 1, 3):
            raise ParseError("a message of an SNMP version that does not exist")
        version = data[start]
        if version == 3:
            return None
        start, at = _enter(data, at, end, OCTETS)
        return read_pdu(data, at, end, version, data[start:at])
    except IndexError:
        raise ParseError("the message ends in the middle") from None


def read_pdu(data: bytes, at: int, end: int, version: int, community: bytes) -> Message:
    """The notification in a PDU that stands between `at` and `end`.

    Raises:
        ParseError: it is none.
    """
    kind, pdu_at = data[at], at
    if kind not in ((TRAP_V1,) if version == 0 else (TRAP_V2, INFORM)):
        raise ParseError("the message is no notification of its version")
    at, stop = _enter(data, at, end, kind)
    if stop != end:
        raise ParseError("there is something behind the message")
    if kind == TRAP_V1:
        return _trap_v1(data, at, end, community, pdu_at)
    for _ in range(3):  # request-id, and two fields that a notification leaves at 0
        start, at = _enter(data, at, end, INTEGER)
        _number(data, start, at, INTEGER)
    at = _list(data, at, end)
    _, rest = _enter(data, at, end, SEQUENCE)
    uptime, others = _read_variables(data[at:rest]), _variables(data[rest:end])
    if not others or uptime[0][:2] != (_UPTIME, TICKS) or others[0][:2] != (_TRAP_OID, OBJECT_IDENTIFIER):
        raise ParseError("the notification does not begin with sysUpTime and snmpTrapOID")
    hundredths = int.from_bytes(uptime[0][2])
    return Message(version, community, kind, oid_text(others[0][2]), hundredths, others[1:], b"", pdu_at)


def _trap_v1(data: bytes, at: int, end: int, community: bytes, pdu_at: int) -> Message:
    start, at = _enter(data, at, end, OBJECT_IDENTIFIER)
    enterprise = oid_text(data[start:at])
    start, at = _enter(data, at, end, ADDRESS)
    agent = data[start:at]
    if len(agent) != 4:
        raise ParseError("the agent-addr of a trap has four bytes")
    start, at = _enter(data, at, end, INTEGER)
    generic = _number(data, start, at, INTEGER)
    start, at = _enter(data, at, end, INTEGER)
    specific = _number(data, start, at, INTEGER)
    start, at = _enter(data, at, end, TICKS)
    uptime = _number(data, start, at, TICKS)
    if not 0 <= generic <= _V1_ENTERPRISE_SPECIFIC or specific < 0:
        raise ParseError("generic-trap is from 0 to 6, and specific-trap not below 0")
    own = generic == _V1_ENTERPRISE_SPECIFIC
    trap = f"{enterprise}.0.{specific}" if own else f"{_GENERIC}.{generic + 1}"
    return Message(0, community, TRAP_V1, trap, uptime, _variables(data[_list(data, at, end) : end]), agent, pdu_at)


def _list(data: bytes, at: int, end: int) -> int:
    """Where the first element of the list of variables begins; the list must end at `end`."""
    at, stop = _enter(data, at, end, SEQUENCE)
    if stop != end:
        raise ParseError("there is something behind the variables")
    return at


def _variables(contents: bytes) -> tuple[Varbind, ...]:
    """The variables that these bytes are. What a storm says again and again is read once."""
    return _known_variables(contents) if len(contents) <= _REMEMBERED_BYTES else _read_variables(contents)


def _read_variables(data: bytes) -> tuple[Varbind, ...]:
    """This is where the time goes: short lengths are read in place."""
    at, end = 0, len(data)
    found: list[Varbind] = []
    while at < end:
        if data[at] == SEQUENCE and data[at + 1] < 0x80 and at + 2 + data[at + 1] <= end:
            at, stop = at + 2, at + 2 + data[at + 1]
        else:
            at, stop = _enter(data, at, end, SEQUENCE)
        if data[at] == OBJECT_IDENTIFIER and data[at + 1] < 0x80 and at + 2 + data[at + 1] <= stop:
            start, at = at + 2, at + 2 + data[at + 1]
        else:
            start, at = _enter(data, at, stop, OBJECT_IDENTIFIER)
        name = oid_text(data[start:at])
        tag = data[at] if at < stop else 0
        if at + 2 <= stop and at + 2 + data[at + 1] == stop and stop - at < 0x82:
            start, at = at + 2, stop
        else:
            start, at = _enter(data, at, stop, tag)
        if at != stop:
            raise ParseError("a variable has more than a name and a value")
        if tag != INTEGER or at - start != 1:  # most are
            _check_value(data, tag, start, at)
        found.append((name, tag, data[start:at]))
        if len(found) > MAX_VARBINDS:
            raise ParseError(f"a notification with more than {MAX_VARBINDS} variables")
    return tuple(found)


_known_variables = lru_cache(maxsize=4096)(_read_variables)


def _enter(data: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """Where the contents of the element at `at` begin and end; it must have this tag and end by `end`."""
    if at + 2 > end or data[at] != tag:
        raise ParseError("an element is missing or of another type")
    length = data[at + 1]
    start = at + 2
    if length >= 0x80:
        count = length - 0x80
        if not 1 <= count <= 4 or start + count > end:
            raise ParseError("a length that SNMP does not use")
        length = int.from_bytes(data[start : start + count])
        start += count
    stop = start + length
    if stop > end:
        raise ParseError("an element is longer than what is around it")
    return start, stop


def _check_value(data: bytes, tag: int, start: int, stop: int) -> None:
    if tag in (OCTETS, OPAQUE):
        return
    if tag == OBJECT_IDENTIFIER:
        oid_text(data[start:stop])
    elif tag in _MAX_NUMBER:
        _number(data, start, stop, tag)
    elif tag == ADDRESS:
        if stop - start != 4:
            raise ParseError("an IpAddress has four bytes")
    elif tag == NULL:
        if stop != start:
            raise ParseError("a NULL has no contents")
    else:
        raise ParseError("a variable of a type that SNMP does not have")


def _number(data: bytes, start: int, stop: int, tag: int) -> int:
    if not 0 < stop - start <= _MAX_NUMBER[tag]:
        raise ParseError("a number without bytes, or with too many")
    if tag == INTEGER:
        value = int.from_bytes(data[start:stop], signed=True)
        if not -(1 << 31) <= value < 1 << 31:
            raise ParseError("a number of more than 32 bits")
        return value
    if stop - start == _MAX_NUMBER[tag] and data[start]:
        raise ParseError("a number of more bits than its type has")
    return int.from_bytes(data[start:stop])


@lru_cache(maxsize=65_536)
def oid_text(contents: bytes) -> str:
    """An object identifier with dots.

    Raises:
        ParseError: it is none: cut off, too long, a number of more than 32 bits.
    """
    if not contents or contents[-1] & 0x80:
        raise ParseError("an object identifier is empty, or cut off")
    numbers: list[int] = []
    value = 0
    for byte in contents:
        if byte == 0x80 and not value:
            raise ParseError("an object identifier with a number that begins with nothing")
        value = value << 7 | byte & 0x7F
        if value > 0xFFFFFFFF + 80:
            raise ParseError("an object identifier with a number of more than 32 bits")
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2)
    numbers[:1] = [first, numbers[0] - 40 * first]
    if len(numbers) > MAX_SUBIDENTIFIERS or max(numbers) > 0xFFFFFFFF:
        raise ParseError("an object identifier of more than 128 numbers, or one of more than 32 bits")
    return ".".join(map(str, numbers))


def read_envelope(data: bytes) -> Envelope:
    """The outside of a message of version 3; nothing of it is authenticated yet.

    Raises:
        ParseError: it is none, or not of the user-based security model.
    """
    try:
        at, end = _enter(data, 0, len(data), SEQUENCE)
        _, at = _enter(data, at, end, INTEGER)
        head, at = _enter(data, at, end, SEQUENCE)
        security, _ = _enter(data, at, end, OCTETS)
        for _ in range(2):  # msgID, msgMaxSize
            _, head = _enter(data, head, at, INTEGER)
        flags, head = _enter(data, head, at, OCTETS)
        model, stop = _enter(data, head, at, INTEGER)
        if head - flags != 1 or data[model:stop] != b"\x03":
            raise ParseError("a message of version 3 without the user-based security model")
        at, end = _enter(data, security, end, SEQUENCE)
        engine, at = _enter(data, at, end, OCTETS)
        engine_id = data[engine:at]
        boots, at = _enter(data, at, end, INTEGER)
        boots_told = _number(data, boots, at, INTEGER)
        time, at = _enter(data, at, end, INTEGER)
        time_told = _number(data, time, at, INTEGER)
        user, at = _enter(data, at, end, OCTETS)
        if len(engine_id) > 32 or at - user > 32 or min(boots_told, time_told) < 0:
            raise ParseError("a message of version 3 with an engine, user or time that cannot be")
        return Envelope(data[flags], engine_id, boots_told, time_told, data[user:at])
    except IndexError:
        raise ParseError("the message ends in the middle") from None


def answer_to(data: bytes, message: Message) -> bytes:
    """What acknowledges an inform of version 2c: the same message as a Response (RFC 3416 section 4.2.7)."""
    return data[: message.pdu_at] + bytes((RESPONSE,)) + data[message.pdu_at + 1 :]
