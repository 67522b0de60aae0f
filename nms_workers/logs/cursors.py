"""Where each source stands, on disk: what is delivered, and the one batch of which that is not known yet.

SQLite with WAL and `synchronous=FULL` (https://www.sqlite.org/pragma.html#pragma_synchronous): what was committed
survives the process and the machine. A batch is noted whole before it is sent, so that after a sudden end the very same
is sent again, with the same ids, however its lines would be put together now; its sources move on when it is
acknowledged.
"""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from nms_workers.errors import ConfigError, NmsError
from nms_workers.logs.batch import Batch

_BUSY_SECONDS = 10

_SCHEMA = """
CREATE TABLE IF NOT EXISTS positions (source TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pending (one INTEGER PRIMARY KEY CHECK (one = 1), body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    key TEXT PRIMARY KEY, path TEXT NOT NULL, device INTEGER NOT NULL, inode INTEGER NOT NULL,
    head_size INTEGER NOT NULL, head BLOB NOT NULL, done INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_path ON files (path);
"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Batch).decode


class CursorError(NmsError):
    """Cursors cannot be read or written: nothing may be shipped, since it could not be known what was."""


class FileRow(NamedTuple):
    """A file that was seen. A path has several one after the other.

    Args:
        key: names it for ever; a file that is emptied and written anew is another one.
        path: where it was when it was first seen: as it is configured.
        head_size, head: the hash of so many bytes of its beginning, by which it is known in another place.
        done: it is at its end, and that is delivered.
    """

    key: str
    path: str
    device: int
    inode: int
    head_size: int
    head: bytes
    done: bool


class Cursors:
    """The cursors of this host. One process at a time has them; its threads share them.

    Args:
        folder: made if missing. Not on a network file system.

    Raises:
        ConfigError: another process has them.
        CursorError: they cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "cursors.sqlite3"
        self._lock = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._alone = os.open(folder / "shipper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise CursorError(f"{folder} cannot be used: {exc.strerror}") from None
        try:
            fcntl.flock(self._alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._alone)
            hint = "one `nms-workers logs` a data folder; `nms-workers up` may run one already"
            raise ConfigError(f"another process ships the logs of {folder}", hint=hint) from None
        try:
            self._db = self._open()
            self._pending = self._read_pending()
            self._positions: dict[str, str] = dict(self._db.execute("SELECT source, position FROM positions"))
        except sqlite3.Error as exc:
            os.close(self._alone)
            raise self._broken(exc) from None

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()
            os.close(self._alone)

    @property
    def pending(self) -> Batch | None:
        """The batch that was noted and is not settled."""
        return self._pending

    def position(self, source: str) -> str | None:
        """From where a source is to be read: after what is delivered, and after what is noted. None: it is new."""
        with self._lock:
            noted = self._pending.positions().get(source) if self._pending else None
            return noted or self._positions.get(source)

    def sources(self) -> list[str]:
        """Every source that has a position."""
        with self._lock:
            return list(self._positions)

    def note(self, batch: Batch) -> None:
        """About to send this."""
        with self._changing() as db:
            db.execute("INSERT INTO pending VALUES (1, ?)", (_encode(batch),))
            self._pending = batch

    def settle(self, batch: Batch) -> None:
        """All of this is delivered, or put aside: its sources stand after it."""
        moved = batch.positions()
        with self._changing() as db:
            db.execute("DELETE FROM pending")
            db.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?)", moved.items())
            db.executemany("UPDATE files SET done = 1 WHERE key = ?", [(one,) for one in batch.ended()])
            self._positions |= moved
            self._pending = None

    def forget(self, sources: Sequence[str]) -> None:
        """These will not come again."""
        keys = [(one,) for one in sources]
        with self._changing() as db:
            db.executemany("DELETE FROM positions WHERE source = ?", keys)
            db.executemany("DELETE FROM files WHERE key = ?", keys)
            for one in sources:
                self._positions.pop(one, None)

    def place(self, source: str, position: str) -> None:
        """A source is to be read from here."""
        with self._changing() as db:
            db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (source, position))
            self._positions[source] = position

    def files(self, path: str) -> list[FileRow]:
        """Every file that was seen at this path."""
        with self._guarded() as db:
            found = db.execute("SELECT * FROM files WHERE path = ? ORDER BY key", (path,))
            return [FileRow(*row)._replace(done=bool(row[6])) for row in found]

    def keep_file(self, row: FileRow) -> None:
        """A new file, or one of which more is known now. Before anything of it is read."""
        with self._changing() as db:
            db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._guarded() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as exc:
                raise self._broken(exc) from None

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self._path.chmod(0o600)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA journal_size_limit = {32 << 20}")
        db.executescript(_SCHEMA)
        return db

    def _read_pending(self) -> Batch | None:
        row = self._db.execute("SELECT body FROM pending").fetchone()
        try:
            return _decode(row[0]) if row else None
        except msgspec.DecodeError as exc:
            raise CursorError(
                f"the batch noted in {self._path} cannot be read: {exc}",
                hint="it may be of another version: run that once, or move the file away and see old lines again",
            ) from None

    def _broken(self, exc: sqlite3.Error) -> CursorError:
        return CursorError(
            f"the cursors in {self._path} cannot be used: {exc}",
            hint="look at the disk's space and permissions; without this file every log is read from its beginning",
        )
