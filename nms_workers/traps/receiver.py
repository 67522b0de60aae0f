"""The receiver: one thread reads, decodes and deduplicates; others check version 3, keep events, look up targets."""

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import redis

from nms_workers.errors import ConfigError, NmsError, ParseError
from nms_workers.fleet.inventory import Target
from nms_workers.records import Event
from nms_workers.settings import Traps
from nms_workers.traps import ber, metrics
from nms_workers.traps.checking import Checking
from nms_workers.traps.complaints import UNKNOWN, Complaints
from nms_workers.traps.keeping import Keeper, Told
from nms_workers.traps.metrics import Outcome, Tallies
from nms_workers.traps.names import Names
from nms_workers.traps.sockets import Datagram, TrapSocket
from nms_workers.traps.sources import Sources
from nms_workers.traps.storm import Storms
from nms_workers.traps.usm import Usm

log = logging.getLogger(__name__)

REFRESH_SECONDS = 5.0
TICK_SECONDS = 1.0
CLOSE_SECONDS = 10.0
LAST_BATCHES = 1000  # read of each socket when we are stopped


class Receiver:
    """Receives notifications until it is stopped.

    Args:
        settings: of the section `traps`.
        sources: what is known of senders now; asked every few seconds, in a thread of its own.
        keeper: where events go; started and closed by us.
        folder: for what must outlive us, the id of our engine.
        beat: called about once a second while we live.

    Raises:
        ConfigError: nothing can be listened at, or a file or key cannot be used.
    """

    def __init__(
        self,
        settings: Traps,
        sources: Callable[[], Sources],
        keeper: Keeper,
        folder: Path,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        if not settings.listen:
            raise ConfigError("there is no address to listen at", hint='set traps.listen = ["0.0.0.0:1162"]')
        self._ask_sources, self._beat = sources, beat
        self._storms = Storms(Names(settings.names, settings.mibs), settings.window, settings.events_per_window)
        self._usm = Usm(settings.users, folder) if settings.users else None
        self._keeper = keeper
        self._tallies, self._complaints = Tallies(), Complaints()
        self._sources = sources()
        self._stopping = threading.Event()
        self.sockets = _listen(settings)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._checking = Checking(self._usm, settings.v3_per_second, self._woken) if self._usm else None

    @property
    def tallies(self) -> dict[Outcome, int]:
        """Datagrams by what became of them."""
        return {outcome: count for outcome, count in self._tallies.total.copy().items() if count}

    @property
    def engine_id(self) -> str:
        """The id of our engine, as hexadecimal digits; empty when there are no users."""
        return self._usm.engine_id.hex() if self._usm else ""

    def run(self) -> None:
        """Receive, until `stop` is called from another thread or from a signal handler."""
        threading.Thread(target=self._refresh, name="traps-sources", daemon=True).start()
        self._keeper.start()
        if self._checking:
            self._checking.start()
        ready = select.poll()
        for handle in (self._wake, *(one.fileno() for one in self.sockets)):
            ready.register(handle, select.POLLIN)
        next_tick = 0.0
        while not self._stopping.is_set():
            if not self._receive():
                ready.poll(max(0.0, next_tick - time.monotonic()) * 1000)
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            self._take_checked()
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + TICK_SECONDS
                self._tick()
        self._end()

    def stop(self) -> None:
        """Ask `run` to end. What was received, and what the kernel holds, is kept first."""
        self._stopping.set()
        self._woken()

    def _woken(self) -> None:
        with suppress(OSError):  # `run` has just ended
            os.eventfd_write(self._wake, 1)

    def _receive(self) -> bool:
        """One batch of each socket. Whether there may be more."""
        any_came = False
        for one in self.sockets:
            batch = one.receive()
            now = time.time()
            for datagram in batch:
                if (outcome := self._datagram(datagram, now)) is not None:
                    self._tallies.total[outcome] += 1
            any_came = any_came or bool(batch)
        return any_came

    def _datagram(self, datagram: Datagram, now: float) -> Outcome | None:
        """What became of it; None: that is not known before it is checked."""
        data, address = datagram.data, datagram.address
        try:
            message = ber.read(data)
        except ParseError as exc:
            self._complaints.add(address, str(exc))
            return "malformed"
        if message is None:
            return self._version_3(datagram)
        target = self._sources.target_of(address, message)
        if not self._sources.believes(target, message.community):
            self._complaints.add(address, "a wrong community")
            return "wrong_community"
        answer = ber.answer_to(data, message) if message.kind == ber.INFORM else b""
        return self._take(datagram, target, message, answer, now)

    def _version_3(self, datagram: Datagram) -> Outcome | None:
        if self._checking is None:
            self._complaints.add(datagram.address, "version 3, and traps.users is empty")
            return "refused"
        return None if self._checking.put(datagram) else "busy"

    def _take_checked(self) -> None:
        for datagram, checked in self._checking.done() if self._checking else ():
            if checked.message is not None:
                target = self._sources.target_of(datagram.address, checked.message)
                outcome = self._take(datagram, target, checked.message, checked.answer, time.time())
            elif checked.answer:
                outcome = "answered"
                _answer(datagram, checked.answer)
            else:
                outcome = "refused"
                self._complaints.add(datagram.address, f"version 3: {checked.why}")
            self._tallies.total[outcome] += 1

    def _take(
        self, datagram: Datagram, target: Target | None, message: ber.Message, answer: bytes, now: float
    ) -> Outcome:
        """Hand it on. It is acknowledged once it is safe, or counted, or told before; what is of nobody never is."""
        if target is None:
            self._complaints.add(datagram.address, UNKNOWN)
            return "unknown_source"
        taken = self._storms.take(target, datagram.address, message, now)
        acknowledge = partial(_answer, datagram, answer) if answer else None
        if isinstance(taken, Event):
            self._keeper.put(Told(target, taken, acknowledge))
            return "told"
        if acknowledge:
            acknowledge()
        return taken

    def _tick(self) -> None:
        self._beat()
        if self._checking:
            self._checking.next_second()
        self._tell_ended(time.time())
        self._publish()
        self._complaints.tell()

    def _tell_ended(self, now: float) -> None:
        for target, event in self._storms.ended(now):
            self._keeper.put(Told(target, event))

    def _publish(self) -> None:
        for one in self.sockets:
            if drops := one.new_drops():
                metrics.DROPS.inc(drops)
                log.warning("the kernel dropped %d traps at %s: more came than could be read", drops, one.address)
            self._tallies.total["too_large"] += one.truncated
            one.truncated = 0
        self._tallies.publish()

    def _refresh(self) -> None:
        """Keep the knowledge of senders fresh. While Redis is away it stays as it was."""
        away = False
        while not self._stopping.wait(REFRESH_SECONDS):
            try:
                self._sources = self._ask_sources()
                away = False
            except (redis.RedisError, NmsError) as exc:
                if not away:
                    log.warning("targets cannot be read, traps go by those known before: %s", type(exc).__name__)
                away = True

    def _end(self) -> None:
        for _ in range(LAST_BATCHES):
            if not self._receive():
                break
        if self._checking:
            self._checking.close(CLOSE_SECONDS)
            self._take_checked()
        self._tell_ended(float("inf"))
        if not self._keeper.close(CLOSE_SECONDS):
            log.error("the last traps could not be kept in %g s", CLOSE_SECONDS)
        self._publish()
        self._complaints.tell(last=True)
        for one in self.sockets:
            one.close()
        os.close(self._wake)


def _answer(datagram: Datagram, answer: bytes) -> None:
    if datagram.answer(answer):
        metrics.ANSWERS.inc()


def _listen(settings: Traps) -> list[TrapSocket]:
    """The sockets; all, or none and an error."""
    made: list[TrapSocket] = []
    try:
        for address in settings.listen:
            host, _, port = address.rpartition(":")
            one = TrapSocket(host.strip("[]"), int(port), settings.receive_buffer, share=settings.share)
            made.append(one)
            metrics.BUFFER.labels(one.address).set(one.receive_buffer)
            log.info("traps are received at %s, with room for %d bytes", one.address, one.receive_buffer)
            if one.receive_buffer < settings.receive_buffer:
                log.warning(
                    "the kernel gives %d of %d bytes for traps that wait at %s: raise net.core.rmem_max by sysctl",
                    one.receive_buffer, settings.receive_buffer, one.address,
                )  # fmt: skip
    except ConfigError:
        for one in made:
            one.close()
        raise
    return made
