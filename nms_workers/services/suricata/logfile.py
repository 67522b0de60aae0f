"""An event log that is a file: goes on where it was left, through rotation and truncation; looks back from its end."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from nms_workers.errors import AuthError, TargetError, Unreachable
from nms_workers.records import Sample
from nms_workers.services.suricata.journal import Note, NoteFile, Place

MAX_LINE = 1 << 20  # bytes; a stats record of many threads fills a tenth
_MARK = 256
_BLOCK = 1 << 20
_SIBLINGS = 1000
_NO_LOG = (".gz", ".xz", ".bz2", ".zst", ".position", ".lock", ".new")


class Item(msgspec.Struct, frozen=True):
    """A line of the log, or what happened to the log, and the place after it.

    Args:
        place: to go on from.
        line: without its newline; empty when something happened.
        happened: `rotated`, `truncated`, `gone` (what was not read yet), `too long`, `cut off` (a line).
    """

    place: Place
    line: bytes = b""
    happened: str = ""


class _Segment(NamedTuple):
    written: int  # nanoseconds; first, so that segments sort by it
    path: Path
    inode: int
    size: int


class LogFile:
    """A log that Suricata appends to and others rotate, by renaming (logrotate `create`) or by `copytruncate`.

    Args:
        path: of the log; rotated files lie beside it under longer names.
        position: of the note.
    """

    def __init__(self, path: Path, position: Path | None) -> None:
        self._path = path
        self._note = NoteFile(position or path.with_name(path.name + ".position"))

    def held(self) -> AbstractContextManager[None]:
        """Only one run at a time."""
        return self._note.held()

    def load(self) -> Note | None:
        """The note of the last run."""
        return self._note.load()

    def save(self, note: Note) -> None:
        """Note this run."""
        self._note.save(note)

    def settle(self, note: Note) -> Place:
        """The place to go on from, after a run whose records are known to be kept."""
        return note.end.place

    def items(self, place: Place) -> Iterator[Item]:
        """What follows a place, in the order it was written. Ends before a line that is not whole yet.

        Raises:
            Unreachable: there is no such file.
            AuthError: we may not read it.
        """
        segments, start, happened = self._found(place)
        if happened:
            yield Item(Place(segments[0].inode, start), happened=happened)
        for index, segment in enumerate(segments):
            if index:
                start = 0
                yield Item(Place(segment.inode, 0), happened="rotated")
            # Suricata goes on writing to a renamed file until it opens the new one: look at that one first
            done_with = index + 1 < len(segments) and _size(segments[index + 1].path) > 0
            with _opened(segment.path) as source:
                if os.fstat(source.fileno()).st_ino != segment.inode:
                    return  # rotated just now: the next run sorts it out
                source.seek(start)
                yield from _lines(source, segment.inode, done_with=done_with)
            if not done_with:
                return

    def backlog(self, place: Place) -> Sample:
        """Bytes that follow a place."""
        segments, start, _ = self._found(place)
        return Sample("suricata_eve_backlog_bytes", max(sum(one.size for one in segments) - start, 0))

    def backwards(self, limit: int) -> Iterator[bytes]:
        """The lines of the log and its rotated files, newest first, in the last `limit` bytes.

        Raises:
            Unreachable, AuthError: as `items`.
        """
        for segment in reversed(self._segments()):
            if limit <= 0:
                return
            with _opened(segment.path) as source:
                yield from _backwards(source, segment.size, min(limit, segment.size))
            limit -= segment.size

    def _found(self, place: Place) -> tuple[list[_Segment], int, str]:
        """The files that follow a place with the offset in the first of them, and what happened to the log."""
        segments = self._segments()
        if not place.inode:
            return segments[-1:], 0, ""
        for same in (lambda one: one.inode == place.inode, lambda one: place.mark_size > 0):
            for index, one in enumerate(segments):  # a copy (`copytruncate`) has another inode and the same bytes
                if same(one) and self._holds(one, place):
                    return segments[index:], place.offset, ""
        return segments[-1:], 0, "truncated" if segments[-1].inode == place.inode else "gone"

    def _holds(self, segment: _Segment, place: Place) -> bool:
        if segment.size < place.offset:
            return False
        with _opened(segment.path) as source:
            source.seek(place.offset - place.mark_size)
            return _mark(source.read(place.mark_size)) == place.mark or not place.mark_size

    def _segments(self) -> list[_Segment]:
        """Rotated files, oldest first, and last the log itself."""
        beside = [path for path in self._path.parent.glob(self._path.name + "[.-]*") if not path.name.endswith(_NO_LOG)]
        rotated = [one for path in beside[:_SIBLINGS] if (one := _segment(path))]
        current = _segment(self._path)
        if current is None and not rotated:
            hint = "is eve-log enabled in suricata.yaml, and has Suricata started?"
            raise Unreachable(f"there is no event log {self._path}", hint=hint)
        return sorted(rotated) + ([current] if current else [])


def _segment(path: Path) -> _Segment | None:
    try:
        known = path.stat()
    except FileNotFoundError:  # rotated or removed just now
        return None
    except OSError as exc:
        raise _explained(path, exc) from None
    return _Segment(known.st_mtime_ns, path, known.st_ino, known.st_size)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as exc:
        raise _explained(path, exc) from None


def _explained(path: Path, exc: OSError) -> TargetError:
    if isinstance(exc, PermissionError):
        return AuthError(f"we may not read {path}", hint="let the worker's user into the group of the file")
    return Unreachable(f"the event log {path} cannot be read: {exc.strerror}")


def _lines(source: BinaryIO, inode: int, *, done_with: bool) -> Iterator[Item]:
    offset = source.tell()
    while line := source.readline(MAX_LINE):
        size = len(line)
        while not line.endswith(b"\n") and size >= MAX_LINE and (more := source.readline(MAX_LINE)):
            line, size = more, size + len(more)
        if not line.endswith(b"\n"):
            if done_with:
                yield Item(Place(inode, offset + size), happened="cut off")
            return
        offset += size
        tail = line[-_MARK:]
        place = Place(inode, offset, _mark(tail), len(tail))
        yield Item(place, happened="too long") if size > len(line) else Item(place, line.rstrip(b"\r\n"))


def _backwards(source: BinaryIO, end: int, limit: int) -> Iterator[bytes]:
    rest, floor = b"", end - limit
    while end > floor:
        start = max(end - _BLOCK, floor)
        source.seek(start)
        lines = (source.read(end - start) + rest).split(b"\n")
        rest = lines[0] if len(lines[0]) <= MAX_LINE else b""
        yield from (line for line in reversed(lines[1:]) if line)
        end = start
    if rest and not floor:
        yield rest


def _mark(tail: bytes) -> str:
    return blake2b(tail, digest_size=8).hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
