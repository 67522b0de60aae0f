"""What is wrong with what comes in, told in one line a minute however much comes."""

import ipaddress
import logging
import time
from collections import Counter

from nms_workers.transport.datagrams import Address
from nms_workers.traps import metrics

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
KEPT = 10_000  # senders remembered between two lines
NAMED = 10


class Complaints:
    """Counts by sender and reason. For one thread."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[Address, str]] = Counter()
        self._others = 0
        self._next = time.monotonic()

    def add(self, address: Address, why: str) -> None:
        """Something from this sender could not be taken."""
        key = (address, why)
        if key in self._counts or len(self._counts) < KEPT:
            self._counts[key] += 1
        else:
            self._others += 1

    def tell(self, *, last: bool = False) -> None:
        """Log what came together, if it is time, or if there will be no later time."""
        if time.monotonic() < self._next and not last:
            return
        metrics.UNKNOWN.set(len({address for address, why in self._counts if why == UNKNOWN}))
        if not self._counts:
            return
        named = self._counts.most_common(NAMED)
        lines = [f"{count} from {ipaddress.ip_address(sender)}: {why}" for (sender, why), count in named]
        left = self._others + self._counts.total() - sum(count for _, count in named)
        log.warning("traps not taken: %s%s", "; ".join(lines), f"; and {left} more" if left else "")
        self._counts.clear()
        self._others = 0
        self._next = time.monotonic() + EVERY_SECONDS


UNKNOWN = "it is the address of no SNMP target (traps.sources can name it)"
