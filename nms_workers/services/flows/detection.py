"""What flows show of whoever looks around, and of more traffic than ever: pure functions, and a bounded window.

A port scan is one source that begins something with many ports of one destination; a fan-out is one source that begins
something with many destinations. Replies look like the reverse of both, so only flows that begin something are taken:
TCP with SYN and without ACK; and where both or neither were noted, or it is not TCP, a flow from a higher port to a
lower one. Flows without ports (ICMP) begin something when they are no answer.

A volume anomaly is a rate far above what the same thing had in the hours before. Far is measured by the median and the
median absolute deviation, which one odd hour does not move: the modified z-score of Iglewicz and Hoaglin (How to Detect
and Handle Outliers, 1993; https://www.itl.nist.gov/div898/handbook/eda/section3/eda35h.htm).
"""

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nms_workers.records import Event
from nms_workers.services.flows.addresses import text
from nms_workers.services.flows.record import Flows

SLICES = 6  # of a window, beside the one of now: it moves on by one of them at a time
MAX_SEEN = 100_000  # of a slice: sources with destination and port
OUTLIER = 3.5  # the modified z-score that its authors name
MAX_TOLD = 100  # of each kind
NAMED_PORTS = 20
PORT_SCAN, FAN_OUT = "port_scan", "fan_out"

_TCP, _ICMP, _ICMP6 = 6, 1, 58
_SYN, _ACK = 0x02, 0x10
_ECHO_REQUEST, _ECHO6_REQUEST = 8, 128

_ADDRESS: Any = (">u8", 2)
_SEEN = np.dtype(
    [
        ("way", "u8"),  # stands for source, destination and port; `pair` and `from_` for less of them
        ("pair", "u8"),
        ("from_", "u8"),
        ("source", *_ADDRESS),
        ("destination", *_ADDRESS),
        ("port", "u2"),
    ]
)
Seen = NDArray[np.void]

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Thresholds:
    """From when on it is told: `ports` of one destination, or `destinations`, within `window` seconds."""

    ports: int
    destinations: int
    window: float


class Window:
    """What began within the last seconds. For one thread.

    It holds at most `(SLICES + 1) * MAX_SEEN` entries of 58 bytes, and those of one batch.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._slices: deque[Seen] = deque(maxlen=SLICES)  # those that are over
        self._current: list[Seen] = []
        self._ends = 0.0
        self.left_out = 0  # entries for which there was no room

    def add(self, flows: Flows, now: float) -> None:
        """Take flows in.

        Args:
            now: seconds, of a clock that does not go back.
        """
        self._go_on(now)
        self._current.append(distinct(seen(flows)))
        if sum(map(len, self._current)) > MAX_SEEN:
            self._current = [self._merged()]

    def found(self, now: float) -> list[Event]:
        """What fires now, the worst `MAX_TOLD` of each kind."""
        self._go_on(now)
        everything = distinct(np.concatenate((*self._slices, self._merged())))
        return [
            *port_scans(everything, self._thresholds.ports),
            *fan_outs(everything, self._thresholds.destinations),
        ]

    def _merged(self) -> Seen:
        """What the slice of now holds, each way once."""
        together = distinct(np.concatenate((_NONE, *self._current)))
        self.left_out += max(0, len(together) - MAX_SEEN)
        return together[:MAX_SEEN]

    def _go_on(self, now: float) -> None:
        width = self._thresholds.window / SLICES
        if now >= self._ends + self._thresholds.window:
            self._slices.clear()
            self._current.clear()
            self._ends = now + width
        while now >= self._ends:
            self._slices.append(self._merged())
            self._current.clear()
            self._ends += width


def begins(flows: Flows) -> NDArray[np.bool_]:
    """Which of these flows begin something, as a mask."""
    tcp, flags = flows["protocol"] == _TCP, flows["tcp_control_bits"]
    syn, ack = (flags & _SYN) != 0, (flags & _ACK) != 0
    asks = tcp & syn & ~ack
    answers = tcp & ~syn & (flags != 0)
    downwards = flows["source_port"] > flows["destination_port"]
    kind = flows["icmp_type_code"] >> 8
    echo = ((flows["protocol"] == _ICMP) & (kind == _ECHO_REQUEST)) | (
        (flows["protocol"] == _ICMP6) & (kind == _ECHO6_REQUEST)
    )
    mask: NDArray[np.bool_] = (asks | downwards | echo) & ~answers
    return mask


def seen(flows: Flows) -> Seen:
    """Who began something with whom, at which port."""
    which = np.flatnonzero(begins(flows))
    made = np.empty(len(which), _SEEN)
    source = np.ascontiguousarray(flows["source_address"][which])
    destination = np.ascontiguousarray(flows["destination_address"][which])
    protocol = flows["protocol"][which]
    port = np.where((protocol == _ICMP) | (protocol == _ICMP6), 0, flows["destination_port"][which])
    from_ = _mixed(_mixed(np.zeros(len(which), np.uint64), source[:, 0]), source[:, 1])
    pair = _mixed(_mixed(from_, destination[:, 0]), destination[:, 1])
    made["source"], made["destination"], made["port"] = source, destination, port
    made["from_"], made["pair"], made["way"] = from_, pair, _mixed(pair, port)
    return made


def distinct(some: Seen, by: str = "way") -> Seen:
    """Each way once, in the order of its hash."""
    order = np.argsort(some[by])
    ordered = some[by][order]
    first = np.ones(len(some), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return some[order[first]]


def port_scans(some: Seen, least: int) -> list[Event]:
    """The sources that went to at least so many ports of one destination; `some` are distinct."""
    found = []
    for group, count in _largest(some, "pair", least):
        source, destination = text(group["source"][0]), text(group["destination"][0])
        found.append(
            Event(
                PORT_SCAN,
                f"{source} tried {count} ports of {destination}",
                "warning",
                fingerprint=f"{PORT_SCAN} {source} {destination}",
                state="firing",
                attributes={
                    "source": source,
                    "destination": destination,
                    "ports": count,
                    "first_ports": sorted(map(int, group["port"]))[:NAMED_PORTS],
                },
            )
        )
    return found


def fan_outs(some: Seen, least: int) -> list[Event]:
    """The sources that went to at least so many destinations."""
    found = []
    for group, count in _largest(distinct(some, "pair"), "from_", least):
        source = text(group["source"][0])
        ports, times = np.unique(group["port"], return_counts=True)
        found.append(
            Event(
                FAN_OUT,
                f"{source} turned to {count} destinations",
                "warning",
                fingerprint=f"{FAN_OUT} {source}",
                state="firing",
                attributes={
                    "source": source,
                    "destinations": count,
                    "usual_port": int(ports[times.argmax()]),
                    "first_destinations": [text(one) for one in group["destination"][:NAMED_PORTS]],
                },
            )
        )
    return found


def _largest(some: Seen, by: str, least: int) -> list[tuple[Seen, int]]:
    """The groups of at least so many, the largest first."""
    keys, counts = np.unique(some[by], return_counts=True)
    large = np.flatnonzero(counts >= least)
    large = large[np.argsort(counts[large], kind="stable")[::-1]][:MAX_TOLD]
    return [(some[some[by] == keys[one]], int(counts[one])) for one in large]


def _mixed(state: NDArray[np.uint64], value: NDArray[Any]) -> NDArray[np.uint64]:
    """A hash that goes on by a value: the finalizer of SplitMix64 (https://prng.di.unimi.it/splitmix64.c)."""
    mixed = (state + np.uint64(0x9E3779B97F4A7C15)) ^ value.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return result


@dataclass(frozen=True)
class Anomaly(Generic[T]):
    """A rate that is far above its past: `usual` is the median of that, `score` the modified z-score."""

    key: T
    rate: float
    usual: float
    score: float


def anomalies(
    now: Mapping[T, float],
    past: Mapping[T, Sequence[float]],
    *,
    least: float,
    factor: float,
    hours: int,
) -> list[Anomaly[T]]:
    """What has far more than usual.

    Args:
        now: the rate of each thing.
        past: its rates in the hours before, one an hour; an hour without it is a 0.
        least: a rate below is none worth telling.
        factor: of the median, that a rate must be above as well: what is always the same has no deviation.
        hours: so many must be known of its past; before, nothing is told of it.

    Returns:
        The anomalies, the farthest first.
    """
    found = []
    for key, rate in now.items():
        known = past.get(key, ())
        if rate < least or len(known) < hours:
            continue
        usual = median(known)
        deviation = median(abs(one - usual) for one in known)
        far = 0.6745 * (rate - usual) / deviation if deviation else float("inf")
        if rate > factor * usual and far > OUTLIER:
            found.append(Anomaly(key, rate, usual, far))
    return sorted(found, key=lambda one: (one.score, one.rate), reverse=True)


_NONE = np.zeros(0, _SEEN)
