"""What the receiver counts, in the default Prometheus registry. Every datagram ends in exactly one outcome."""

from collections import Counter as Tally
from typing import Literal, get_args

from prometheus_client import Counter, Gauge

Outcome = Literal[
    "told",  # an event of its own
    "counted",  # the same as one told in this window: it is in that window's count
    "over_limit",  # its source tells too many different things: it is in the count of what was left out
    "unknown_source",  # of no target
    "wrong_community",
    "malformed",  # no notification, or one that breaks the rules of its encoding
    "too_large",
    "refused",  # version 3: user, key, level, engine or time
    "answered",  # version 3: a manager's question for our engine, or its clock
    "busy",  # version 3: more than may be checked in a second
]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

DATAGRAMS = Counter("nms_traps_datagrams", "Datagrams received, by what became of them.", ("outcome",))
DROPS = Counter("nms_traps_kernel_drops", "Datagrams that the kernel dropped because the receive buffer was full.")
ANSWERS = Counter("nms_traps_answers", "Informs acknowledged, and reports of version 3.")
LOST = Counter("nms_traps_lost_events", "Events for which there was no room on the way to the spool.")
BUFFER = Gauge("nms_traps_receive_buffer_bytes", "What the kernel gave us for datagrams that wait.", ("address",))
UNKNOWN = Gauge("nms_traps_unknown_sources", "Addresses that sent something in the last window and are of no target.")


class Tallies:
    """Counts without a lock, for one thread; `publish` carries them to Prometheus from time to time."""

    def __init__(self) -> None:
        self.total: Tally[Outcome] = Tally()
        self._published: Tally[Outcome] = Tally()

    def publish(self) -> None:
        """Tell Prometheus what was counted since the last time."""
        for outcome in OUTCOMES:
            DATAGRAMS.labels(outcome).inc(self.total[outcome] - self._published[outcome])
        self._published = self.total.copy()
