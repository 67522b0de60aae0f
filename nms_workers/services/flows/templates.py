"""What has to be remembered between datagrams: templates, options, sequence numbers, and data that came too early.

A stream is one observation domain (NetFlow v9: source id) of one port of one exporter in one format; template ids mean
something only there (RFC 7011 section 3.4.1, RFC 3954 section 5.1).
"""

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Annotated, Any, NamedTuple

import msgspec

from nms_workers.services.flows.elements import VARIABLE, Field
from nms_workers.services.flows.plan import Plan, plan
from nms_workers.services.flows.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what exporters can make us hold. Sizes in bytes, times in seconds."""

    exporters: int = 4096  # addresses
    streams: int = 256  # of one exporter: ports, formats and observation domains
    templates: int = 1024  # of one stream
    fields: int = 512  # of one template
    record: int = 4096  # bytes of one fixed record
    records: int = 2048  # of one datagram
    names: int = 100  # unknown fields named
    samplers: int = 4096  # of one stream: samplers, interfaces with a sampling interval, sources of samples
    lifetime: float = 5400.0  # of a template that neither comes again nor is used, and of a silent stream
    held: int = 4096  # data sets waiting for a template; one stream may have a quarter of them
    held_bytes: int = 8_388_608  # and of these
    held_for: float = 60.0
    clock: float = 3600.0  # an exporter's clock may be off the time of receipt by so much
    ahead: float = 60.0  # a flow may start or end so long after its export
    late: float = 7200.0  # the end of a flow may lie so long before its export
    age: float = 691_200.0  # the start; softflowd keeps a flow for a week


@dataclass(slots=True)
class Template:
    """A template: its fields, how many of them are the scope (0: of flows), and when it last came or was used."""

    fields: tuple[Field, ...]
    scope: int
    seen: int  # microseconds since 1970
    plan: Plan


@dataclass(slots=True)
class Sampling:
    """The sampling intervals that a stream told in options: for all of it, by sampler, by interface."""

    default: int = 0
    by_sampler: dict[int, int] = field(default_factory=dict)
    by_interface: dict[int, int] = field(default_factory=dict)


class Early(NamedTuple):
    """A data set that waits for its template."""

    payload: bytes
    context: Any  # of the format that reads it later
    received: int


@dataclass(slots=True)
class Stream:
    """What is known of one stream."""

    key: "StreamKey"
    seen: int
    templates: dict[int, Template] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    boot: int = 0  # when the exporter came up, milliseconds since 1970; 0: it did not say (IPFIX)
    sequence: Sequence = field(default_factory=Sequence)
    sources: dict[int, Sequence] = field(default_factory=dict)  # sFlow: of the samples of each source
    early: dict[int, list[Early]] = field(default_factory=dict)  # by the template they wait for
    early_sets: int = 0
    early_bytes: int = 0


class StreamKey(NamedTuple):
    """What tells streams apart. `agent`: as in `decoded.Origin`."""

    address: bytes
    port: int
    version: int
    domain: int
    agent: bytes = b""


class Templates:
    """All streams of all exporters. For one thread of one process."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.unknown_fields: Counter[str] = Counter()  # fields that no table knows, by the templates that had them
        self.changed = False  # since somebody last looked
        self.held = 0  # data sets that wait for their template now
        self.held_bytes = 0
        self._streams: dict[StreamKey, Stream] = {}
        self._exporters: Counter[bytes] = Counter()  # streams by address
        self._swept = 0
        self._told = 0
        self._waiting: dict[StreamKey, None] = {}  # streams that have something, in the order they began

    def stream(self, key: StreamKey, now: int) -> Stream | None:
        """The stream of this key, which is made when it is new; None: there are too many."""
        if (stream := self._streams.get(key)) is not None:
            stream.seen = now
            return stream
        if self._full(key.address):  # until the next sweep: to sweep for each who knocks is what an attacker wants
            return None
        self._exporters[key.address] += 1
        self._streams[key] = stream = Stream(key, now)
        return stream

    def _full(self, address: bytes) -> bool:
        streams = self._exporters.get(address, 0)
        return streams >= self.limits.streams or (not streams and len(self._exporters) >= self.limits.exporters)

    def learn(self, stream: Stream, template: int, fields: tuple[Field, ...], scope: int, now: int) -> str:
        """Take a template. Gives what is wrong with it, or nothing: `bad_template` or `too_many_templates`."""
        known = stream.templates.get(template)
        if known is not None and known.fields == fields and known.scope == scope:
            known.seen = now
            return ""
        if not self._sound(template, fields, scope):
            return "bad_template"
        if known is None and len(stream.templates) >= self.limits.templates:
            return "too_many_templates"
        planned = plan(fields)
        stream.templates[template] = Template(fields, scope, now, planned)
        self.changed = True
        for unread in planned.unread:
            if unread in self.unknown_fields or len(self.unknown_fields) < self.limits.names:
                self.unknown_fields[unread] += 1
        return ""

    def _sound(self, template: int, fields: tuple[Field, ...], scope: int) -> bool:
        if template < 256 or not 0 < len(fields) <= self.limits.fields or scope > len(fields):
            return False
        fixed = sum(field.length for field in fields if field.length != VARIABLE)
        return fixed <= self.limits.record and fixed + sum(field.length == VARIABLE for field in fields) > 0

    def withdraw(self, stream: Stream, template: int | None, *, options: bool = False) -> None:
        """Forget one template, or all of them (None): those of flows, or of options (RFC 7011 section 8.1)."""
        if template is not None:
            gone = [template] if template in stream.templates else []
        else:
            gone = [key for key, known in stream.templates.items() if bool(known.scope) == options]
        for key in gone:
            del stream.templates[key]
            self.changed = True

    def hold(self, stream: Stream, template: int, early: Early) -> bool:
        """Keep a data set until its template comes. Whether there was room."""
        size = len(early.payload)
        limits = self.limits
        if (
            self.held >= limits.held
            or self.held_bytes + size > limits.held_bytes
            or stream.early_sets >= limits.held // 4
            or stream.early_bytes + size > limits.held_bytes // 4
        ):
            return False
        stream.early.setdefault(template, []).append(early)
        self._waiting[stream.key] = None
        self._count(stream, 1, size)
        return True

    def release(self, stream: Stream, template: int) -> list[Early]:
        """The data sets that waited for this template."""
        mine = stream.early.pop(template, [])
        self._count(stream, -len(mine), -sum(len(early.payload) for early in mine))
        return mine

    def overdue(self, now: int) -> list[tuple[StreamKey, int]]:
        """Drop the data sets that waited too long: how many, by stream."""
        told = []
        oldest = now - int(self.limits.held_for * 1e6)
        for key in list(self._waiting):
            stream = self._streams[key]
            before = stream.early_sets
            for template, sets in list(stream.early.items()):
                if sets[0].received < oldest:
                    kept = [early for early in self.release(stream, template) if early.received >= oldest]
                    if kept:
                        stream.early[template] = kept
                        self._count(stream, len(kept), sum(len(early.payload) for early in kept))
            if not stream.early:
                del self._waiting[key]
            if before > stream.early_sets:
                told.append((key, before - stream.early_sets))
        return told

    def _count(self, stream: Stream, sets: int, size: int) -> None:
        stream.early_sets += sets
        stream.early_bytes += size
        self.held += sets
        self.held_bytes += size

    def expire(self, now: int) -> None:
        """Forget what neither came nor was used for a lifetime; looks at most once a minute."""
        if abs(now - self._swept) >= 60_000_000:
            self._sweep(now)
        if abs(now - self._told) >= self.limits.lifetime * 125_000:  # an eighth: what was used is not old in the file
            self._told = now
            self.changed = self.changed or any(stream.templates for stream in self._streams.values())

    def _sweep(self, now: int) -> None:
        self._swept = now
        oldest = now - int(self.limits.lifetime * 1e6)
        for key, stream in list(self._streams.items()):
            stream.seen = min(stream.seen, now)  # a clock that was set back must not keep it for ever
            if stream.seen < oldest and not stream.early:
                self._forget(key)
            else:
                self._expire(stream, now)

    def _expire(self, stream: Stream, now: int) -> None:
        oldest = now - int(self.limits.lifetime * 1e6)
        for template in stream.templates.values():
            template.seen = min(template.seen, now)
        for key in [key for key, template in stream.templates.items() if template.seen < oldest]:
            del stream.templates[key]
            self.changed = True

    def _forget(self, key: StreamKey) -> None:
        self.changed = self.changed or bool(self._streams[key].templates)
        del self._streams[key]
        self._exporters[key.address] -= 1
        if not self._exporters[key.address]:
            del self._exporters[key.address]

    def counts(self) -> dict[bytes, int]:
        """How many templates each exporter (packed address) has now."""
        found: Counter[bytes] = Counter()
        for key, stream in self._streams.items():
            found[key.address] += len(stream.templates)
        return dict(found)

    def dump(self) -> dict[str, Any]:
        """Everything that should survive a restart, as plain JSON: templates, sampling and boot times, by stream."""
        return {"version": 1, "streams": [_dumped(stream) for stream in self._streams.values() if _worth(stream)]}

    def load(self, dumped: object) -> int:
        """Take over what `dump()` gave, here or in a neighbour. How many templates were taken.

        Of a template that is known already the one stays that was seen last. What does not read, or breaks a limit, is
        left out, so that a file that was tampered with costs only itself. What is too old goes with the first datagram
        (`expire`).
        """
        try:
            streams = msgspec.convert(dumped, _Dump).streams
        except msgspec.ValidationError:
            return 0
        taken = 0
        for one in streams:
            try:
                old = msgspec.convert(one, _Stream)
                key = StreamKey(ip_address(old.address).packed, old.port, old.version, old.domain)
            except (msgspec.ValidationError, ValueError):
                continue
            new = key not in self._streams
            if old.version in {9, 10} and (stream := self._streams.get(key) or self.stream(key, old.seen)) is not None:
                taken += sum(self._take(stream, template) for template in old.templates)
                if not new and (stream.boot or stream.sampling != Sampling()):
                    continue
                stream.boot = old.boot
                most = self.limits.samplers
                by_sampler, by_interface = dict(old.by_sampler[:most]), dict(old.by_interface[:most])
                stream.sampling = Sampling(old.sampling, by_sampler, by_interface)
        return taken

    def _take(self, stream: Stream, old: "_Template") -> bool:
        if (known := stream.templates.get(old.id)) is not None and known.seen >= old.seen:
            return False
        fields = tuple(Field(*field) for field in old.fields)
        return not self.learn(stream, old.id, fields, old.scope, old.seen)


_U16 = Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)]
_U32 = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
_TIME = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class _Template(msgspec.Struct):
    id: _U16
    seen: _TIME
    scope: _U16
    fields: list[tuple[_U32, _U16, _U16]]


class _Stream(msgspec.Struct):
    address: str
    port: _U16
    version: _U16
    domain: _U32
    seen: _TIME
    boot: _TIME = 0
    sampling: _U32 = 0
    by_sampler: list[tuple[_TIME, _U32]] = []
    by_interface: list[tuple[_U32, _U32]] = []
    templates: list[_Template] = []


class _Dump(msgspec.Struct):
    version: int
    streams: list[Any]


def _worth(stream: Stream) -> bool:
    return bool(stream.templates or stream.boot or stream.sampling.default or stream.sampling.by_sampler)


def _dumped(stream: Stream) -> dict[str, Any]:
    key, sampling = stream.key, stream.sampling
    return {
        "address": str(ip_address(key.address)),
        "port": key.port,
        "version": key.version,
        "domain": key.domain,
        "seen": stream.seen,
        "boot": stream.boot,
        "sampling": sampling.default,
        "by_sampler": [list(item) for item in sampling.by_sampler.items()],
        "by_interface": [list(item) for item in sampling.by_interface.items()],
        "templates": [
            {"id": key, "seen": known.seen, "scope": known.scope, "fields": [list(field) for field in known.fields]}
            for key, known in stream.templates.items()
        ],
    }
