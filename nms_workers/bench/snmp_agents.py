"""Many SNMP agents in one process, quick enough never to be what is measured: version 2c, rows encoded beforehand.

`python -m nms_workers.bench.snmp_agents --agents 200 --ports 48 --columns 26` answers at that many sockets of 127.0.0.1
until its standard input ends, and prints the ports. Its devices have the system group, IF-MIB's tables with as many
columns as asked for, and counters that grow. BER is RFC 3417 section 8, the operations RFC 3416 section 4.2.
"""

import argparse
import json
import random
import resource
import selectors
import socket
import sys
import time
from bisect import bisect_right
from typing import NamedTuple

SYSTEM, IF_TABLE, IF_X_TABLE = (1, 3, 6, 1, 2, 1, 1), (1, 3, 6, 1, 2, 1, 2, 2, 1), (1, 3, 6, 1, 2, 1, 31, 1, 1, 1)
TABLE_CHANGED = (1, 3, 6, 1, 2, 1, 31, 1, 5, 0)
GENERATION_SECONDS = 5.0  # how often counters move: a row is encoded once in this time
MAX_ANSWER = 60_000  # bytes of rows in one datagram

_GET, _GET_NEXT, _GET_BULK = 0xA0, 0xA1, 0xA5
_INTEGER, _OCTETS, _OBJECT, _COUNTER32, _GAUGE, _TICKS, _COUNTER64 = 0x02, 0x04, 0x06, 0x41, 0x42, 0x43, 0x46
_NO_SUCH_INSTANCE, _END_OF_VIEW = b"\x81\x00", b"\x82\x00"
_REMEMBERED = 10_000  # places found by searching

# What a switch has of IF-MIB that changes, in the order in which --columns takes it: (table, column, type). First the
# counters of 64 bits and those that have no such twin, then states, then the twins of 32 bits.
COLUMNS = (
    *((IF_X_TABLE, column, _COUNTER64) for column in range(6, 14)),
    *((IF_TABLE, column, _COUNTER32) for column in (13, 14, 15, 19, 20)),
    *((IF_TABLE, column, _INTEGER) for column in (7, 8)),
    (IF_X_TABLE, 15, _GAUGE),
    (IF_TABLE, 9, _TICKS),
    (IF_X_TABLE, 19, _TICKS),
    (IF_TABLE, 21, _GAUGE),
    *((IF_X_TABLE, column, _INTEGER) for column in (14, 16, 17)),
    *((IF_TABLE, column, _COUNTER32) for column in (10, 16, 11, 17, 12, 18)),
    *((IF_X_TABLE, column, _COUNTER32) for column in (2, 3, 4, 5)),
    (IF_TABLE, 5, _GAUGE),
)
NAMES = ((IF_TABLE, 2), (IF_X_TABLE, 1))  # ifDescr, ifName

Oid = tuple[int, ...]


def tlv(tag: int, body: bytes) -> bytes:
    """A tag, a length and what it is the length of."""
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def number(tag: int, value: int) -> bytes:
    """An integer of any of SNMP's types, which are all signed as BER has them."""
    return tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def oid(arcs: Oid) -> bytes:
    """The body of an object identifier."""
    out = bytearray((arcs[0] * 40 + arcs[1],))
    for arc in arcs[2:]:
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(arc & 0x7F | 0x80)
        out += bytes(reversed(septets))
    return bytes(out)


def arcs_of(body: bytes) -> Oid:
    """The object identifier of such a body."""
    found, arc = [body[0] // 40, body[0] % 40], 0
    for octet in body[1:]:
        arc = arc << 7 | octet & 0x7F
        if octet < 0x80:
            found.append(arc)
            arc = 0
    return tuple(found)


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, begin and end of the body of the element at this place."""
    length, begin = data[at + 1], at + 2
    if length & 0x80:
        octets = length & 0x7F
        length, begin = int.from_bytes(data[begin : begin + octets], "big"), begin + octets
    return data[at], begin, begin + length


class Request(NamedTuple):
    """What an agent needs of a request; `head` is version and community, `number` the request-id, both as they came."""

    head: bytes
    number: bytes
    tag: int
    repetitions: int
    names: list[bytes]


def request_of(data: bytes) -> Request:
    """A request taken apart.

    Raises:
        IndexError: it is none.
    """
    _, begin, _ = _element(data, 0)
    _, _, version = _element(data, begin)
    _, _, community = _element(data, version)
    tag, inner, _ = _element(data, community)
    _, _, after_number = _element(data, inner)
    _, _, after_first = _element(data, after_number)
    _, second, after_second = _element(data, after_first)
    _, at, end = _element(data, after_second)
    names = []
    while at < end:
        _, row, after = _element(data, at)
        _, name, name_end = _element(data, row)
        names.append(data[name:name_end])
        at = after
    repetitions = int.from_bytes(data[second:after_second], "big")
    return Request(data[begin:community], data[inner:after_number], tag, repetitions, names)


class Model:
    """The rows all devices share: every object in order, encoded anew when the counters have moved."""

    def __init__(self, ports: int, columns: int) -> None:
        shown = [*NAMES, *((table, column) for table, column, _ in COLUMNS[:columns])]
        cells = [(*table, column, port) for table, column in shown for port in range(1, ports + 1)]
        scalars = [(*SYSTEM, 2, 0), (*SYSTEM, 3, 0), (*SYSTEM, 5, 0), TABLE_CHANGED]
        self.order = sorted([*scalars, *cells])
        self.names = [oid(one) for one in self.order]
        self.places = {name: place for place, name in enumerate(self.names)}
        self._after: dict[bytes, int] = {}
        self._types = {(*table, column): tag for table, column, tag in COLUMNS}
        self._chance = random.Random(1)  # noqa: S311 - no secret
        self._counts = [self._chance.randrange(2**30) for _ in self.order]
        self._began = time.monotonic()
        self.generation = -1
        self.rows: list[bytes] = []

    def move(self) -> None:
        """Let the counters grow, if it is time."""
        generation = int((time.monotonic() - self._began) / GENERATION_SECONDS)
        if generation == self.generation:
            return
        self.generation = generation
        for place in range(len(self._counts)):
            self._counts[place] += self._chance.randrange(200_000)
        self.rows = [self._row(place) for place in range(len(self.order))]

    def place_after(self, name: bytes) -> int:
        """Where the first object after this one stands."""
        if (here := self.places.get(name)) is not None:
            return here + 1
        if name not in self._after:
            if len(self._after) >= _REMEMBERED:
                self._after.clear()
            self._after[name] = bisect_right(self.order, arcs_of(name))
        return self._after[name]

    def _row(self, place: int) -> bytes:
        arcs = self.order[place]
        return tlv(0x30, tlv(_OBJECT, self.names[place]) + self._value(arcs, self._counts[place]))

    def _value(self, arcs: Oid, count: int) -> bytes:
        if arcs == TABLE_CHANGED:
            return number(_TICKS, 0)
        if arcs[:-2] == SYSTEM:
            told = {2: tlv(_OBJECT, oid((1, 3, 6, 1, 4, 1, 8072, 3, 2, 10))), 5: tlv(_OCTETS, b"bench")}
            return told.get(arcs[-2]) or number(_TICKS, int((time.monotonic() - self._began) * 100) + 1_000_000)
        tag = self._types.get(arcs[:-1], _OCTETS)
        if tag in (_COUNTER32, _COUNTER64):
            return number(tag, count % 2**32 if tag == _COUNTER32 else count)
        return number(tag, 1)


class Device:
    """One agent: the model's rows, and port names of its own."""

    def __init__(self, model: Model, called: str) -> None:
        self._model = model
        self._own = {}
        for place, arcs in enumerate(model.order):
            if arcs[:-1] in {(*table, column) for table, column in NAMES}:
                value = tlv(_OCTETS, f"{called}/{arcs[-1]}".encode())
                self._own[place] = tlv(0x30, tlv(_OBJECT, model.names[place]) + value)
        self._generation = -1
        self._rows: list[bytes] = []

    def answer(self, data: bytes) -> bytes:
        """The answer to a request."""
        asked = request_of(data)
        self._model.move()
        if self._generation != self._model.generation:
            self._generation, self._rows = self._model.generation, self._model.rows.copy()
            for place, row in self._own.items():
                self._rows[place] = row
        rows = b"".join(part for name in asked.names for part in self._of(asked, name))
        pdu = asked.number + b"\x02\x01\x00\x02\x01\x00" + tlv(0x30, rows)
        return tlv(0x30, asked.head + tlv(0xA2, pdu))

    def _of(self, asked: Request, name: bytes) -> list[bytes]:
        if asked.tag == _GET:
            place = self._model.places.get(name)
            return [_plain(name, _NO_SUCH_INSTANCE) if place is None else self._rows[place]]
        place = self._model.place_after(name)
        rows = self._rows[place : place + (asked.repetitions if asked.tag == _GET_BULK else 1)]
        return rows or [_plain(name, _END_OF_VIEW)]


def _plain(name: bytes, value: bytes) -> bytes:
    return tlv(0x30, tlv(_OBJECT, name) + value)


def serve(agents: int, ports: int, columns: int) -> None:
    """Answer until standard input ends."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    model = Model(ports, columns)
    with selectors.DefaultSelector() as waiting:
        at = []
        for each in range(agents):
            listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            listening.bind(("127.0.0.1", 0))
            listening.setblocking(False)
            waiting.register(listening, selectors.EVENT_READ, Device(model, f"{each}"))
            at.append(listening.getsockname()[1])
        waiting.register(sys.stdin, selectors.EVENT_READ)
        sys.stdout.write(json.dumps(at) + "\n")
        sys.stdout.flush()
        while True:
            for key, _ in waiting.select():
                if key.data is None:
                    return
                _answer_all(key.fileobj, key.data)  # type: ignore[arg-type]


def _answer_all(listening: socket.socket, device: Device) -> None:
    while True:
        try:
            data, sender = listening.recvfrom(65_535)
        except BlockingIOError:
            return
        try:
            answer = device.answer(data)
        except IndexError:  # no request: agents are silent to what is no SNMP
            continue
        if len(answer) <= MAX_ANSWER:
            listening.sendto(answer, sender)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("agents", "ports", "columns"):
        parser.add_argument(f"--{option}", type=int, required=True)
    given = parser.parse_args()
    serve(given.agents, given.ports, given.columns)
