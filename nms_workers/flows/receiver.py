"""The collector: one thread receives and decodes; others keep what came, and ask whose it is."""

import ipaddress
import logging
import os
import select
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import redis
from sqlalchemy.exc import SQLAlchemyError

from nms_workers.errors import ConfigError, NmsError
from nms_workers.flows import metrics
from nms_workers.flows.enrichment import Known
from nms_workers.flows.keeping import Keeper
from nms_workers.flows.template_file import TemplateFile
from nms_workers.services.flows.decode import decode
from nms_workers.services.flows.decoded import Datagram
from nms_workers.services.flows.templates import Limits, Templates
from nms_workers.settings import Flows
from nms_workers.transport.datagrams import Address, listen

log = logging.getLogger(__name__)

LARGEST = 65_535  # bytes of a datagram: sFlow and IPFIX may fill what UDP allows
AT_ONCE = 1024  # datagrams that are decoded together
LINGER_SECONDS = 0.1  # fewer than that wait so long for others, and less where the kernel gives little room for it
ROOM = 16 << 20  # bytes
TICK_SECONDS = 1.0
REFRESH_SECONDS = 60.0
UNKNOWN_REFRESH_SECONDS = 5.0  # while nothing is known yet
NEIGHBOURS_SECONDS = 1.0  # how often neighbours' templates are read while data waits for one
CLOSE_SECONDS = 15.0
LAST_BATCHES = 1000  # read when we are stopped


class Collector:
    """Receives flow exports until it is stopped.

    Args:
        settings: of the section `flows`.
        ask: what is known of exporters now; asked in a thread of its own.
        keeper: where flows go; started and closed by us.
        folder: for what must outlive us, the templates.
        number: of this process among those that share the ports.
        beat: called about once a second while we live.

    Raises:
        ConfigError: nothing can be listened at.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - they are parts, given once
        self,
        settings: Flows,
        ask: Callable[[], Known],
        keeper: Keeper,
        folder: Path,
        number: int = 1,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        if not settings.listen:
            raise ConfigError("there is no address to listen at", hint='set flows.listen = ["0.0.0.0:2055"]')
        self._ask, self._keeper, self._beat = ask, keeper, beat
        self._allowed = _allowed(settings)
        self._refused: Counter[Address] = Counter()
        self._told_refused: set[Address] = set()
        self._templates = Templates(Limits(exporters=settings.max_exporters))
        self._file = TemplateFile(folder, number)
        self._shared = settings.processes > 1
        self._neighbours_next = 0.0
        self._stopping = threading.Event()
        self.datagrams = 0
        self.sockets = listen(
            settings.listen, settings.receive_buffer, of="flows", largest=LARGEST, share=settings.processes > 1
        )
        for one in self.sockets:
            metrics.BUFFER.labels(one.address).set(one.receive_buffer)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def run(self) -> None:
        """Receive, until `stop` is called from another thread or from a signal handler."""
        if taken := self._file.load(self._templates):
            log.info("%d templates of before are known", taken)
            self._keeper.templates = self._templates.counts()
        threading.Thread(target=self._refresh, name="flows-enrichment", daemon=True).start()
        self._keeper.start()
        everything, only_us = select.poll(), select.poll()
        for one in self.sockets:
            everything.register(one.fileno(), select.POLLIN)
        for poll in (everything, only_us):
            poll.register(self._wake, select.POLLIN)
        linger = LINGER_SECONDS * min(1.0, min(one.receive_buffer for one in self.sockets) / ROOM)
        next_tick = 0.0
        while not self._stopping.is_set():
            came = self._take()
            if came < AT_ONCE:
                if came:
                    only_us.poll(linger * 1000)
                else:
                    everything.poll(max(0.0, next_tick - time.monotonic()) * 1000)
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + TICK_SECONDS
                self._tick()
        self._end()

    def stop(self) -> None:
        """Ask `run` to end. What was received, and what the kernel holds, is kept first."""
        self._stopping.set()
        with suppress(OSError):  # `run` has just ended
            os.eventfd_write(self._wake, 1)

    def _take(self) -> int:
        """Receive and decode what waits, about `AT_ONCE` at most. How many datagrams came."""
        datagrams: list[Datagram] = []
        senders: Counter[Address] = Counter()
        count = 0
        for one in self.sockets:
            while count < AT_ONCE and (batch := one.receive()):
                count += len(batch)
                received = time.time_ns() // 1000
                for data in batch:
                    if self._allowed(data.address):
                        datagrams.append(Datagram(data.data, data.address, data.port, received))
                        senders[data.address] += 1
                    else:
                        self._refused[data.address] += 1
        if datagrams:
            decoded = decode(datagrams, self._templates)
            self.datagrams += len(datagrams)
            metrics.DATAGRAMS.inc(len(datagrams))
            if decoded.templates_changed:
                self._file.changed()
                self._keeper.templates = self._templates.counts()
            self._keeper.put(decoded, senders)
        return count

    def _tick(self) -> None:
        self._beat()
        self._file.write(self._templates)
        if self._shared and self._templates.held and time.monotonic() >= self._neighbours_next:
            self._neighbours_next = time.monotonic() + NEIGHBOURS_SECONDS
            if self._file.load(self._templates):
                self._keeper.templates = self._templates.counts()
        metrics.HELD.set(self._templates.held)
        metrics.UNKNOWN_FIELDS.set(len(self._templates.unknown_fields))
        metrics.WAITING.set(self._keeper.waiting())
        for one in self.sockets:
            if drops := one.new_drops():
                metrics.KERNEL_DROPS.inc(drops)
                log.warning("the kernel dropped %d datagrams at %s: more came than could be read", drops, one.address)
            metrics.TOO_LARGE.inc(one.truncated)
            one.truncated = 0
        self._tell_refused()

    def _tell_refused(self) -> None:
        """Each sender once."""
        for address, count in self._refused.items():
            metrics.REFUSED.inc(count)
            if address not in self._told_refused and len(self._told_refused) < _MOST_TOLD:
                self._told_refused.add(address)
                log.warning("%s is not in flows.exporters: what it sends is left out", ipaddress.ip_address(address))
        self._refused.clear()

    def _refresh(self) -> None:
        """Keep the knowledge of exporters fresh. While Redis or PostgreSQL is away it stays as it was."""
        away = False
        wait = 0.0
        while not self._stopping.wait(wait):
            try:
                self._keeper.known = self._ask()
                wait, away = REFRESH_SECONDS, False
            except (redis.RedisError, SQLAlchemyError, NmsError) as exc:
                wait = UNKNOWN_REFRESH_SECONDS
                if not away:
                    log.warning("exporters are known as they were before: %s", type(exc).__name__)
                away = True

    def _end(self) -> None:
        for _ in range(LAST_BATCHES):
            if not self._take():
                break
        self._file.write(self._templates, last=True)
        if not self._keeper.close(CLOSE_SECONDS):
            log.error("the last flows could not be kept in %g s", CLOSE_SECONDS)
        self._tick()
        for one in self.sockets:
            one.close()
        os.close(self._wake)


_MOST_TOLD = 1000


def _allowed(settings: Flows) -> Callable[[Address], bool]:
    """Whether an address may send."""
    networks = settings.exporters
    if not networks:
        return lambda _: True

    @lru_cache(maxsize=65_536)
    def allowed(address: Address) -> bool:
        own = ipaddress.ip_address(address)
        return any(own in network for network in networks)

    return allowed
