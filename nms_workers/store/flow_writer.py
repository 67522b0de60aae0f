"""The way of flows: into the spool at once, then, some batches together, to PostgreSQL. There is no other way."""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
from prometheus_client import Gauge
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from nms_workers.store.engine import make_engine
from nms_workers.store.flow_history import FlowHistory
from nms_workers.store.flow_spool import Backlog, FlowSpool, Waiting
from nms_workers.store.flows import Batch, BatchError
from nms_workers.store.partitions import Retention
from nms_workers.store.spool import SpoolError

log = logging.getLogger(__name__)

connected = Gauge("nms_flows_store_connected", "Whether PostgreSQL took the last flows (1) or not (0)")
backlog_batches = Gauge("nms_flows_backlog_batches", "Batches of flows that wait in the spool of this host")
backlog_bytes = Gauge("nms_flows_backlog_bytes", "Bytes of flows that wait in the spool of this host")
backlog_age = Gauge("nms_flows_backlog_age_seconds", "Age of the oldest batch in the spool of this host")

TRANSACTION_BYTES = 48 << 20  # some 200,000 flows: the more at once, the fewer rows of roll-ups
BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0)
BUSY_SECONDS = 0.01

_BAD_BATCH = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded, BatchError)
_NOT_MIGRATED = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.InvalidSchemaName)


class FlowWriter:
    """Keeps batches of flows. One for each process; the processes of a host share the folder.

    Args:
        folder: of the spool, made if missing; not on a network file system.
        url: of PostgreSQL.
        max_bytes: of the spool; a batch that finds no room is dropped, counted and told (247 bytes a flow).
        keep: how many keys (conversations, ports, pairs of AS, interfaces) of one exporter and window a roll-up keeps,
            the largest; the others are summed in one.
        linger: seconds that a batch waits for others, so that they share blocks and roll-ups.
        schema: the only schema of the database to write to; None: the server's default.
        retention: how long a table's rows are kept, where it is not as in `partitions.TABLES`.
    """

    def __init__(  # noqa: PLR0913 - the settings of the store
        self,
        folder: Path,
        url: str,
        *,
        max_bytes: int = 2_000_000_000,
        keep: int = 10_000,
        linger: float = 2.0,
        schema: str | None = None,
        retention: Retention | None = None,
    ) -> None:
        self.spool = FlowSpool(folder, max_bytes)
        self._engine = make_engine(url, pool_size=1, schema=schema)
        self._history = FlowHistory(self._engine, keep=keep, retention=retention)
        self._linger = linger
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._hurry = False
        self._failures = 0

    def start(self) -> None:
        """Begin to drain, in a thread. After a fork only: threads and connections do not survive it."""
        if self._thread is not None:
            return
        self.spool.sweep()
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="flow-writer", daemon=True)
        self._thread.start()

    def put(self, batch: Batch) -> bool:
        """Keep a batch: when this returns True, it survives the death of the process. False: the spool is full.

        Raises:
            SpoolError: the spool's folder cannot be written.
        """
        kept = self.spool.put(batch.body(), len(batch.flows))
        self._wake.set()
        return kept

    def flush(self, timeout: float) -> bool:
        """Wait until all that is in the spool now is in PostgreSQL. False when `timeout` seconds pass before."""
        last, ends_at = self.spool.last(), time.monotonic() + timeout
        self._hurry = True
        self._wake.set()
        try:
            while self._waits(last):
                if time.monotonic() >= ends_at:
                    return False
                self._stop.wait(BUSY_SECONDS)  # a neighbour may be the one who drains: nobody would tell us
        finally:
            self._hurry = False
        return True

    def close(self, timeout: float) -> bool:
        """Flush, stop and let go of the connection. What could not be written in time stays in the spool.

        Returns:
            Whether everything was written.
        """
        ends_at = time.monotonic() + (0.0 if self._failures else timeout)
        written = self.flush(max(0.0, ends_at - time.monotonic())) if self._thread else not self.backlog().batches
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(max(1.0, ends_at - time.monotonic()))
            self._thread = None
        self._engine.dispose()
        return written

    def backlog(self) -> Backlog:
        """What waits in the spool of this host."""
        return self.spool.backlog()

    def _waits(self, last: str) -> bool:
        first = self.spool.first()
        return bool(first) and first <= last

    def _run(self) -> None:
        pause = self._linger
        while not self._stop.is_set():
            try:
                self._pause(pause)
                pause = self._drain()
                self._observe()
            except SpoolError as exc:
                log.error("%s", exc)  # noqa: TRY400 - the message says it all
                pause = BACKOFF_SECONDS[0]
            except Exception:
                log.exception("the writer of flows failed, and tries again")
                pause = BACKOFF_SECONDS[-1]

    def _pause(self, seconds: float) -> None:
        """Wait; who is in a hurry, or stops us, ends it. So does a batch that fills a transaction."""
        ends_at = time.monotonic() + seconds
        while not self._stop.is_set() and (left := ends_at - time.monotonic()) > 0:
            self._wake.wait(left)
            self._wake.clear()
            if not self._failures and (self._hurry or self.spool.backlog().bytes >= TRANSACTION_BYTES):
                return

    def _drain(self) -> float:
        """Write what waits. Returns how long to stay away."""
        while not self._stop.is_set():
            with self.spool.taken(TRANSACTION_BYTES) as waiting:
                if not waiting:
                    break
                try:
                    self._write(waiting)
                except (psycopg.Error, SQLAlchemyError) as exc:
                    return self._failed(exc)
                self._succeeded()
                if sum(len(one.body) for one in waiting) < TRANSACTION_BYTES:
                    break  # what came meanwhile waits for company again
        return self._linger

    def _write(self, waiting: Sequence[Waiting]) -> None:
        """Write these together; if PostgreSQL will never take one of them, each alone, and set that one aside."""
        refusal = self._refusal(waiting)
        if refusal is None:
            return
        self._history.forget()  # what we remember may be wrong, and not the batch
        for one in waiting:
            if (refusal := self._refusal([one])) is not None:
                reason = str(refusal).partition("\n")[0] or type(refusal).__name__
                log.error("a batch of flows cannot be stored; it is set aside in %s: %s", self.spool.folder, reason)
                self.spool.refuse(one, reason)

    def _refusal(self, waiting: Sequence[Waiting]) -> BaseException | None:
        """Write these and forget them; or why one of them can never be written."""
        try:
            self._history.write(waiting)
        except (*_BAD_BATCH, DBAPIError) as exc:
            cause = exc.orig if isinstance(exc, DBAPIError) else exc
            if isinstance(cause, _BAD_BATCH):
                return cause
            raise
        for one in waiting:
            self.spool.done(one)
        return None

    def _failed(self, exc: Exception) -> float:
        cause = exc.orig if isinstance(exc, DBAPIError) else exc
        if self._failures == 0:
            connected.set(0)
            hint = " Run: nms-workers db upgrade" if isinstance(cause, _NOT_MIGRATED) else ""
            reason = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
            log.error(
                "PostgreSQL does not take flows (%s). They are kept in %s and written later.%s",
                reason, self.spool.folder, hint,
            )  # fmt: skip
        wait = BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)]
        self._failures += 1
        self._history.forget()
        self._engine.dispose()
        return wait

    def _succeeded(self) -> None:
        connected.set(1)
        if self._failures:
            log.warning("PostgreSQL takes flows again, after %d attempts", self._failures)
            self._failures = 0

    def _observe(self) -> None:
        backlog = self.spool.backlog()
        backlog_batches.set(backlog.batches)
        backlog_bytes.set(backlog.bytes)
        backlog_age.set(backlog.oldest_seconds)
