"""Where every finished slot rests until PostgreSQL has it: one SQLite file a host, shared by its worker processes.

WAL with `synchronous=NORMAL` (https://www.sqlite.org/wal.html): what was appended survives the death of the process,
however sudden. Rows leave in the order in which they came, and only after the database has committed them.
"""

import fcntl
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
from prometheus_client import Counter

from nms_workers.errors import NmsError
from nms_workers.records import Layout
from nms_workers.store.slot import SlotResult

log = logging.getLogger(__name__)

dropped_samples = Counter("nms_store_spool_dropped_samples", "Samples dropped because the spool was full")
dropped_slots = Counter("nms_store_spool_dropped_slots", "Slots of which not even the ledger row found room")
refused_slots = Counter("nms_store_refused_slots", "Slots that PostgreSQL refused, set aside in the spool")

BUSY_SECONDS = 10
LEDGER_RESERVE = 0.1  # of max_bytes, for the ledger rows of slots whose records found no room
REFUSED_KEPT = 1000
LAYOUTS_BEFORE_SWEEP = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS slots (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS layouts (digest BLOB PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS refused (id INTEGER PRIMARY KEY, at REAL NOT NULL, reason TEXT NOT NULL, body BLOB NOT NULL);
"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SlotResult).decode


class SpoolError(NmsError):
    """The spool cannot be read or written, so what was just read is not safe."""


class Spooled(NamedTuple):
    """A slot in the spool; ids grow in the order of arrival."""

    id: int
    result: SlotResult


class Backlog(NamedTuple):
    """What waits: slots, bytes on disk in use, age of the oldest slot in seconds (0 when nothing waits)."""

    rows: int
    bytes: int
    oldest_seconds: float


class Spool:
    """The spool of this host. Safe to use from several threads, and across fork.

    Args:
        folder: made if missing; every worker process of the host uses the same one. Not on a network file system.
        max_bytes: beyond it a slot's records are dropped and only its ledger row is kept, with outcome `error`.
    """

    def __init__(self, folder: Path, max_bytes: int = 1 << 30) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._full = False
        self._inherited: list[sqlite3.Connection | None] = []
        self._start_afresh()
        this = weakref.ref(self)

        def in_child() -> None:
            if (spool := this()) is not None:
                spool._start_afresh()

        os.register_at_fork(after_in_child=in_child)

    def _start_afresh(self) -> None:
        # A connection of the parent must be neither used nor closed here: SQLite forbids both, so it is kept aside.
        self._inherited.append(getattr(self, "_connection", None))
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()
        self._new_layouts = 0
        if (drain_lock := getattr(self, "_drain_lock", None)) is not None:
            os.close(drain_lock)  # the copy of a lock that the parent holds and goes on holding
        self._drain_lock: int | None = None

    def append(self, result: SlotResult, layouts: Iterable[Layout]) -> int:
        """Keep a result. When this returns, the death of the process does not lose it.

        Args:
            layouts: those its blocks name; stored once.

        Returns:
            The id of the slot in the spool; 0 when the spool was too full even for its ledger row.

        Raises:
            SpoolError: the file cannot be written.
        """
        try:
            body = _encode(result)
        except (TypeError, ValueError, OverflowError) as exc:
            result = result.without_records(f"cannot be stored: {exc}")
            body, layouts = _encode(result), ()
        with self._transaction() as db:
            used = self._used(db)
            self._note_full(used)
            if used >= self.max_bytes * (1 + LEDGER_RESERVE):
                dropped_slots.inc()
                dropped_samples.inc(result.samples)
                return 0
            if used >= self.max_bytes and (result.blocks or result.events or result.entities or result.links):
                dropped_samples.inc(result.samples)
                result = result.without_records(f"spool full: {result.samples} samples dropped")
                body, layouts = _encode(result), ()
            for layout in layouts:
                stored = db.execute("INSERT OR IGNORE INTO layouts VALUES (?, ?)", (layout.digest, layout.body))
                self._new_layouts += max(stored.rowcount, 0)
            return db.execute("INSERT INTO slots (at, body) VALUES (?, ?)", (time.time(), body)).lastrowid or 0

    @contextmanager
    def draining(self) -> Iterator[bool]:
        """Whether we are the one who may drain, until the end of the block. Released when the process dies."""
        with self._guarded():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.folder / "drain.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._drain_lock = handle
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
                fcntl.flock(handle, fcntl.LOCK_UN)  # closing alone would leave it to a child forked just now
        finally:
            self._drain_lock = None
            os.close(handle)

    def batch(self, rows: int, max_bytes: int = 16 << 20) -> list[Spooled]:
        """The oldest slots, at most `rows` of them and not much more than `max_bytes`. Only for who drains.

        A row that cannot be read any more (of an older version) is set aside.
        """
        read: list[tuple[int, bytes]] = []
        with self._guarded() as db:
            for row in db.execute("SELECT id, body FROM slots ORDER BY id LIMIT ?", (rows,)):
                read.append(row)
                max_bytes -= len(row[1])
                if max_bytes <= 0:
                    break
        found = []
        for key, body in read:  # others may append meanwhile
            try:
                found.append(Spooled(key, _decode(body)))
            except (msgspec.DecodeError, NmsError) as exc:
                self.refuse(key, f"cannot be read: {exc}")
        return found

    def layout(self, digest: bytes) -> Layout | None:
        """The layout of this digest, if it came with a slot."""
        with self._guarded() as db:
            row = db.execute("SELECT body FROM layouts WHERE digest = ?", (digest,)).fetchone()
        return Layout.from_body(row[0]) if row else None

    def done(self, last: int) -> None:
        """Forget every slot up to this id: PostgreSQL has them. Only for who drains."""
        with self._transaction() as db:
            db.execute("DELETE FROM slots WHERE id <= ?", (last,))
            if self._new_layouts >= LAYOUTS_BEFORE_SWEEP and not db.execute("SELECT 1 FROM slots").fetchone():
                db.execute("DELETE FROM layouts")
                self._new_layouts = 0

    def refuse(self, key: int, reason: str) -> None:
        """Set a slot aside that PostgreSQL will never take. The newest 1000 are kept, for people to look at."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO refused SELECT id, at, ?, body FROM slots WHERE id = ?", (reason[:1000], key)
            )
            db.execute("DELETE FROM slots WHERE id = ?", (key,))
            db.execute(
                "DELETE FROM refused WHERE id <= (SELECT id FROM refused ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (REFUSED_KEPT,),
            )
        refused_slots.inc()

    def refused(self) -> list[tuple[int, str]]:
        """The slots set aside: id and reason."""
        with self._guarded() as db:
            return [(key, reason) for key, reason in db.execute("SELECT id, reason FROM refused ORDER BY id")]

    def retry_refused(self) -> int:
        """Put the slots set aside back in line, after the cause is gone. Returns how many."""
        with self._transaction() as db:
            moved = db.execute("INSERT INTO slots (at, body) SELECT at, body FROM refused ORDER BY id").rowcount
            db.execute("DELETE FROM refused")
        return moved

    def first(self) -> int | None:
        """The id of the oldest slot; None when nothing waits."""
        with self._guarded() as db:
            key: int | None = db.execute("SELECT min(id) FROM slots").fetchone()[0]
        return key

    def last(self) -> int:
        """The id of the newest slot; 0 when nothing waits."""
        with self._guarded() as db:
            key: int = db.execute("SELECT coalesce(max(id), 0) FROM slots").fetchone()[0]
        return key

    def backlog(self) -> Backlog:
        """What waits to be written."""
        with self._guarded() as db:
            # slots leave from the front and ids have no gaps, so nothing needs to be counted one by one
            first, last = db.execute("SELECT (SELECT min(id) FROM slots), (SELECT max(id) FROM slots)").fetchone()
            if first is None:
                return Backlog(0, self._used(db), 0.0)
            (oldest,) = db.execute("SELECT at FROM slots WHERE id = ?", (first,)).fetchone()
            return Backlog(last - first + 1, self._used(db), max(0.0, time.time() - oldest))

    def close(self) -> None:
        """Let go of the file. The spool may be used again afterwards."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _note_full(self, used: int) -> None:
        full = used >= self.max_bytes
        if full and not self._full:
            log.error(
                "the spool %s is full (%d bytes): what is read from now on is dropped. "
                "See why PostgreSQL does not take it, or give the spool more room.",
                self.folder,
                used,
            )
        elif self._full and not full:
            log.warning("the spool %s has room again (%d bytes used)", self.folder, used)
        self._full = full

    @staticmethod
    def _used(db: sqlite3.Connection) -> int:
        pages, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in _SIZES)
        return int((pages - free) * size)

    @contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                yield self._connection
            except (sqlite3.Error, OSError) as exc:
                broken = isinstance(exc, sqlite3.DatabaseError) and not isinstance(exc, sqlite3.OperationalError)
                raise SpoolError(
                    f"the spool in {self.folder} cannot be used: {exc}",
                    hint="move spool.sqlite3 away" if broken else "look at the disk's space and permissions",
                ) from exc

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guarded() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _open(self) -> sqlite3.Connection:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        db = sqlite3.connect(
            self.folder / "spool.sqlite3", timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA journal_size_limit = {8 << 20}")
        db.executescript(_SCHEMA)
        return db


_SIZES = ("page_count", "freelist_count", "page_size")
