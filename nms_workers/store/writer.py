"""The way of a finished slot: into the spool at once, then to Redis and, batch by batch, to PostgreSQL.

There is no other way: an outage is only a spool that is drained later, and a process that dies leaves its slots to
its neighbours.
"""

import logging
import threading
import time
from collections.abc import Iterable, Sequence

import psycopg
from prometheus_client import Counter, Gauge
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from nms_workers.records import Layout
from nms_workers.store.engine import make_engine
from nms_workers.store.history import History, UnknownLayoutError
from nms_workers.store.latest import Latest
from nms_workers.store.partitions import Retention
from nms_workers.store.slot import SlotResult
from nms_workers.store.spool import Backlog, Spool, Spooled, SpoolError

log = logging.getLogger(__name__)

outages = Counter("nms_store_outages", "Times that PostgreSQL went away or did not take what it was given")
connected = Gauge("nms_store_connected", "Whether PostgreSQL took the last batch (1) or not (0)")
backlog_slots = Gauge("nms_store_backlog_slots", "Slots that wait in the spool of this host")
backlog_bytes = Gauge("nms_store_backlog_bytes", "Bytes in use in the spool of this host")
backlog_age = Gauge("nms_store_backlog_age_seconds", "Age of the oldest slot that waits in the spool of this host")

LINGER_SECONDS = 0.1  # a commit costs as much as many slots: wait for company
IDLE_SECONDS = 1.0  # how soon a slot is seen that a neighbour left behind
BUSY_SECONDS = 0.05
BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0)

_BAD_ROW = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
    UnknownLayoutError,
    ValueError,
)

_NOT_MIGRATED = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.InvalidSchemaName)


class Writer:
    """Takes finished slots from the worker's threads and sees to it that they are kept. One for each process.

    Args:
        spool: of this host.
        url: of PostgreSQL.
        latest: where the latest state goes; None: nowhere.
        schema: the only schema of the database to write to; None: the server's default.
        retention: how long a table's rows are kept, where it is not as in `partitions.TABLES`.
    """

    batch_slots = 500

    def __init__(
        self,
        spool: Spool,
        url: str,
        latest: Latest | None = None,
        *,
        schema: str | None = None,
        retention: Retention | None = None,
    ) -> None:
        self.spool, self.latest = spool, latest
        self._engine = make_engine(url, pool_size=1, schema=schema)
        self._history = History(self._engine, spool.layout, retention)
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = 0

    def start(self) -> None:
        """Begin to drain, in a thread. After a fork only: threads and connections do not survive it."""
        if self._thread is not None:
            return
        self._stop.clear()
        if self.latest is not None:
            self.latest.start()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def put(self, result: SlotResult, layouts: Iterable[Layout] = ()) -> None:
        """Keep a result: when this returns, it survives the death of the process.

        Args:
            layouts: all that its blocks name.

        Raises:
            SpoolError: it could not be kept.
            ValueError: a block does not fit its layout, or came without it.
        """
        layouts = tuple(layouts)
        lengths = {layout.digest: len(layout) for layout in layouts}
        if any(len(block) != lengths.get(block.digest) for block in result.blocks):
            raise ValueError(f"a block of {result.poll} came without its layout, or does not fit it")
        self.spool.append(result, layouts)
        if self.latest is not None:
            self.latest.put(result, layouts)
        self._wake.set()

    def flush(self, timeout: float) -> bool:
        """Wait until all that is in the spool now is written, and the latest state of what we put is sent.

        Returns:
            False when `timeout` seconds pass before.
        """
        last, ends_at = self.spool.last(), time.monotonic() + timeout
        self._hurry.set()
        self._wake.set()
        try:
            while (first := self.spool.first()) is not None and first <= last:
                if time.monotonic() >= ends_at:
                    return False
                self._stop.wait(BUSY_SECONDS / 5)  # a neighbour may be the one who drains: nobody would tell us
        finally:
            self._hurry.clear()
        return self.latest is None or self.latest.flush(max(0.0, ends_at - time.monotonic()))

    def close(self, timeout: float) -> bool:
        """Flush, stop and let go of the connections. What could not be written in time stays in the spool.

        Returns:
            Whether everything was written.
        """
        if self._failures:
            timeout = 0.0  # PostgreSQL is away: waiting would only hold up whoever stops us
        ends_at = time.monotonic() + timeout
        written = self.flush(timeout) if self._thread is not None else self.spool.first() is None
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(max(0.1, ends_at - time.monotonic()))
            self._thread = None
        if self.latest is not None:
            self.latest.close()
        self._engine.dispose()
        return written

    def backlog(self) -> Backlog:
        """What waits in the spool of this host."""
        return self.spool.backlog()

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.is_set():
            self._wake.wait(pause or IDLE_SECONDS)
            if pause:
                self._stop.wait(0 if pause == BUSY_SECONDS else IDLE_SECONDS)  # new data wakes, but once a second
            elif self._wake.is_set() and not self._hurry.is_set():
                self._stop.wait(LINGER_SECONDS)
            self._wake.clear()
            try:
                pause = self._drain()
                self._observe()
            except SpoolError as exc:
                log.error("%s", exc)  # noqa: TRY400 - the message says it all
                pause = IDLE_SECONDS
            except Exception:
                log.exception("the store's writer failed, and tries again")
                pause = BACKOFF_SECONDS[-1]

    def _drain(self) -> float:
        """Write what waits. Returns how long to stay away: 0, or until the neighbour or PostgreSQL is ready."""
        if self.spool.first() is None:
            return 0
        with self.spool.draining() as ours:
            if not ours:
                return BUSY_SECONDS
            while not self._stop.is_set() and (waiting := self.spool.batch(self.batch_slots)):
                try:
                    self._write(waiting)
                except (psycopg.Error, SQLAlchemyError) as exc:
                    return self._failed(exc)
                self._succeeded()
                if len(waiting) < self.batch_slots:
                    break  # what came meanwhile waits for company again
        return 0

    def _write(self, waiting: Sequence[Spooled]) -> None:
        """Write these in their order; what PostgreSQL will never take is found by halving, and set aside."""
        if self._refusal(waiting) is not None:
            self._history.forget()  # what we remember may be wrong, and not the rows
            self._write_halves(waiting)

    def _write_halves(self, waiting: Sequence[Spooled]) -> None:
        middle = (len(waiting) + 1) // 2
        for half in filter(None, (waiting[:middle], waiting[middle:])):
            refusal = self._refusal(half)
            if refusal is not None and len(half) > 1:
                self._write_halves(half)
            elif refusal is not None:
                self._refuse(half[0], refusal)

    def _refusal(self, waiting: Sequence[Spooled]) -> BaseException | None:
        """Write these and forget them; or why one of them can never be written."""
        try:
            self._history.write([spooled.result for spooled in waiting])
        except (*_BAD_ROW, DBAPIError) as exc:
            cause = exc.orig if isinstance(exc, DBAPIError) else exc
            if isinstance(cause, _BAD_ROW):
                return cause
            raise
        self.spool.done(waiting[-1].id)
        return None

    def _refuse(self, spooled: Spooled, cause: BaseException) -> None:
        slot = spooled.result
        reason = str(cause).partition("\n")[0] or type(cause).__name__
        log.error(
            "PostgreSQL does not take what %s of %s/%s read at %s; it is set aside in %s: %s",
            slot.poll, slot.service, slot.target, slot.due.isoformat(), self.spool.folder, reason,
        )  # fmt: skip
        try:
            self._history.write([slot.without_records(f"not stored: {reason}")])
        except (*_BAD_ROW, DBAPIError) as exc:
            log.warning("nor does it take the ledger row: %s", type(exc).__name__)
        self.spool.refuse(spooled.id, reason)

    def _failed(self, exc: Exception) -> float:
        wait = BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)]
        if self._failures == 0:
            outages.inc()
            connected.set(0)
            log.error(
                "PostgreSQL does not take what was read (%s). It is kept in %s and written later.%s",
                _reason(exc),
                self.spool.folder,
                _hint(exc),
            )
        self._failures += 1
        self._engine.dispose()
        return wait

    def _succeeded(self) -> None:
        connected.set(1)
        if self._failures:
            log.warning("PostgreSQL takes what was read again, after %d attempts", self._failures)
            self._failures = 0

    def _observe(self) -> None:
        backlog = self.spool.backlog()
        backlog_slots.set(backlog.rows)
        backlog_bytes.set(backlog.bytes)
        backlog_age.set(backlog.oldest_seconds)


def _reason(exc: Exception) -> str:
    cause = exc.orig if isinstance(exc, DBAPIError) else exc
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[0] if str(cause).strip() else 'no reason given'}"


def _hint(exc: Exception) -> str:
    cause = exc.orig if isinstance(exc, DBAPIError) else exc
    return " Run: nms-workers db upgrade" if isinstance(cause, _NOT_MIGRATED) else ""
