"""An event log that is a Redis list. What is read moves to a list of ours, and is removed once it is known to be kept.

Source: https://docs.suricata.io/en/latest/output/eve/eve-json-output.html#redis.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from nms_workers.errors import AuthError, ConfigError, ParseError, Refused, Skipped, TargetError, Timeout, Unreachable
from nms_workers.records import Sample
from nms_workers.services.suricata.journal import Note, Place, Reach, decoded, reader
from nms_workers.services.suricata.logfile import MAX_LINE, Item
from nms_workers.services.suricata.target import EveList
from nms_workers.transport.deadline import remaining

_TIMEOUT = 5.0  # seconds for one answer
_BATCH = 1000  # entries moved and read at once
_LOCK = 120.0  # seconds a dead reader keeps others away; the longest run of the poll takes less

_ERRORS: tuple[tuple[type[Exception], type[TargetError], str, str], ...] = (
    (redis.AuthenticationError, AuthError, "does not accept our credentials", "check username and password"),
    (redis.TimeoutError, Timeout, "gave no answer in time", "see what keeps it busy"),
    (redis.ConnectionError, Unreachable, "could not be reached", "is it running, and are host and port right?"),
    (redis.ResponseError, Refused, "refused: {exc}", "is the key a list, and may our user write it?"),
    (redis.RedisError, Unreachable, "failed: {exc}", "see its log"),
)


class LogList:
    """A list that Suricata pushes to.

    Args:
        settings: where it is.
    """

    def __init__(self, settings: EveList) -> None:
        self._settings = settings
        self._where = f"the Redis at {settings.host}:{settings.port}"
        self._key, self._reading = settings.key, f"{settings.key}:nms:reading"
        self._position, self._lock = f"{settings.key}:nms:position", f"{settings.key}:nms:lock"
        self._oldest = "LEFT" if settings.mode == "rpush" else "RIGHT"  # of Suricata's list; of ours always the right
        self._redis: Any = None  # redis-py leaves much untyped

    def close(self) -> None:
        """Close the connections; the next run opens new ones."""
        if self._redis is not None:
            self._redis.close()
            self._redis = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only one run at a time, of any host.

        Raises:
            Skipped: another one reads the list.
            Unreachable, AuthError, Timeout, Refused: as their names say.
        """
        lock = self._ask(lambda: self._client().lock(self._lock, timeout=_LOCK, blocking=False))
        if not self._ask(lock.acquire):
            raise Skipped(f"another run reads {self._key} in {self._where}")
        try:
            yield
        finally:
            self._ask(lock.release)

    def load(self) -> Note | None:
        """The note of the last run."""
        text = self._ask(lambda: self._client().get(self._position))
        return None if text is None else decoded(text, self._position)

    def save(self, note: Note) -> None:
        """Note this run."""
        self._ask(lambda: self._client().set(self._position, note.encoded()))

    def settle(self, note: Note) -> Place:
        """Remove what the last run read, now that it is known to be kept."""
        reach = Reach(Place(), note.end.counts)
        pipeline = self._client().pipeline(transaction=True)
        pipeline.ltrim(self._reading, 0, -1 - note.end.place.offset)
        pipeline.set(self._position, Note(reader(), reach, reach).encoded())
        self._ask(pipeline.execute)
        return reach.place

    def items(self, place: Place) -> Iterator[Item]:
        """The entries from the oldest on: first those an earlier run took and did not finish.

        Raises:
            as `held`.
        """
        finished = place.offset
        while entries := self._ask(partial(self._next, finished)):
            for entry in reversed(entries):
                finished += 1
                after = Place(offset=finished)
                yield Item(after, happened="too long") if len(entry) > MAX_LINE else Item(after, entry)

    def backlog(self, place: Place) -> Sample:
        """Entries that follow a place."""
        lengths = self._ask(lambda: self._client().llen(self._key) + self._client().llen(self._reading))
        return Sample("suricata_eve_backlog_records", max(lengths - place.offset, 0))

    def _next(self, finished: int) -> list[bytes]:
        """The entries after the first `finished` of ours, newest first; taken over from Suricata's list if need be."""
        entries: list[bytes] = self._client().lrange(self._reading, -finished - _BATCH, -finished - 1)
        if entries:
            return entries
        pipeline = self._client().pipeline(transaction=True)
        for _ in range(min(_BATCH, self._client().llen(self._key))):
            pipeline.lmove(self._key, self._reading, self._oldest, "LEFT")
        pipeline.execute()
        taken: list[bytes] = self._client().lrange(self._reading, -finished - _BATCH, -finished - 1)
        return taken

    def _client(self) -> Any:
        settings = self._settings
        if self._redis is None:
            self._redis = redis.Redis(
                host=settings.host,
                port=settings.port,
                db=settings.db,
                username=settings.username or None,
                password=settings.password.reveal() if settings.password else None,
                socket_timeout=_TIMEOUT,
                socket_connect_timeout=_TIMEOUT,
                retry=Retry(NoBackoff(), 0),  # whoever runs the poll decides
            )
        return self._redis

    def _ask(self, do: Callable[[], Any]) -> Any:
        remaining(_TIMEOUT)  # a run that is over asks nothing more
        try:
            return do()
        except ConfigError as exc:
            raise AuthError(f"{self._where} was not asked: {exc.message}", hint=exc.hint) from None
        except redis.RedisError as exc:
            self._fail(exc)

    def _fail(self, exc: redis.RedisError) -> NoReturn:
        for kind, error, why, hint in _ERRORS:
            if isinstance(exc, kind):
                raise error(f"{self._where} {why.format(exc=str(exc)[:200])}", hint=hint) from None
        raise ParseError(f"{self._where}: {type(exc).__name__}") from None
