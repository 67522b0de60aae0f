"""What happened at the engine, read on from where the last read ended.

The engine remembers its last 256 events. A read begins at the newest event of the last one, which must come again: when
it does not, there is a gap, and that is told. A process that reads for the first time takes the last ten minutes. What
another process told already has the same time and words, by which the store knows it.
"""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Protocol

from nms_workers.records import Event, Severity
from nms_workers.services.docker.labels import shown
from nms_workers.services.docker.model import EngineEvent

_FIRST = 600 * 1_000_000_000  # nanoseconds
_LONGEST = 300  # characters of an attribute
_ATTRIBUTES = ("image", "exitCode", "signal", "container", "driver", "type", "oldName", "destination", "execDuration")
_LEFT_OUT = ("exec_", "top", "resize", "attach", "archive-path", "extract-to-dir")  # by health checks, and by reading


class Engine(Protocol):
    def now(self) -> int: ...
    def events(self, since: int, until: int | None = None) -> Iterator[EngineEvent]: ...


class Cursor:
    """How far the events of an engine were read by this process. One read at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest = 0
        self._told: set[tuple[str, str, str]] = set()  # of those at that time

    def read(self, engine: Engine, limit: int) -> Iterator[Event]:
        """The events since the last read, oldest first, at most `limit`. It counts as read when all were taken."""
        with self._lock:
            until = engine.now()
            since = self._newest or until - _FIRST
            newest, told, met = self._newest, set(self._told), not self._newest
            for one in islice(engine.events(since, until), limit):
                key = (one.type, one.action, one.actor.id)
                if one.at == self._newest and key in self._told:
                    met = True
                    continue
                if not met:
                    yield _gap(one, self._newest)
                    met = True
                if one.at > newest:
                    newest, told = one.at, set()
                told.add(key)
                if not one.action.startswith(_LEFT_OUT):
                    yield event_of(one)
            if not met:  # nothing at all came: the engine was started anew
                newest, told = 0, set()
            self._newest, self._told = newest, told


def event_of(one: EngineEvent) -> Event:
    """The event of ours."""
    what, _, detail = one.action.partition(":")
    told = one.actor.attributes
    attributes = shown(told) | {name: told[name][:_LONGEST] for name in _ATTRIBUTES if name in told}
    code = attributes.get("exitCode", "0")
    message = f"{one.type} {one.name}: {one.action[:_LONGEST]}" + (f" with exit code {code}" if what == "die" else "")
    return Event(
        f"{one.type}_{what}".replace("-", "_"),
        message,
        _severity(what, detail.strip(), code),
        fingerprint=f"{one.type}:{what}:{one.actor.id}"[:1000],
        attributes={"id": one.actor.id, "name": one.name, "detail": detail.strip()[:_LONGEST]} | attributes,
        ts=_time(one.at),
    )


def _severity(what: str, detail: str, code: str) -> Severity:
    if what == "oom" or (what == "health_status" and detail == "unhealthy"):
        return "error"
    return "warning" if what == "die" and code != "0" else "info"


def _gap(first: EngineEvent, since: int) -> Event:
    message = f"the engine no longer knows its events from {_time(since).isoformat()} on"
    attributes = {"until": _time(first.at).isoformat()}
    return Event("events_gap", message, "warning", attributes=attributes, ts=_time(first.at))


def _time(at: int) -> datetime:
    seconds, rest = divmod(at, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
