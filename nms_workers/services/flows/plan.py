"""How the records of one template are read: once planned, one numpy assignment a field for all records of a set.

The records lie in the datagram as a C struct would, so a numpy dtype over the bytes is all the parsing there is. Where
a template has fields of variable length (RFC 7011 section 7), a slower walk first cuts these out: none is of a flow.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nms_workers.services.flows.elements import VARIABLE, Element, Field, element, name
from nms_workers.services.flows.record import FLOW, Flows

Numbers = NDArray[Any]

_PARTS = {1: (1,), 2: (2,), 3: (1, 2), 4: (4,), 5: (1, 4), 6: (2, 4), 7: (1, 2, 4), 8: (8,)}
_WIDTHS = {"ipv4Address": (4,), "ipv6Address": (16,), "macAddress": (6,), "dateTimeMicroseconds": (8,),
           "dateTimeNanoseconds": (8,)}  # fmt: skip
_MAPPED = np.uint64(0xFFFF_0000_0000)  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2
_ABSENT = {"next_hop", "bgp_next_hop", "post_nat_source_address", "post_nat_destination_address"}
_NTP_EPOCH, _NTP_ERA = 2_208_988_800, 1 << 32  # seconds from 1900 to 1970 (RFC 5905 section 6)
_FAR = 1 << 62  # microseconds: a time that cannot be


class Source(NamedTuple):
    """Where a value stands in a record (columns of the dtype, most significant first) and what it is."""

    columns: tuple[tuple[str, int], ...]  # name, bits
    element: Element


class Plan:
    """How to read the records of one list of fields.

    Args:
        fields: of the template, in order.

    Attributes:
        size: bytes of one record without its fields of variable length.
        minimum: bytes that a record has at least. 0: such records cannot be told apart.
        flows: whether there is anything of a flow in it.
        both_ways: whether a record tells of both directions.
        unread: names of the fields that no table knows, or that have a length which does not fit.
    """

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self.sources: dict[str, list[Source]] = {}
        self.unread: list[str] = []
        self._runs = [0]
        names: list[str] = []
        formats: list[str] = []
        offsets: list[int] = []
        for field in fields:
            if field.length == VARIABLE:
                self._runs.append(0)
                if element(field.enterprise, field.number) is None:
                    self.unread.append(name(field))
                continue
            at = sum(self._runs)
            self._runs[-1] += field.length
            columns = self._plan(field)
            for width, bits in columns:
                names.append(f"c{len(names)}")
                formats.append(f">u{width}" if width < 16 else "(2,)>u8")
                offsets.append(at)
                at += bits // 8
            if columns:
                found = element(field.enterprise, field.number)
                assert found is not None  # noqa: S101 - it has columns
                source = Source(tuple(zip(names[-len(columns) :], (b for _, b in columns), strict=True)), found)
                self.sources.setdefault(found.field, []).append(source)
        for sources in self.sources.values():
            sources.sort(key=lambda source: source.element.rank)
        self.size = sum(self._runs)
        self.minimum = self.size + len(self._runs) - 1
        layout: Any = {"names": names, "formats": formats, "offsets": offsets, "itemsize": self.size}
        self.dtype = np.dtype(layout) if names else np.dtype((np.void, max(self.size, 1)))
        self.flows = bool(self.sources.keys() & _TELLING)
        self.both_ways = bool(self.sources.keys() & {"reverse_octets", "reverse_packets"})

    def _plan(self, field: Field) -> list[tuple[int, int]]:
        """The columns (width in bytes, bits) of a field that is kept; none for others."""
        known = element(field.enterprise, field.number)
        if known is None:
            self.unread.append(name(field))
            return []
        if not known.field or known.type == "string":  # texts come in options
            return []
        if field.length not in _WIDTHS.get(known.type, _PARTS):
            if field.length:
                self.unread.append(f"{known.name}[{field.length}]")
            return []
        return [(width, width * 8) for width in _PARTS.get(field.length, (16,))]

    @property
    def variable(self) -> bool:
        """Whether records differ in length."""
        return len(self._runs) > 1

    def compact(self, payload: bytes, most: int) -> tuple[bytes, int, bool]:
        """The records without their fields of variable length, how many, and whether all of them could be read."""
        kept: list[bytes] = []
        at, count, end = 0, 0, len(payload)
        while end - at >= self.minimum and count < most:
            record: list[bytes] = []
            for run in self._runs[:-1]:
                record.append(payload[at : at + run])
                at = after_variable(payload, at + run)
            record.append(payload[at : at + self._runs[-1]])
            at += self._runs[-1]
            if at > end:
                return b"".join(kept), count, False
            kept.extend(record)
            count += 1
        return b"".join(kept), count, True

    def fill(self, payload: bytes, start: int, out: Flows) -> NDArray[np.void]:
        """Set the fields of `out` that are simple numbers and addresses from the records from number `start` on.

        Gives the records, for the values that need more than themselves (`number`, `before`).
        """
        records = np.frombuffer(payload, self.dtype, len(out), start * self.size)
        for field, sources in self.sources.items():
            if field in _ADDRESSES:
                _addresses(records, sources, out[field], none=field in _ABSENT)
            elif field in _NUMBERS:
                out[field] = clipped(self.number(records, field), _NUMBERS[field])
        if "source_address" in self.sources and "ip_version" not in self.sources:
            out["ip_version"] = _versions(self.sources["source_address"], out)
        if "direction" not in self.sources:
            out["direction"] = 255
        self._fill_icmp(records, out)
        if "ttl" in self.sources:
            out["minimum_ttl"] = out["maximum_ttl"] = self.number(records, "ttl")
        return records

    def _fill_icmp(self, records: NDArray[np.void], out: Flows) -> None:
        """Type and code of ICMP: of their own field or fields, else where NetFlow v5 has them: as destination port."""
        if "icmp_type" in self.sources:
            code = self.number(records, "icmp_code") if "icmp_code" in self.sources else 0
            out["icmp_type_code"] = self.number(records, "icmp_type").astype("u2") * 256 + code
        elif "icmp_type_code" not in self.sources and "destination_port" in self.sources:
            icmp = (out["protocol"] == 1) | (out["protocol"] == 58)
            out["icmp_type_code"] = np.where(icmp, out["destination_port"], 0)

    def number(self, records: NDArray[np.void], field: str) -> Numbers:
        """The values of a field that is a number: of the first source that is not 0, by rank."""
        first, *others = self.sources[field]
        value = _number(records, first)
        for other in others:
            value = np.where(value == 0, _number(records, other), value)
        return value

    def before(self, records: NDArray[np.void], field: str, export: Numbers, uptime: Numbers) -> Numbers | None:
        """How long before its export something (`start` or `end`) was, in microseconds; None where nothing tells.

        Args:
            export: time of the export by the exporter's clock, microseconds since 1970.
            uptime: of the exporter then, milliseconds; below 0: not known.
        """
        if field not in self.sources:
            return None
        before: Numbers | None = None
        for source in reversed(self.sources[field]):
            value = _number(records, source)
            one: Numbers = _TIMES[source.element.rule or source.element.type](value, export, uptime)
            before = one if before is None else np.where(value == 0, before, one)
        return before

    def uptimes(self, records: NDArray[np.void], export: Numbers, uptime: Numbers) -> Numbers:
        """Milliseconds since the exporter came up, as the records themselves tell it where they do."""
        if "boot" not in self.sources:
            return uptime
        return np.where((boot := self.number(records, "boot")) == 0, uptime, export // 1000 - boot.astype("i8"))

    def durations(self, records: NDArray[np.void]) -> Numbers | None:
        """How long the flows lasted, in microseconds, by the records' own account."""
        if "duration" not in self.sources:
            return None
        scale = {"milliseconds": 1000, "microseconds": 1}[self.sources["duration"][0].element.rule]
        value = _number(records, self.sources["duration"][0]).astype("u8")
        bounded: Numbers = np.minimum(value, _FAR // 1000)
        return bounded.astype("i8") * scale


@lru_cache(maxsize=8192)
def plan(fields: tuple[Field, ...]) -> Plan:
    """The plan of these fields: templates that look the same share one, so that their records are read together."""
    return Plan(fields)


def after_variable(payload: bytes, at: int) -> int:
    """Where the field of variable length that begins at `at` ends; beyond the payload if it is cut off."""
    if at >= len(payload):
        return at + 1
    if (length := payload[at]) < 255:
        return at + 1 + length
    return at + 3 + int.from_bytes(payload[at + 1 : at + 3])


def options(fields: tuple[Field, ...], payload: bytes) -> Iterator[dict[str, bytes] | None]:
    """The records of an options template, each as the bytes of the fields we know by their word; None: cut off."""
    known = [(field.length, found.field if (found := element(*field[:2])) else "") for field in fields]
    minimum = sum(1 if length == VARIABLE else length for length, _ in known)
    at = 0
    while minimum and len(payload) - at >= minimum:
        record: dict[str, bytes] = {}
        for length, word in known:
            end = after_variable(payload, at) if length == VARIABLE else at + length
            if word:
                skip = 0 if length != VARIABLE else 3 if payload[at : at + 1] == b"\xff" else 1
                record.setdefault(word, payload[at + skip : end])
            at = end
        if at > len(payload):
            yield None
            return
        yield record


def _number(records: NDArray[np.void], source: Source) -> Numbers:
    (column, _), *rest = source.columns
    value: Numbers = records[column]
    if rest:
        value = value.astype("u8")
        for column, bits in rest:
            value = (value << np.uint64(bits)) | records[column]
    rule = _RULES.get(source.element.rule)
    return rule(value) if rule else value


def clipped(value: Numbers, width: int) -> Numbers:
    """A number that is wider than the field is the field's largest, never another one."""
    return np.minimum(value, (1 << width * 8) - 1) if value.dtype.itemsize > width else value


def _addresses(records: NDArray[np.void], sources: list[Source], out: Numbers, *, none: bool) -> None:
    for source in reversed(sources):
        value = records[source.columns[0][0]]
        if value.ndim == 2:
            some = (value[:, 0] | value[:, 1]) != 0
            if len(sources) == 1:
                out[:] = value
            else:
                np.copyto(out, value, where=some[:, None])
            continue
        mapped = value.astype("u8") | _MAPPED
        if none or len(sources) > 1:
            some = value != 0
            out[:, 0][some] = 0
            out[:, 1][some] = mapped[some]
        else:
            out[:, 1] = mapped


def _versions(sources: list[Source], out: Flows) -> Numbers | int:
    widths = {source.columns[0][1] for source in sources}
    if widths == {32}:
        return 4
    if widths == {128}:
        return 6
    four: Numbers = (out["source_address"][:, 0] == 0) & (out["source_address"][:, 1] >> np.uint64(32) == 0xFFFF)
    versions: Numbers = 6 - 2 * four.astype("u1")
    return versions


def _ntp(value: Numbers, export: Numbers, _uptime: Numbers) -> Numbers:
    seconds = (value >> np.uint64(32)).astype("i8") - _NTP_EPOCH
    seconds = np.where(seconds < 0, seconds + _NTP_ERA, seconds)
    fraction = ((value & np.uint64(0xFFFFFFFF)) * np.uint64(1_000_000)) >> np.uint64(32)
    before: Numbers = export - seconds * 1_000_000 - fraction.astype("i8")
    return before


def _uptime(value: Numbers, _export: Numbers, uptime: Numbers) -> Numbers:
    before = (uptime - value.astype("i8")).astype("u4").astype("i4").astype("i8") * 1000  # it wraps after 49.7 days
    return np.where(uptime < 0, _FAR, before)


def _since_1970(unit: int) -> Callable[[Numbers, Numbers, Numbers], Numbers]:
    most = _FAR // unit
    return lambda value, export, _uptime: export - np.minimum(value.astype("u8"), most).astype("i8") * unit


_RULES: dict[str, Callable[[Numbers], Numbers]] = {
    "label": lambda value: value >> np.uint64(4),
    "dscp": lambda value: (value & 63) << 2,
}
_TIMES: dict[str, Callable[[Numbers, Numbers, Numbers], Numbers]] = {
    "dateTimeSeconds": _since_1970(1_000_000),
    "dateTimeMilliseconds": _since_1970(1000),
    "dateTimeMicroseconds": _ntp,
    "dateTimeNanoseconds": _ntp,
    "before_export": lambda value, _export, _uptime: value.astype("i8"),
    "uptime": _uptime,
}
_ADDRESSES = {field for field in FLOW.names or () if FLOW[field].shape}
_NUMBERS = {field: FLOW[field].itemsize for field in FLOW.names or () if not FLOW[field].shape}
_TELLING = {"octets", "packets", "source_address", "destination_address", "post_nat_source_address"}
