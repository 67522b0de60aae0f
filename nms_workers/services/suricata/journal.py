"""How far the event log was read, noted so that each record is told exactly once, whoever of the workers dies.

A note holds where the last run began and where it ended, with what was counted up to there, and who ran it. While
that process lives, what it read is in the spool, and the next run goes on at the end. Once it is dead, nobody knows:
its last run is read again from its beginning. The store recognizes the events by their time and fingerprint, and
counting again from the counts at the beginning gives the same counts.
"""

import fcntl
import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil

from nms_workers.errors import ParseError, Refused, Skipped
from nms_workers.records import Labels

Tally = Counter[tuple[str, Labels]]


class Place(msgspec.Struct, frozen=True):
    """A place in a log.

    Args:
        inode: of the file; 0: none was read yet, or the log is a list.
        offset: bytes from the beginning of the file; of a list, entries done with and not removed yet.
        mark, mark_size: digest of that many bytes before the offset: a file that was cut and grew again has others.
    """

    inode: int = 0
    offset: int = 0
    mark: str = ""
    mark_size: int = 0


class Reach(msgspec.Struct, frozen=True):
    """A place, and what was counted up to it: (metric, labels, number)."""

    place: Place
    counts: tuple[tuple[str, Labels, float], ...] = ()

    @classmethod
    def of(cls, place: Place, tally: Tally) -> "Reach":
        """The reach of a run."""
        return cls(place, tuple((metric, labels, number) for (metric, labels), number in sorted(tally.items())))

    def tally(self) -> Tally:
        """The counts as a counter."""
        return Counter({(metric, labels): number for metric, labels, number in self.counts})


class Note(msgspec.Struct, frozen=True):
    """The last run: who ran it, where it began and where it ended."""

    reader: str
    start: Reach
    end: Reach

    def encoded(self) -> bytes:
        """As JSON."""
        return msgspec.json.encode(self)


def decoded(text: bytes, where: str) -> Note:
    """A note from its JSON.

    Raises:
        ParseError: it is none.
    """
    try:
        return msgspec.json.decode(text, type=Note)
    except msgspec.DecodeError as exc:
        hint = "remove it, and the event log is read from its beginning"
        raise ParseError(f"{where} is no note of where we were: {exc}", hint=hint) from None


def reader() -> str:
    """Names this process: host, process id and when it was started, since ids are used again."""
    return f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.2f}"


def lives(name: str) -> bool:
    """Whether that process still runs; of another host nobody knows, so: no."""
    host, pid, started = name.split("/")
    if host != socket.gethostname():
        return False
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == started
    except psutil.Error:
        return False


class NoteFile:
    """The note of a log that is a file.

    Args:
        path: of the note; a lock file lies beside it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only one run at a time reads the log.

        Raises:
            Skipped: another one does.
            Refused: the note cannot be written there.
        """
        try:
            lock = self._path.with_name(self._path.name + ".lock").open("wb")
        except OSError as exc:
            raise self._unwritable(exc) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Skipped(f"another run reads {self._path.name.removesuffix('.position')}") from None
            yield

    def load(self) -> Note | None:
        """The note; None: nothing was read yet."""
        try:
            return decoded(self._path.read_bytes(), str(self._path))
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise self._unwritable(exc) from None

    def save(self, note: Note) -> None:
        """Replace the note as a whole."""
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            with fresh.open("wb") as out:
                out.write(note.encoded())
                out.flush()
                os.fsync(out.fileno())
            fresh.replace(self._path)
        except OSError as exc:
            raise self._unwritable(exc) from None

    def _unwritable(self, exc: OSError) -> Refused:
        hint = "set position to a file where the worker may write"
        return Refused(f"we cannot note in {self._path} how far we read: {exc.strerror}", hint=hint)
