"""What a poll yields: the five kinds of record. Checked when they are made, so nothing downstream checks again.

Metric names, label names and units follow OpenMetrics (`redis_memory_used_bytes`, base units, counters end in
`_total`). Times are aware datetimes; `None` means "when the poll was read".
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any, Literal, TypeAlias, get_args

import msgspec
import numpy as np
from msgspec.structs import force_setattr
from numpy.typing import NDArray

from nms_workers.errors import ParseError

Labels: TypeAlias = tuple[tuple[str, str], ...]
Attributes: TypeAlias = dict[str, Any]

_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
MAX_NAME = 255
MAX_LABELS = 64
MAX_LABEL_VALUE = 1024
MAX_TEXT = 16_384
MAX_ATTRIBUTES = 262_144  # bytes of JSON


class Series(msgspec.Struct, frozen=True, array_like=True):
    """One metric with one set of labels; labels are sorted by name."""

    metric: str
    labels: Labels = ()

    def __str__(self) -> str:
        if not self.labels:
            return self.metric
        return self.metric + "{" + ",".join(f"{k}={msgspec.json.encode(v).decode()}" for k, v in self.labels) + "}"


@lru_cache(maxsize=65_536)
def series(metric: str, labels: Labels = ()) -> Series:
    """The checked series of this name.

    Args:
        metric: an OpenMetrics metric name.
        labels: (name, value) pairs in any order.

    Raises:
        ParseError: a name breaks the OpenMetrics grammar, is too long or comes twice, or a label value is too long or
            is not Unicode.
    """
    if not _METRIC.match(metric) or len(metric) > MAX_NAME:
        raise ParseError(f"{metric[:80]!r} is not a metric name of at most {MAX_NAME} characters")
    for name, value in labels:
        if not _LABEL.match(name) or len(name) > MAX_NAME:
            raise ParseError(f"{name[:80]!r} is not a label name of at most {MAX_NAME} characters (metric {metric})")
        if len(value) > MAX_LABEL_VALUE or not _encodable(value):
            raise ParseError(f"label {name} of {metric} must be text of at most {MAX_LABEL_VALUE} characters")
    if len(labels) > MAX_LABELS or len({name for name, _ in labels}) != len(labels):
        raise ParseError(f"{metric} must have at most {MAX_LABELS} labels, each once")
    return Series(metric, tuple(sorted(labels)))


class Sample(msgspec.Struct, frozen=True):
    """A number read from a target.

    Args:
        metric: OpenMetrics name, declared in the service's `metrics.csv`.
        value: anything `float()` takes; NaN and infinities are kept.
        labels: names and values; values are turned into text.
        ts: when the target says it was measured; None: when we read it.

    Raises:
        ParseError: the value is no number, or a name breaks the grammar.
    """

    metric: str
    value: float
    labels: Mapping[str, str] = {}
    ts: datetime | None = None

    def __post_init__(self) -> None:
        try:
            force_setattr(self, "value", float(self.value))
        except (TypeError, ValueError, OverflowError) as exc:
            raise ParseError(f"{self.metric} has the value {str(self.value)[:80]!r}, which is no number") from exc
        series(self.metric, tuple((k, str(v)) for k, v in self.labels.items()))
        _check_time(self.ts)

    @property
    def series(self) -> Series:
        """The series this sample belongs to."""
        return series(self.metric, tuple((k, str(v)) for k, v in self.labels.items()))


class Layout:
    """An ordered set of series, written together as one block. Make it once, use it for many blocks.

    Raises:
        ParseError: a series appears twice.
    """

    def __init__(self, members: Sequence[Series]) -> None:
        self.members = tuple(members)
        if len(set(self.members)) != len(self.members):
            seen: set[Series] = set()
            twice = next(s for s in self.members if s in seen or seen.add(s))  # type: ignore[func-returns-value]
            raise ParseError(f"the series {twice} appears twice in one read")

    def __len__(self) -> int:
        return len(self.members)

    @cached_property
    def body(self) -> bytes:
        """The members as MessagePack: `[[metric, [[label, value], ...]], ...]`."""
        return msgspec.msgpack.encode(self.members)

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that name this layout everywhere."""
        return blake2b(self.body, digest_size=16).digest()

    @classmethod
    def from_body(cls, body: bytes) -> "Layout":
        """The layout whose `body` this is."""
        return cls(msgspec.msgpack.decode(body, type=tuple[Series, ...]))


class SampleBlock:
    """Many samples of one moment as one array: `values[i]` belongs to `layout.members[i]`.

    Args:
        layout: which series.
        values: float64, shape `(len(layout),)`; not to be written to afterwards.
        ts: when they were measured; None: when we read them.

    Raises:
        ParseError: the shape does not fit the layout, or they are no float64.
    """

    __slots__ = ("layout", "ts", "values")

    def __init__(self, layout: Layout, values: NDArray[np.float64], ts: datetime | None = None) -> None:
        if values.shape != (len(layout),):
            raise ParseError(f"{values.shape} values for a layout of {len(layout)} series")
        if values.dtype != np.float64:
            raise ParseError(f"the values of a block must be float64, not {values.dtype}")
        _check_time(ts)
        self.layout, self.values, self.ts = layout, values, ts


Severity: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]
State: TypeAlias = Literal["occurred", "firing", "resolved"]
_SEVERITIES, _STATES = get_args(Severity), get_args(State)


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something happened.

    Args:
        kind: a short name, `failover`, `slow_query`.
        message: one line for people.
        fingerprint: names the same thing across time (a firing and its resolving share it); default: the kind.
        state: `occurred` for a thing of a moment, `firing` and `resolved` for a thing that lasts.
        attributes: JSON.
    """

    kind: str
    message: str
    severity: Severity = "info"
    fingerprint: str = ""
    state: State = "occurred"
    attributes: Attributes = {}
    ts: datetime | None = None

    def __post_init__(self) -> None:
        _check_text("event kind", self.kind)
        _check_text("event message", self.message)
        if not self.fingerprint:
            force_setattr(self, "fingerprint", self.kind)
        _check_text("event fingerprint", self.fingerprint)
        if self.severity not in _SEVERITIES or self.state not in _STATES:
            raise ParseError(f"event {self.kind} has the severity {self.severity!r:.40} and state {self.state!r:.40}")
        _check_attributes(f"event {self.kind}", self.attributes)
        _check_time(self.ts)


class Entity(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something exists at the target: a database, an interface, a container.

    Args:
        kind: `database`, `interface`.
        key: names it among its kind, for as long as it lives.
        attributes: JSON; what is known about it now.
    """

    kind: str
    key: str
    attributes: Attributes = {}

    def __post_init__(self) -> None:
        _check_text("entity kind", self.kind)
        _check_text("entity key", self.key)
        _check_attributes(f"entity {self.kind}", self.attributes)


class Link(msgspec.Struct, frozen=True, omit_defaults=True):
    """Two entities touch: `a` and `b` are (entity kind, entity key)."""

    kind: str
    a: tuple[str, str]
    b: tuple[str, str]
    attributes: Attributes = {}

    def __post_init__(self) -> None:
        if len(self.a) != 2 or len(self.b) != 2:
            raise ParseError(f"each end of link {self.kind!r:.80} must be (entity kind, entity key)")
        for text in (self.kind, *self.a, *self.b):
            _check_text("link", text)
        _check_attributes(f"link {self.kind}", self.attributes)


class Witnesses(msgspec.Struct, frozen=True):
    """The metrics of a service that tell what a counter of the same target means when it falls.

    Args:
        uptime: seconds since the target began to count; it falls at a restart.
        moved: a gauge that moves when the counters with its labels lost their count.
        speed: bits a second that the counters with its labels can count at most; 0 and no such sample: not known.
        bits: the width of those counters with its labels that may have either: 32 or 64.
        narrow: the counters that have 32 bits wherever they are.
        sizes: the end of a counter's name, and how many bits make it count by one at least; the first that fits.
    """

    uptime: str
    moved: str
    speed: str
    bits: str
    narrow: frozenset[str]
    sizes: tuple[tuple[str, float], ...]

    def size(self, metric: str) -> float:
        """How many bits make this counter count by one at least; 0 where that is not known."""
        return next((bits for end, bits in self.sizes if metric.endswith(end)), 0.0)


Record: TypeAlias = Sample | SampleBlock | Event | Entity | Link


def _check_time(ts: datetime | None) -> None:
    if ts is not None and ts.tzinfo is None:
        raise ParseError("a record's time must name its time zone")


def _check_text(what: str, text: str) -> None:
    good = isinstance(text, str) and 0 < len(text) <= MAX_TEXT and "\x00" not in text and _encodable(text)
    if not good:
        raise ParseError(f"{what} must be text of 1 to {MAX_TEXT} characters, not {text!r:.80}")


def _check_attributes(what: str, attributes: Attributes) -> None:
    if not attributes:
        return
    if not isinstance(attributes, dict) or not all(isinstance(name, str) for name in attributes):
        raise ParseError(f"the attributes of {what} must be a mapping by text")
    try:
        size = len(msgspec.json.encode(attributes))
    except (TypeError, ValueError, OverflowError) as exc:
        raise ParseError(f"the attributes of {what} are not JSON: {exc}") from None
    if size > MAX_ATTRIBUTES:
        raise ParseError(f"the attributes of {what} have {size} bytes, more than {MAX_ATTRIBUTES}")


def _encodable(text: str) -> bool:
    """Whether it is Unicode: a lone surrogate, from undecodable bytes, has no place in a database."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
