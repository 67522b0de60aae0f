"""Where batches of flows rest until PostgreSQL has them: a folder, one file a batch, shared by the processes of a host.

A batch of flows is megabytes. A file costs one write; in SQLite, where the polls rest, it would be written twice. What
was put survives the death of the process; of a power cut, what the system had written. Who drains locks the file he
reads, so several processes drain side by side, and what a dead one left is taken by its neighbours.
"""

import fcntl
import logging
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Counter

from nms_workers.store.spool import SpoolError

log = logging.getLogger(__name__)

dropped_flows = Counter("nms_flows_spool_dropped", "Flows dropped because the spool was full")
refused_batches = Counter("nms_flows_refused_batches", "Batches that PostgreSQL refused, set aside in the spool")

MAX_FILES = 100_000
REFUSED_KEPT = 100
PART_SECONDS = 3600  # after this time a file that was not finished belongs to nobody

_NAME = re.compile(r"(?P<micros>[0-9]{20})-(?P<id>[0-9a-f]{32})\.flows")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Backlog(NamedTuple):
    """What waits: batches, bytes, age of the oldest in seconds (0 when nothing waits)."""

    batches: int
    bytes: int
    oldest_seconds: float


class Waiting(NamedTuple):
    """A batch in the spool that nobody else has now.

    Args:
        id, at: name it in the ledger; `at` is when it was put.
        body: what was put.
    """

    path: Path
    id: uuid.UUID
    at: datetime
    body: bytes


class FlowSpool:
    """The spool of this host. Safe to use from several threads and processes.

    Args:
        folder: made if missing. Not on a network file system.
        max_bytes: beyond it nothing is taken.
    """

    def __init__(self, folder: Path, max_bytes: int = 2_000_000_000) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._full = False

    def put(self, body: Iterable[bytes | memoryview], flows: int) -> bool:
        """Keep a batch. When this returns True, the death of the process does not lose it.

        Args:
            body: its parts, written one after the other.
            flows: in it, to be counted where there is no room for them.

        Returns:
            False when the spool is full: the batch is dropped.

        Raises:
            SpoolError: the folder cannot be written.
        """
        parts = list(body)
        waits = self.backlog()
        full = (
            waits.bytes + sum(memoryview(part).nbytes for part in parts) > self.max_bytes or waits.batches > MAX_FILES
        )
        self._note(full, waits)
        if full:
            dropped_flows.inc(flows)
            return False
        key = uuid.uuid4()
        path = self.folder / f"{time.time_ns() // 1000:020d}-{key.hex}.flows"
        part = path.with_suffix(".part")
        with self._guarded():
            try:
                with part.open("xb", buffering=0) as file:
                    for piece in parts:
                        _write_all(file.fileno(), memoryview(piece).cast("B"))
                part.rename(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        return True

    @contextmanager
    def taken(self, flows_bytes: int) -> Iterator[list[Waiting]]:
        """The oldest batches that nobody else has, not much more than so many bytes, until the end of the block."""
        found: list[Waiting] = []
        handles: list[int] = []
        try:
            for path in self._paths():
                with self._guarded():
                    handle = _locked(path)
                if handle is None:
                    continue
                handles.append(handle)
                found.append(_read(path, handle))
                flows_bytes -= len(found[-1].body)
                if flows_bytes <= 0:
                    break
            yield found
        finally:
            for handle in handles:
                os.close(handle)

    def done(self, batch: Waiting) -> None:
        """Forget a batch: PostgreSQL has it. Only inside `taken`."""
        with self._guarded():
            batch.path.unlink(missing_ok=True)

    def refuse(self, batch: Waiting, reason: str) -> None:
        """Set a batch aside that PostgreSQL will never take, with the reason beside it. The newest 100 are kept."""
        aside = self.folder / "refused"
        with self._guarded():
            aside.mkdir(mode=0o700, exist_ok=True)
            (aside / batch.path.with_suffix(".reason").name).write_text(reason[:1000] + "\n")
            batch.path.rename(aside / batch.path.name)
            for old in sorted(aside.glob("*.flows"))[:-REFUSED_KEPT]:
                old.unlink(missing_ok=True)
                old.with_suffix(".reason").unlink(missing_ok=True)
        refused_batches.inc()

    def backlog(self) -> Backlog:
        """What waits to be written."""
        sizes, oldest = [], ""
        with self._guarded():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for entry in os.scandir(self.folder):
                if _NAME.fullmatch(entry.name):
                    try:
                        sizes.append(entry.stat().st_size)
                    except FileNotFoundError:
                        continue  # a neighbour wrote it to PostgreSQL just now
                    oldest = min(oldest or entry.name, entry.name)
        age = time.time() - int(oldest[:20]) / 1e6 if oldest else 0.0
        return Backlog(len(sizes), sum(sizes), max(0.0, age))

    def first(self) -> str:
        """The name of the oldest batch; empty when nothing waits. Names grow in the order of arrival."""
        return min((path.name for path in self._paths()), default="")

    def last(self) -> str:
        """The name of the newest batch; empty when nothing waits."""
        return max((path.name for path in self._paths()), default="")

    def sweep(self) -> None:
        """Remove what a killed process did not finish writing."""
        with self._guarded():
            for part in self.folder.glob("*.part"):
                try:
                    if time.time() - part.stat().st_mtime > PART_SECONDS:
                        part.unlink()
                except FileNotFoundError:
                    continue

    def _paths(self) -> list[Path]:
        with self._guarded():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def _note(self, full: bool, waits: Backlog) -> None:
        if full and not self._full:
            log.error(
                "the spool %s is full (%d bytes in %d batches): flows are dropped from now on. "
                "See why PostgreSQL does not take them, or give the spool more room.",
                self.folder, waits.bytes, waits.batches,
            )  # fmt: skip
        elif self._full and not full:
            log.warning("the spool %s has room again (%d bytes used)", self.folder, waits.bytes)
        self._full = full

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise SpoolError(
                f"the spool in {self.folder} cannot be used: {exc.strerror or exc}",
                hint="look at the disk's space and permissions",
            ) from exc


def _write_all(handle: int, content: memoryview) -> None:
    while content:
        content = content[os.write(handle, content) :]


def _locked(path: Path) -> int | None:
    """The file, locked; None: it is gone, or somebody else has it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    if os.fstat(handle).st_nlink == 0 or not path.exists():  # written and forgotten, or set aside, while we waited
        os.close(handle)
        return None
    return handle


def _read(path: Path, handle: int) -> Waiting:
    parts, size = [], os.fstat(handle).st_size + 1
    while part := os.read(handle, size):
        parts.append(part)
    named = _NAME.fullmatch(path.name)
    assert named is not None  # noqa: S101 - `_paths` gives no others
    at = _EPOCH + timedelta(microseconds=int(named["micros"]))
    return Waiting(path, uuid.UUID(named["id"]), at, b"".join(parts))
