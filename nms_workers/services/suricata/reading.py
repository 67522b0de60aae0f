"""One run over the event log: events, counts, and how far it came."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from nms_workers.records import Event, Record, Sample
from nms_workers.services.suricata import eve
from nms_workers.services.suricata.journal import Note, Place, Reach, Tally, lives, reader
from nms_workers.services.suricata.logfile import Item
from nms_workers.transport.deadline import time_left

_MAX_LINES = 20_000
_MAX_EVENTS = 5_000  # the fleet takes ten thousand of one run
_MAX_BYTES = 64 << 20
_MAX_SECONDS = 5.0

_HAPPENED: dict[str, tuple[str, dict[str, str]]] = {  # to the log: metric and labels
    "rotated": ("suricata_eve_rotations_total", {}),
    "truncated": ("suricata_eve_truncations_total", {}),
    "gone": ("suricata_eve_gaps_total", {}),
    "too long": ("suricata_eve_lines_skipped_total", {"reason": "too long"}),
    "cut off": ("suricata_eve_lines_skipped_total", {"reason": "cut off"}),
}
_ALWAYS = ("suricata_eve_rotations_total", "suricata_eve_truncations_total", "suricata_eve_gaps_total")


class Log(Protocol):
    """An event log, wherever it is. Every method raises a `TargetError` when it cannot be read."""

    def held(self) -> AbstractContextManager[None]: ...
    def load(self) -> Note | None: ...
    def save(self, note: Note) -> None: ...
    def settle(self, note: Note) -> Place: ...
    def items(self, place: Place) -> Iterator[Item]: ...
    def backlog(self, place: Place) -> Sample: ...


def records(log: Log) -> Iterator[Record]:
    """What the log holds since the last run: events as they come, at the end the counts. Bounded in every way.

    How far it came is noted after the last record was taken: a run that ends early is read again.

    Raises:
        TargetError: the log cannot be read, or the note of where we were cannot be kept.
    """
    with log.held():
        start = _start(log)
        tally, place = start.tally(), start.place
        events = 0
        for item in _bounded(log.items(place)):
            place = item.place
            if told := _taken(item, tally):
                yield told
                events += 1
                if events >= _MAX_EVENTS:
                    break
        for metric in _ALWAYS:
            tally.setdefault((metric, ()), 0)
        yield from (Sample(metric, number, dict(labels)) for (metric, labels), number in tally.items())
        yield log.backlog(place)
        log.save(Note(reader(), start, Reach.of(place, tally)))


def _taken(item: Item, tally: Tally) -> Event | None:
    """Count one item; the event that it is told as."""
    if item.happened:
        eve.add(tally, *_HAPPENED[item.happened])
        if item.happened == "gone":
            return Event("eve_gap", "what was not read yet of the event log is gone", severity="warning")
        return None
    record = eve.parsed(item.line)
    if record is None:
        eve.add(tally, "suricata_eve_lines_skipped_total", {"reason": "not a record"})
        return None
    eve.count(record, tally)
    return eve.event(record)


def _start(log: Log) -> Reach:
    note = log.load()
    if note is None:
        return Reach(Place())
    if lives(note.reader):
        return Reach(log.settle(note), note.end.counts)
    return note.start


def _bounded(items: Iterator[Item]) -> Iterator[Item]:
    """As many items as one run may take. Rest of the time goes to storing what they give."""
    ends = time.monotonic() + min(_MAX_SECONDS, time_left() / 2)
    lines = size = 0
    for item in items:
        yield item
        lines, size = lines + 1, size + len(item.line)
        if lines >= _MAX_LINES or size >= _MAX_BYTES or time.monotonic() > ends:
            return
