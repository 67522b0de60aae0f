"""The process that ships logs: some threads read, one delivers, and only what is acknowledged moves a cursor on."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import NamedTuple

from nms_workers.errors import NmsError
from nms_workers.logs import metrics
from nms_workers.logs.batch import Batch, Line
from nms_workers.logs.complaints import Complaints
from nms_workers.logs.containers import LOOK_SECONDS, Containers
from nms_workers.logs.cursors import CursorError, Cursors
from nms_workers.logs.files import Files
from nms_workers.logs.intake import Intake, StoppedError
from nms_workers.logs.meaning import moment_of
from nms_workers.logs.origin import Way
from nms_workers.logs.outlet import Outlet
from nms_workers.services.docker.target import DockerTarget
from nms_workers.settings import LogFiles, Logs

log = logging.getLogger(__name__)

_LINGER_SECONDS = 0.2  # a bulk costs as much as many lines: wait for company
_WAIT_SECONDS = 0.5
_SCAN_SECONDS = 1.0
_IDLE_SECONDS = 0.1
_BACKOFF = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
_DISK_SECONDS = 5.0
_CLOSE_SECONDS = 20.0
_STOPPED_READING = "no logs are shipped"


class Sources(NamedTuple):
    """What is shipped.

    Args:
        files: those of the settings, and the fleet's own.
        engines: Docker engines by the name of their target.
        host: what this host is called.
    """

    files: tuple[LogFiles, ...]
    engines: dict[str, DockerTarget]
    host: str


class Shipper:
    """Ships until it is stopped.

    Args:
        settings: of the section `logs`.
        beat: called about once a second while all is well with us.
    """

    def __init__(
        self,
        settings: Logs,
        sources: Sources,
        cursors: Cursors,
        outlet: Outlet,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings, self._cursors, self._outlet, self._beat = settings, cursors, outlet, beat
        self._intake = Intake(settings.waiting_bytes)
        way = Way(settings, cursors, self._intake)
        self._files = Files(way, sources.files, sources.host)
        self._engines = [Containers(name, target, way) for name, target in sources.engines.items()]
        self._has_files = bool(sources.files)
        self._stopping = threading.Event()
        self._failed: BaseException | None = None
        self._last_due = datetime.now(UTC)

    def run(self) -> None:
        """Ship, until `stop` is called from another thread or from a signal handler.

        Raises:
            RuntimeError: a fault of ours ended a thread; what was not delivered is read again at the next start.
        """
        tasks: list[tuple[str, Callable[[], None]]] = [("deliver", self._deliver_all)]
        if self._has_files:
            tasks.append(("files", self._read_files))
        tasks += [(f"engine-{one.name}", lambda one=one: self._look_after(one)) for one in self._engines]  # type: ignore[misc]
        threads = [threading.Thread(target=self._guarded, args=task, name=f"logs-{task[0]}") for task in tasks]
        for thread in threads:
            thread.daemon = True
            thread.start()
        while not self._stopping.wait(1.0):
            self._beat()
        self._intake.stop()
        for engine in self._engines:
            engine.close()
        ends = time.monotonic() + _CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))
        self._outlet.close()
        if not any(thread.is_alive() for thread in threads):
            self._cursors.close()
        if self._failed is not None:
            raise RuntimeError("a part of the shipper failed, the log says why") from self._failed

    def stop(self) -> None:
        """Ask `run` to end. What was read and is not acknowledged is read again at the next start."""
        self._stopping.set()

    def _guarded(self, name: str, task: Callable[[], None]) -> None:
        try:
            task()
        except StoppedError:
            pass
        except Exception as exc:
            log.exception("%s failed", name)
            self._failed = exc
            self._stopping.set()

    # ------------------------------------------------------------------ reading

    def _read_files(self) -> None:
        next_scan = 0.0
        complaints = Complaints()
        while not self._stopping.is_set():
            try:
                if time.monotonic() >= next_scan:
                    self._files.scan()
                    next_scan = time.monotonic() + _SCAN_SECONDS
                busy = self._files.read()
            except CursorError as exc:
                complaints.tell(_STOPPED_READING, exc)
                self._wait(_DISK_SECONDS)
            else:
                if not busy:
                    self._stopping.wait(_IDLE_SECONDS)
        self._files.close()

    def _look_after(self, engine: Containers) -> None:
        complaints = Complaints()
        what = f"the containers of {engine.name}"
        while not self._stopping.is_set():
            try:
                engine.look()
                complaints.over(what)
            except NmsError as exc:
                complaints.tell(what, exc)
            self._stopping.wait(LOOK_SECONDS)

    # ------------------------------------------------------------------ delivering

    def _deliver_all(self) -> None:
        complaints = Complaints()
        self._prepare(complaints)
        if (noted := self._cursors.pending) is not None:
            log.info("%d entries may have been delivered when we ended: they are sent again", len(noted.documents))
            self._last_due = max(self._last_due, noted.due)
            self._deliver(noted, complaints, again=True)
        settings = self._settings
        while not self._stopping.is_set():
            lines = self._intake.take(settings.bulk_lines, settings.bulk_bytes, _WAIT_SECONDS, _LINGER_SECONDS)
            if lines:
                batch = Batch(self._due(), tuple(lines))
                if batch.documents:
                    self._keep(lambda batch=batch: self._cursors.note(batch), complaints)  # type: ignore[misc]
                self._deliver(batch, complaints, again=False)

    def _prepare(self, complaints: Complaints) -> None:
        what = f"{self._outlet.name} is not ready"
        for pause in _pauses():
            try:
                self._outlet.prepare()
            except NmsError as exc:
                self._failure(exc)
                complaints.tell(what, exc)
            else:
                return complaints.over(what)
            self._wait(pause)
        return None

    def _deliver(self, batch: Batch, complaints: Complaints, *, again: bool) -> None:
        """All of it, however long that takes; then its sources move on.

        Raises:
            StoppedError: we are to end; it stays noted.
        """
        what = f"lines are not taken by {self._outlet.name}"
        left: Sequence[Line] = batch.documents
        pauses = _pauses()
        while left:
            try:
                left = self._outlet.deliver(batch.due, left, again=again)
                again = False
                if left:
                    complaints.tell(what, f"{len(left)} of {len(batch.documents)} have to wait")
            except NmsError as exc:
                again = True
                self._failure(exc)
                complaints.tell(what, exc)
            if left:
                self._wait(next(pauses))
        complaints.over(what)
        metrics.CONNECTED.set(1)
        self._keep(lambda: self._cursors.settle(batch), complaints)
        _tell_lag(batch)

    def _keep(self, change: Callable[[], None], complaints: Complaints) -> None:
        """Until the disk takes it: nothing may be shipped of which it could not be known."""
        while True:
            try:
                return change()
            except CursorError as exc:
                complaints.tell(_STOPPED_READING, exc)
            self._wait(_DISK_SECONDS)

    def _failure(self, exc: NmsError) -> None:
        metrics.CONNECTED.set(0)
        metrics.RETRIES.labels(type(exc).__name__).inc()

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise StoppedError

    def _due(self) -> datetime:
        """No two batches of this host have the same."""
        self._last_due = max(datetime.now(UTC), self._last_due + timedelta(microseconds=1))
        return self._last_due


def _pauses() -> Iterator[float]:
    return chain(_BACKOFF, repeat(_BACKOFF[-1]))


def _tell_lag(batch: Batch) -> None:
    newest: dict[str, str] = {}
    for line in batch.documents:
        newest[line.stream] = max(newest.get(line.stream, ""), line.document["@timestamp"])
    now = datetime.now(UTC)
    for stream, moment in newest.items():
        metrics.LAG.labels(stream).set(max(0.0, (now - moment_of(moment)).total_seconds()))
