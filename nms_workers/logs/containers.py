"""Logs of the containers of one engine: those that are labelled or named are followed, each in a thread of its own.

A line is named by its stream, the time that the engine wrote beside it, and its number among the lines of that very
time. The engine keeps lines in their order, so these are the same whenever they are read again.
https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerLogs
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from fnmatch import fnmatchcase

import msgspec

from nms_workers.errors import NmsError, Timeout
from nms_workers.logs import metrics
from nms_workers.logs.batch import Line
from nms_workers.logs.feed import Feed
from nms_workers.logs.intake import StoppedError
from nms_workers.logs.joining import Piece, rule_of
from nms_workers.logs.origin import Origin, Way
from nms_workers.logs.streams import stream_of
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.model import LABEL, LogLine, Summary
from nms_workers.services.docker.target import DockerTarget

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
_QUIET_SECONDS = 600.0  # a connection on which nothing came for so long is made anew
_AGAIN_SECONDS = 2.0  # after a fault
_ENDED_SECONDS = 30.0  # how often a container that has ended is asked whether it ran again meanwhile
_SLACK = 1_000_000_000  # nanoseconds by which the two streams of a container may be out of order
_PIECE = 16_384  # bytes after which the engine cuts a line into pieces, each with the time before it

Mark = tuple[int, int]  # nanoseconds of the epoch, and the number among the lines of this time


class Position(msgspec.Struct, frozen=True):
    """Where a container stands: the newest line of each stream that is delivered, and from when on to read for it."""

    since: int = 0
    marks: dict[str, Mark] = {}


class Containers:
    """One engine. `look` is called every second by one thread.

    Args:
        name: of the engine's target.
    """

    def __init__(self, name: str, target: DockerTarget, way: Way) -> None:
        self.name, self._way = name, way
        self._asking = DockerClient(target)
        self._following = DockerClient(target.model_copy(update={"timeout": _QUIET_SECONDS}))
        self._host = ""
        self._followers: dict[str, _Follower] = {}
        self._ended: dict[str, tuple[str, float]] = {}  # id to when it ended, and when it is asked again
        self._stop = threading.Event()

    def look(self) -> None:
        """See which containers there are, and follow those whose logs are wanted.

        Raises:
            NmsError: the engine does not answer.
        """
        if not self._host:
            self._host = str(self._asking.get_docker_info().get("Name", "")) or self.name
        wanted = [one for one in self._asking.get_containers() if self._wanted(one)]
        wanted.sort(key=lambda one: (one.id not in self._followers, one.state != "running"))
        kept = wanted[: self._way.settings.max_containers]
        metrics.OVER.labels("container").set(len(wanted) - len(kept))
        self._followers = {key: one for key, one in self._followers.items() if not self._is_over(key, one)}
        for one in kept:
            if one.id not in self._followers and self._has_more(one):
                self._follow(one)
        for follower in self._followers.values():
            follower.idle()
        self._forget_gone({one.id for one in wanted})
        metrics.SOURCES.labels("container").set(len(self._followers))

    def close(self) -> None:
        """Follow nothing any more. Threads that wait for a line end when it comes, or with the process."""
        self._stop.set()
        self._asking.close()
        self._following.close()

    def _wanted(self, one: Summary) -> bool:
        labels = one.labels or {}
        if _LOGS in labels:
            return labels[_LOGS] == "true"
        named = any(fnmatchcase(one.name, pattern) for pattern in self._way.settings.containers)
        return named or labels.get(LABEL) == "true"

    def _is_over(self, key: str, follower: "_Follower") -> bool:
        if follower.alive:
            return False
        if follower.ended:
            self._ended[key] = (follower.ended, time.monotonic() + _ENDED_SECONDS)
        return True

    def _has_more(self, one: Summary) -> bool:
        """Whether there may be lines that were not read."""
        if one.state in ("running", "paused", "restarting"):
            self._ended.pop(one.id, None)
            return True
        finished, again_at = self._ended.get(one.id, ("", 0.0))
        if time.monotonic() < again_at:
            return False
        now = self._asking.get_container(one.id).state.finished_at
        self._ended[one.id] = (now, time.monotonic() + _ENDED_SECONDS)
        return now != finished

    def _follow(self, one: Summary) -> None:
        origin = _origin(one, self.name, self._host)
        self._followers[one.id] = _Follower(one.id, origin, self._way, self._following, self._stop)

    def _forget_gone(self, there: set[str]) -> None:
        """Containers that are removed never come again."""
        self._ended = {key: one for key, one in self._ended.items() if key in there}
        prefix = _prefix(self.name)
        gone = [
            one
            for one in self._way.cursors.sources()
            if one.startswith(prefix) and one.removeprefix(prefix) not in there
        ]
        gone = [one for one in gone if one.removeprefix(prefix) not in self._followers]
        if gone:
            self._way.cursors.forget(gone)


class _Follower:
    """One container, read to its end.

    `ended` is when the container had ended that was read to its end; empty before.
    """

    def __init__(self, container: str, origin: Origin, way: Way, client: DockerClient, stop: threading.Event) -> None:
        self.ended = ""
        self._id, self._origin = container, origin
        self._settings, self._intake = way.settings, way.intake
        self._client, self._stop = client, stop
        kept = way.cursors.position(origin.source)
        self._position = msgspec.json.decode(kept, type=Position) if kept else Position()
        self._lock = threading.Lock()  # the feeds are used by our thread, and by who looks after us
        self._feeds: dict[str, Feed] = {}
        self._first_waiting: dict[str, int] = {}
        self._newest = 0
        self._thread = threading.Thread(target=self._run, name=f"logs-{container[:12]}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it is still read."""
        return self._thread.is_alive()

    def idle(self) -> None:
        """Hand on what waited long enough for a line that belongs to it."""
        if self._intake.room and self._lock.acquire(blocking=False):
            try:
                for feed in self._feeds.values():
                    feed.idle()
            except StoppedError:
                pass
            finally:
                self._lock.release()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._read()
                state = self._client.get_container(self._id).state
                if not state.running:
                    self.ended = state.finished_at
                    return
            except StoppedError:
                return
            except Timeout as exc:  # mostly, nothing came for long
                log.debug("container %s is followed anew: %s", self._id[:12], exc)
            except NmsError as exc:
                log.info("the log of container %s cannot be followed now: %s", self._id[:12], exc)
                return
            self._stop.wait(_AGAIN_SECONDS)

    def _read(self) -> None:
        """From where it stands to its end."""
        with self._lock:
            self._feeds.clear()
            self._first_waiting.clear()
        since = max(0, self._position.since - _SLACK)
        lines = self._client.read_logs(self._id, since=since, follow=True)
        with closing(lines):
            for line, mark in self._new(lines):
                if self._stop.is_set():
                    raise StoppedError
                with self._lock:
                    pause = self._add(line, mark)
                if pause:
                    metrics.LIMITED.inc(pause)
                    self._stop.wait(pause)
        with self._lock:
            for feed in self._feeds.values():
                feed.flush()

    def _new(self, lines: Iterable[LogLine]) -> Iterator[tuple[LogLine, Mark]]:
        """Lines after those that were delivered, each with its number."""
        left = dict(self._position.marks)
        last: dict[str, Mark] = {}
        for line in lines:
            at, number = last.get(line.stream, (0, -1))
            mark = (line.at, number + 1 if line.at == at else 0)
            last[line.stream] = mark
            until = left.get(line.stream)
            if until is None or mark > until:
                left.pop(line.stream, None)
                yield line, mark
            elif mark == until:
                del left[line.stream]

    def _add(self, line: LogLine, mark: Mark) -> float:
        """Take a line. Seconds for which the next should wait."""
        stream = line.stream
        feed = self._feeds.get(stream)
        if feed is None:
            feed = self._feeds[stream] = Feed(self._origin, self._settings, self._put)
        self._newest = line.at
        self._first_waiting.setdefault(stream, line.at)
        text = _whole(line)
        cut = line.cut or len(text) > self._settings.line_bytes
        name = f"{stream} {mark[0]} {mark[1]}"
        feed.add(Piece(text[: self._settings.line_bytes], name, name, _time(line.at), cut))
        if not feed.waits:
            self._first_waiting.pop(stream, None)
        return feed.pause()

    def _put(self, line: Line) -> None:
        """Hand on an entry, with where the container stands after it, both of its streams together."""
        stream, at, number = line.after.split()
        feed = self._feeds[stream]
        if feed.waits:  # the line that ended this entry is the first of the next
            self._first_waiting[stream] = self._newest
        else:
            self._first_waiting.pop(stream, None)
        marks = self._position.marks | {stream: (int(at), int(number))}
        self._position = Position(min([self._newest, *self._first_waiting.values()]), marks)
        document = line.document | {"stream": stream}
        after = msgspec.json.encode(self._position).decode()
        self._intake.put_when_room(msgspec.structs.replace(line, after=after, document=document))


_LOGS = "nms.logs"


def _prefix(engine: str) -> str:
    return f"docker/{engine}/"


def _origin(one: Summary, engine: str, host: str) -> Origin:
    labels = one.labels or {}
    kind = labels.get(f"{LABEL}.type", "")
    name = labels.get(f"{LABEL}.name") or one.name
    service = {"name": name} | ({"type": kind} if kind else {})
    return Origin(
        source=_prefix(engine) + one.id,
        medium="container",
        stream=stream_of(kind, labels.get(f"{_LOGS}.stream", "")),
        rule=rule_of(kind, labels.get(f"{_LOGS}.joining", "")),
        fields={
            "host": {"name": host},
            "service": service,
            "container": {"id": one.id, "name": one.name, "image": {"name": one.image}},
            "event": {"dataset": f"{kind or 'container'}.log", "kind": "event"},
        },
    )


def _whole(line: LogLine) -> str:
    """The text of a long line without the times that the engine put between its pieces."""
    if len(line.text) < _PIECE:
        return line.text.replace("\0", "")
    seconds, rest = divmod(line.at, 1_000_000_000)
    stamp = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z "
    return line.text.replace(stamp, "").replace("\0", "")


def _time(at: int) -> str:
    seconds, rest = divmod(at, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z" if at else ""
