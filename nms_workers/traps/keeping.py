"""From events to the spool: whatever waits is kept together, and only then are the informs among it acknowledged."""

import logging
import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from nms_workers.errors import Outcome
from nms_workers.fleet.inventory import Target
from nms_workers.records import Event
from nms_workers.store.slot import SlotResult
from nms_workers.store.spool import SpoolError
from nms_workers.store.writer import Writer
from nms_workers.traps import metrics

log = logging.getLogger(__name__)

POLL = "traps"  # what the ledger calls it
AT_ONCE = 1000  # events of one ledger row
WAITING = 10_000
_RETRY_SECONDS = 1.0


class Told(NamedTuple):
    """An event on its way, and what acknowledges the inform that brought it."""

    target: Target
    event: Event
    acknowledge: Callable[[], None] | None = None


class Keeper:
    """Puts events into the spool, from a thread of its own.

    Args:
        worker: this process' name in the ledger.
    """

    def __init__(self, writer: Writer, worker: str) -> None:
        self._writer, self._worker = writer, worker
        self._waiting: queue.Queue[Told | None] = queue.Queue(WAITING)
        self._last_due = datetime.now(UTC)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traps-keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, told: Told) -> bool:
        """Hand over an event. Whether there was room: while the disk is full, or slow, there may be none."""
        try:
            self._waiting.put_nowait(told)
        except queue.Full:
            metrics.LOST.inc()
            return False
        return True

    def close(self, timeout: float) -> bool:
        """Keep what waits, and stop. Whether all of it was kept in time."""
        self._stop.set()
        try:
            self._waiting.put(None, timeout=timeout)
        except queue.Full:
            return False
        self._thread.join(timeout)
        return not self._thread.is_alive() and self._waiting.empty()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, more = self._batch(first)
            self._keep(batch)
            if not more:
                return

    def _batch(self, first: Told) -> tuple[list[Told], bool]:
        """What waits now, and whether anything may come after it."""
        batch = [first]
        while len(batch) < AT_ONCE:
            try:
                told = self._waiting.get_nowait()
            except queue.Empty:
                break
            if told is None:
                return batch, False
            batch.append(told)
        return batch, True

    def _keep(self, batch: list[Told]) -> None:
        by_target: dict[int, list[Told]] = {}
        for told in batch:
            by_target.setdefault(told.target.id, []).append(told)
        for group in by_target.values():
            result = self._result(group)
            while not self._kept(result):
                if self._stop.wait(_RETRY_SECONDS):
                    metrics.LOST.inc(len(group))
                    return
            for told in group:
                if told.acknowledge:
                    told.acknowledge()

    def _kept(self, result: SlotResult) -> bool:
        try:
            self._writer.put(result)
        except SpoolError as exc:
            log.error("traps of %s cannot be kept, it is tried again: %s", result.target, exc)  # noqa: TRY400
            return False
        return True

    def _result(self, group: list[Told]) -> SlotResult:
        target = group[0].target
        now = datetime.now(UTC)
        # one row of the ledger never stands for two batches
        self._last_due = due = max(now, self._last_due + timedelta(microseconds=1))
        return SlotResult(
            target_id=target.id,
            service=target.service,
            target=target.name,
            poll=POLL,
            due=due,
            started=now,
            finished=now,
            outcome=Outcome.OK,
            worker=self._worker,
            events=tuple(told.event for told in group),
        )
