"""Log files by their paths: found, followed over rotation, and told apart from their own copies.

A file is known by its number (inode) together with its beginning, since numbers are used again. It may leave its path:

* renamed: what is open is read to its end; what was renamed while nobody looked is found beside its path;
* copied and emptied: what was not read before is read in the copy, which is known by its beginning;
* deleted: what is open is read to its end.

What was rotated before a path was first looked at is not read.
"""

import glob
import logging
import os
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nms_workers.logs import metrics
from nms_workers.logs.cursors import FileRow
from nms_workers.logs.feed import Feed
from nms_workers.logs.joining import rule_of
from nms_workers.logs.origin import Origin, Way
from nms_workers.logs.streams import stream_of
from nms_workers.logs.tail import HEAD, Tail
from nms_workers.settings import LogFiles

log = logging.getLogger(__name__)

_TURN_BYTES = 262_144  # read of one file before the next has its turn
_LEAVING_SECONDS = 30.0  # who writes may go on for so long in a file that was renamed
_REMEMBERED = 20  # files of one path that are done, by which copies are known
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")


@dataclass
class _Followed:
    """A file that is read."""

    row: FileRow
    tail: Tail
    feed: Feed
    leaves_at: float | None = None  # it is at its path no more: nothing is read after this time, once it is at its end
    resting_until: float = 0.0  # it says too much


@dataclass
class _Place:
    """One path."""

    wanted: LogFiles
    new: bool = False  # nothing was known of it until now
    current: _Followed | None = None
    leaving: list[_Followed] = field(default_factory=list)


class Files:
    """All files of the settings. For one thread.

    Args:
        host: what this host is called.
    """

    def __init__(self, way: Way, wanted: tuple[LogFiles, ...], host: str) -> None:
        self._way, self._wanted, self._host = way, wanted, host
        self._settings, self._cursors = way.settings, way.cursors
        self._places: dict[Path, _Place] = {}
        self._complained: set[Path] = set()
        self._ended: set[str] = set()  # keys of files that were read to their end

    def scan(self) -> None:
        """See which files there are, and what became of those that were there."""
        paths = self._paths()
        metrics.OVER.labels("file").set(max(0, len(paths) - self._settings.max_files))
        for path in self._chosen(list(paths)):
            wanted, place = paths[path], self._places.get(path)
            try:
                if place is None:
                    place = _Place(wanted)
                    self._first_look(path, place)
                    self._places[path] = place
                self._look(path, place)
            except OSError as exc:
                self._complain(path, exc)
        for path in [one for one in self._places if one not in paths and not one.exists()]:
            self._gone(path, self._places[path])
        metrics.SOURCES.labels("file").set(sum(1 for _ in self._followed()))

    def read(self) -> bool:
        """One turn for every file. Whether any line came."""
        came = False
        now = time.monotonic()
        for one in list(self._followed()):
            one.feed.idle()
            if now < one.resting_until or not self._way.intake.room:
                continue
            try:
                came = self._turn(one, now) or came
            except OSError as exc:
                self._complain(one.tail.path, exc)
        return came

    def _turn(self, one: _Followed, now: float) -> bool:
        before = one.tail.offset
        if one.tail.size != before:
            if self._emptied(one):  # the next scan sees to it
                if one.leaves_at is not None:
                    self._lose(one.row)
                    self._end(one)
                return False
            self._know_head(one)
            for piece in one.tail.read(_TURN_BYTES):
                one.feed.add(piece)
            if (pause := one.feed.pause()) > 0:
                metrics.LIMITED.inc(pause)
                one.resting_until = now + pause
        if one.leaves_at is not None and one.tail.at_end and now >= one.leaves_at:
            self._end(one)
        return one.tail.offset > before

    def close(self) -> None:
        """Let go of all files; what waits for a line that belongs to it is handed on."""
        for one in self._followed():
            one.feed.flush()
            one.tail.close()
        self._places.clear()

    def _paths(self) -> dict[Path, LogFiles]:
        """Every path there is now, in the order of the settings; none is a rotated file of another."""
        found: dict[Path, LogFiles] = {}
        for wanted in self._wanted:
            for pattern in wanted.paths:
                for text in sorted(glob.glob(pattern)):  # noqa: PTH207 - the pattern is absolute
                    found.setdefault(Path(text), wanted)
        beside: dict[Path, list[Path]] = {}
        for path in found:
            beside.setdefault(path.parent, []).append(path)
        return {
            path: wanted
            for path, wanted in found.items()
            if not path.name.endswith(_PACKED)
            and not any(_is_rotated(path.name, other.name) for other in beside[path.parent] if other != path)
        }

    def _chosen(self, paths: list[Path]) -> list[Path]:
        """As many as may be followed: those that are, then those that were written last."""
        if len(paths) <= self._settings.max_files:
            return paths
        ages = {path: -path.stat().st_mtime if path.exists() else 0.0 for path in paths}
        return sorted(paths, key=lambda path: (path not in self._places, ages[path]))[: self._settings.max_files]

    def _gone(self, path: Path, place: _Place) -> None:
        """Nothing is at this path. Once what was there is delivered, it is forgotten."""
        self._leave(place)
        rows = self._rows(path)
        if not place.leaving and all(row.done for row in rows) and not self._siblings(path):
            self._cursors.forget([row.key for row in rows])
            self._ended.difference_update(row.key for row in rows)
            del self._places[path]

    def _followed(self) -> Iterator[_Followed]:
        for place in self._places.values():
            yield from place.leaving
            if place.current is not None:
                yield place.current

    def _rows(self, path: Path) -> list[FileRow]:
        return self._cursors.files(str(path))

    # ------------------------------------------------------------------ what became of a path

    def _first_look(self, path: Path, place: _Place) -> None:
        """Find what was left unread of files that have left this path meanwhile, and what came and went unseen."""
        rows = self._rows(path)
        if not rows:
            place.new = True
            for sibling in self._siblings(path):
                self._new_row(path, sibling, done=True)  # known, and not read
            return
        open_rows = {row.key: row for row in rows if not row.done}
        with _opened(path, self._settings.line_bytes) as current:
            here = _row_of(current, list(open_rows.values()))
            if here is not None:
                del open_rows[here.key]
        for sibling in self._siblings(path):
            with _opened(sibling, self._settings.line_bytes) as tail:
                row = _row_of(tail, list(open_rows.values())) or _copied(tail, list(open_rows.values()))
                known = row is None and (_row_of(tail, rows) or _copied(tail, rows))
            if row is not None:
                del open_rows[row.key]
                self._follow_rotated(place, row, sibling)
            elif not known:
                self._follow_rotated(place, self._new_row(path, sibling), sibling)
        for row in open_rows.values():
            self._lose(row)

    def _look(self, path: Path, place: _Place) -> None:
        current = place.current
        if current is not None:
            found = path.stat()
            if current.tail.is_file(found.st_dev, found.st_ino) and not self._emptied(current):
                return
            if current.tail.is_file(found.st_dev, found.st_ino):
                self._find_copy(path, place, current)
            else:
                self._leave(place)
        if not place.new:
            self._missed(path, place)
        self._follow(path, place)

    def _emptied(self, one: _Followed) -> bool:
        """Whether the same file is written anew from its beginning."""
        row = one.row
        return one.tail.size < one.tail.offset or (row.head_size > 0 and not one.tail.begins(row.head_size, row.head))

    def _leave(self, place: _Place) -> None:
        """It is renamed or deleted: read on until nobody writes to it any more."""
        if place.current is not None:
            place.current.leaves_at = time.monotonic() + _LEAVING_SECONDS
            place.leaving.append(place.current)
            place.current = None

    def _find_copy(self, path: Path, place: _Place, emptied: _Followed) -> None:
        """Read on in the copy that was made before the file was emptied."""
        place.current = None
        offset, last = emptied.tail.line_start, emptied.tail.last()
        emptied.tail.close()
        for sibling in self._siblings(path):
            with _opened(sibling, self._settings.line_bytes) as tail:
                found = tail.size >= offset and _copied(tail, [emptied.row]) is not None
            if found:
                emptied.tail = Tail(sibling, offset, self._settings.line_bytes)
                emptied.leaves_at = 0.0
                place.leaving.append(emptied)
                return
        if last is not None:
            emptied.feed.add(last)
        emptied.feed.end()
        self._ended.add(emptied.row.key)

    def _missed(self, path: Path, place: _Place) -> None:
        """Files that were at this path between two looks."""
        rows = self._rows(path)
        for sibling in self._siblings(path):
            with _opened(sibling, self._settings.line_bytes) as tail:
                known = _row_of(tail, rows) or _copied(tail, rows) or self._is_open(tail)
            if not known:
                self._follow_rotated(place, self._new_row(path, sibling), sibling)

    def _is_open(self, tail: Tail) -> bool:
        return any(one.tail.is_file(tail.device, tail.inode) for one in self._followed())

    def _follow(self, path: Path, place: _Place) -> None:
        """Read what is at the path now."""
        with _opened(path, self._settings.line_bytes) as tail:
            back = next((one for one in place.leaving if one.tail.is_file(tail.device, tail.inode)), None)
            if back is not None and not self._emptied(back):  # it was renamed, and renamed back
                place.leaving.remove(back)
                back.leaves_at, place.current = None, back
            if self._is_open(tail):  # or this is another name of a file that is read already
                return
            row = self._known_row(path, tail)
            if row is not None and row.key in self._ended:  # its last lines are on their way: not yet
                return
            if row is None:
                row = self._new_row(path, path)
                if place.new and place.wanted.start == "end":
                    self._cursors.place(row.key, str(tail.size))
        place.new = False
        offset = self._position(row)
        place.current = _Followed(row, Tail(path, offset, self._settings.line_bytes), self._feed(row, place.wanted))
        self._complained.discard(path)
        self._prune(path)

    def _known_row(self, path: Path, tail: Tail) -> FileRow | None:
        """The row of a file that was at this path before, to be read on."""
        open_keys = {one.row.key for one in self._followed()}
        row = _row_of(tail, [row for row in self._rows(path) if row.key not in open_keys])
        if row is None or self._position(row) > tail.size:
            return None
        if row.done:
            row = row._replace(done=False)
            self._cursors.keep_file(row)
            self._ended.discard(row.key)
        return row

    def _position(self, row: FileRow) -> int:
        return int(self._cursors.position(row.key) or 0)

    def _follow_rotated(self, place: _Place, row: FileRow, sibling: Path) -> None:
        tail = Tail(sibling, self._position(row), self._settings.line_bytes)
        leaves_at = time.monotonic() + _LEAVING_SECONDS if tail.is_file(row.device, row.inode) else 0.0
        place.leaving.append(_Followed(row, tail, self._feed(row, place.wanted), leaves_at))

    def _end(self, one: _Followed) -> None:
        """It is read to its end, and nobody writes to it any more."""
        if (last := one.tail.last()) is not None:
            one.feed.add(last)
        one.feed.end()
        one.tail.close()
        self._ended.add(one.row.key)
        for place in self._places.values():
            if one in place.leaving:
                place.leaving.remove(one)

    # ------------------------------------------------------------------ what is known of files

    def _feed(self, row: FileRow, wanted: LogFiles) -> Feed:
        kind = wanted.service or ""
        service = {key: value for key, value in (("name", wanted.name or kind), ("type", kind)) if value}
        origin = Origin(
            source=row.key,
            medium="file",
            stream=wanted.stream or stream_of(kind),
            rule=rule_of(kind, wanted.joining or ""),
            fields={
                "host": {"name": self._host},
                "event": {"dataset": f"{kind or 'file'}.log", "kind": "event"},
                "log": {"file": {"path": row.path}},
                **({"service": service} if service else {}),
            },
        )
        return Feed(origin, self._settings, self._way.intake.put)

    def _new_row(self, path: Path, where: Path, *, done: bool = False) -> FileRow:
        with _opened(where, self._settings.line_bytes) as tail:
            row = FileRow(uuid.uuid4().hex, str(path), tail.device, tail.inode, *tail.head(), done)
        self._cursors.keep_file(row)
        return row

    def _know_head(self, one: _Followed) -> None:
        """A file that has grown is known by more of its beginning."""
        if one.row.head_size < HEAD and one.tail.size > one.row.head_size and one.leaves_at is None:
            size, head = one.tail.head()
            known = one.row._replace(head_size=size, head=head)
            self._cursors.keep_file(known)
            one.row = known

    def _lose(self, row: FileRow) -> None:
        """It is nowhere any more. What it had after what was read is lost, if it had anything."""
        log.warning("%s was rotated and is gone: what was not read of it before cannot be read any more", row.path)
        metrics.LOST.inc()
        self._cursors.keep_file(row._replace(done=True))

    def _prune(self, path: Path) -> None:
        """Forget files of this path that are done and gone."""
        numbers = set()
        for sibling in [path, *self._siblings(path)]:
            with _opened(sibling, self._settings.line_bytes) as tail:
                numbers.add((tail.device, tail.inode))
        gone = [row.key for row in self._rows(path) if row.done and (row.device, row.inode) not in numbers]
        if len(gone) > _REMEMBERED:
            self._cursors.forget(gone)
            self._ended.difference_update(gone)

    def _siblings(self, path: Path) -> list[Path]:
        """Files beside this path that were at it, by their names: the oldest first. Packed ones are not read."""
        found = []
        for one in path.parent.iterdir():
            if one.name.endswith(_PACKED) or not _is_rotated(one.name, path.name):
                continue
            if one.is_file() and os.access(one, os.R_OK) and one.stat().st_size > 0:
                found.append((one.stat().st_mtime_ns, one))
        return [one for _, one in sorted(found)]

    def _complain(self, path: Path, exc: OSError) -> None:
        """Once, until it can be read again. That it is gone meanwhile is nothing to tell."""
        if not isinstance(exc, FileNotFoundError) and path not in self._complained:
            self._complained.add(path)
            log.warning("the log %s cannot be read: %s", path, exc.strerror or exc)


def _is_rotated(name: str, of: str) -> bool:
    """Whether a name is what a rotated file of another is called: app.log.1, app.log-20261122, app-2026-11-22.log."""
    stem, dot, suffix = of.rpartition(".")
    after = re.match(re.escape(of) + r"[.-][0-9][0-9A-Za-z._-]*\Z", name)
    before = dot and re.match(re.escape(stem) + r"[._-][0-9][0-9._T-]*\." + re.escape(suffix) + r"\Z", name)
    return bool(after or before)


class _opened:  # noqa: N801 - used as a function
    """A file for a look."""

    def __init__(self, path: Path, line_bytes: int) -> None:
        self._tail = Tail(path, 0, line_bytes)

    def __enter__(self) -> Tail:
        return self._tail

    def __exit__(self, *_: object) -> None:
        self._tail.close()


def _row_of(tail: Tail, rows: list[FileRow]) -> FileRow | None:
    """The row of this very file."""
    return next((row for row in rows if tail.is_file(row.device, row.inode) and _may_be(tail, row)), None)


def _copied(tail: Tail, rows: list[FileRow]) -> FileRow | None:
    """The row of a file of which this is a copy."""
    return next((row for row in rows if row.head_size > 0 and _alike(tail, row)), None)


def _may_be(tail: Tail, row: FileRow) -> bool:
    empty = row.done and row.head_size == 0  # what has its number now is another
    return not empty and _alike(tail, row)


def _alike(tail: Tail, row: FileRow) -> bool:
    return tail.size >= row.head_size and tail.begins(row.head_size, row.head)
