"""From decoded flows to the spool: gathered to batches, enriched, looked at, kept; in a thread of its own."""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import NamedTuple

from nms_workers.flows import metrics
from nms_workers.flows.batches import Exporters
from nms_workers.flows.counters import readings
from nms_workers.flows.enrichment import Known
from nms_workers.flows.telling import Teller
from nms_workers.services.flows.decoded import Decoded
from nms_workers.services.flows.geoip import GeoIp
from nms_workers.settings import Flows
from nms_workers.store.flow_writer import FlowWriter
from nms_workers.store.flows import Batch
from nms_workers.store.spool import SpoolError
from nms_workers.transport.datagrams import Address

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
_ONE = 256  # what a datagram without a flow counts for, so that those are bounded as well


class _Waiting(NamedTuple):
    decoded: Decoded
    datagrams: Counter[Address]
    weight: int


class Keeper:
    """Keeps what the receiving thread decodes.

    Args:
        settings: of the section `flows`.
        store: where flows go; started and closed by whoever made it.
        teller: where everything else goes.
    """

    def __init__(self, settings: Flows, store: FlowWriter, teller: Teller) -> None:
        self._settings, self._store, self._teller = settings, store, teller
        self._geoip = GeoIp(settings.country, settings.autonomous_systems)
        self._exporters = Exporters(settings.max_exporters)
        self.known = Known()
        self.templates: Mapping[Address, int] = {}  # how many each sender has
        self._waiting: deque[_Waiting] = deque()
        self._weight = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._given_up = threading.Event()
        self._spool_full = False
        self._thread = threading.Thread(target=self._run, name="flows-keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, decoded: Decoded, datagrams: Counter[Address]) -> bool:
        """Hand over what some datagrams held, and how many came of each sender. Whether there was room."""
        flows = len(decoded.flows)
        one = _Waiting(decoded, datagrams, max(flows, _ONE))
        with self._changed:
            if self._weight + one.weight > self._settings.waiting and self._waiting:
                metrics.DROPPED.labels("no_room").inc(flows)
                return False
            self._waiting.append(one)
            self._weight += one.weight
            if self._weight >= self._settings.batch:
                self._changed.notify()
        return True

    def waiting(self) -> int:
        """About how many flows wait."""
        return self._weight

    def close(self, timeout: float) -> bool:
        """Keep what waits, and stop. Whether all of it was kept in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout)
        self._given_up.set()
        self._thread.join(RETRY_SECONDS)
        return not self._thread.is_alive() and not self._waiting

    def _run(self) -> None:
        while True:
            some, last = self._gathered()
            if some:
                self._keep(some)
            self._teller.tell(self.known, last=last)
            if last:
                return

    def _gathered(self) -> tuple[list[_Waiting], bool]:
        """What makes one batch: of the size, or the age, that the settings say. And whether nothing comes after it."""
        ends = time.monotonic() + self._settings.batch_age
        with self._changed:
            while self._weight < self._settings.batch and not self._stopping:
                if not self._changed.wait(max(0.0, ends - time.monotonic())):
                    break
            some: list[_Waiting] = []
            size = 0
            while self._waiting and size < self._settings.batch:
                some.append(self._waiting.popleft())
                size += some[-1].weight
            self._weight -= size
            return some, self._stopping and not self._waiting

    def _keep(self, some: list[_Waiting]) -> None:
        known = self.known
        datagrams: Counter[Address] = Counter()
        for one in some:
            datagrams.update(one.datagrams)
            addresses = [self._exporters.address(origin) for origin in one.decoded.origins]
            self._teller.read(readings(one.decoded, addresses, known))
        batch = self._exporters.batch([one.decoded for one in some], datagrams, self.templates, known)
        self._geoip.fill(batch.flows)
        self._teller.look(batch, known)
        while not self._put(batch):
            if self._given_up.wait(RETRY_SECONDS):
                metrics.DROPPED.labels("spool_broken").inc(len(batch.flows))
                return

    def _put(self, batch: Batch) -> bool:
        """Whether it is settled: kept, or dropped because the spool is full."""
        try:
            kept = self._store.put(batch)
        except SpoolError as exc:
            log.error("flows cannot be kept, it is tried again: %s", exc)  # noqa: TRY400 - the message says it all
            return False
        if not kept:
            metrics.DROPPED.labels("spool_full").inc(len(batch.flows))
            if not self._spool_full:
                log.error("the spool of flows is full: what comes is dropped until PostgreSQL takes flows again")
        self._spool_full = not kept
        return True
