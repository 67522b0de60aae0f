"""The latest state of every target in Redis, for those who need to know what is now and not what was.

`nms:latest:<target_id>` is a hash; for each poll it holds the fields
`<poll>` (JSON: `at`, `due`, `outcome`, `detail`), `<poll>:samples` (JSON: series to value), `<poll>:sampled_at`, and
`<poll>:due` and `<poll>:outcome`, by which the script below tells newer from older and changed from unchanged.
"""

import json
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha1
from typing import Any

import msgspec
import numpy as np
import redis
from prometheus_client import Counter
from redis.exceptions import NoScriptError, RedisError

from nms_workers.records import Layout
from nms_workers.store.slot import NETWORK_FLOAT, SlotResult

log = logging.getLogger(__name__)

published = Counter("nms_store_latest_published", "Slots sent to the latest state")
unpublished = Counter("nms_store_latest_dropped", "Slots that never reached the latest state: Redis was away too long")

CHANGES = "nms:changes"
KEPT_SECONDS = 7 * 86_400
TIME_LIMIT = 2.0
BATCH = 500
PENDING = 100_000
RETRY_SECONDS = 1.0

# KEYS: the hash. ARGV: poll, due (milliseconds), outcome, status, samples or '', sampled_at, seconds kept, channel,
# message. An older slot changes nothing. A slot without samples leaves those of before.
_SCRIPT = """
local poll, due = ARGV[1], tonumber(ARGV[2])
local had = redis.call('HMGET', KEYS[1], poll .. ':due', poll .. ':outcome', poll .. ':samples')
if had[1] and tonumber(had[1]) > due then return 0 end
redis.call('HSET', KEYS[1], poll, ARGV[4], poll .. ':due', ARGV[2], poll .. ':outcome', ARGV[3])
local changed = had[2] ~= ARGV[3]
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], poll .. ':samples', ARGV[5], poll .. ':sampled_at', ARGV[6])
  changed = changed or had[3] ~= ARGV[5]
end
redis.call('EXPIRE', KEYS[1], ARGV[7])
if changed then redis.call('PUBLISH', ARGV[8], ARGV[9]) end
return 1
"""
_SHA = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()

_Pending = tuple[SlotResult, Mapping[bytes, Layout]]


def latest_key(target_id: int) -> str:
    """The hash that holds the latest state of a target."""
    return f"nms:latest:{target_id}"


class Latest:
    """Sends results to Redis, from a thread of its own: neither waits for PostgreSQL nor makes it wait.

    While Redis is away only the newest result of each poll is held, so that all are right when it is back.

    Args:
        url: `redis://:password@host:port/database`, `rediss://`, `unix://`.
    """

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(
            url, socket_timeout=TIME_LIMIT, socket_connect_timeout=TIME_LIMIT, health_check_interval=30
        )
        self._pending: dict[tuple[int, str, bool], _Pending] = {}
        self._changed = threading.Condition()
        self._sending = False
        self._stopping = False
        self._away = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to send, in a thread. After a fork only."""
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="store-latest", daemon=True)
            self._thread.start()

    def put(self, result: SlotResult, layouts: Iterable[Layout]) -> None:
        """Send this result soon; never waits and never fails.

        Args:
            layouts: those its blocks name.
        """
        key = (result.target_id, result.poll, bool(result.blocks))
        with self._changed:
            held = self._pending.get(key)
            if held is not None and held[0].due > result.due:
                return
            if held is None and len(self._pending) >= PENDING:
                unpublished.inc()
                return
            self._pending[key] = (result, {layout.digest: layout for layout in layouts})
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until everything put so far was sent; False when `timeout` seconds pass."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending and not self._sending, timeout)

    def close(self) -> None:
        """Stop sending and let go of the connections."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(2 * TIME_LIMIT)
            self._thread = None
        self._redis.close()

    def _run(self) -> None:
        while batch := self._take():
            try:
                send(self._redis, batch)
            except RedisError as exc:
                self._give_back(batch, exc)
                continue
            published.inc(len(batch))
            with self._changed:
                self._sending = False
                self._changed.notify_all()
                if self._away:
                    self._away = False
                    log.warning("Redis takes the latest state again")

    def _take(self) -> list[_Pending]:
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._stopping)
            if self._stopping:
                return []
            keys = list(self._pending)[:BATCH]
            self._sending = True
            return sorted((self._pending.pop(key) for key in keys), key=lambda held: held[0].due)

    def _give_back(self, batch: Sequence[_Pending], exc: RedisError) -> None:
        with self._changed:
            self._sending = False
            if not self._away:
                self._away = True
                log.error("Redis does not take the latest state: %s: %s", type(exc).__name__, exc)
            for result, layouts in batch:
                key = (result.target_id, result.poll, bool(result.blocks))
                held = self._pending.get(key)
                if held is None or held[0].due < result.due:
                    self._pending[key] = (result, layouts)
            self._changed.wait_for(lambda: self._stopping, RETRY_SECONDS)


def send(client: "redis.Redis", batch: Sequence[_Pending]) -> None:
    """Send results in one pipeline.

    Raises:
        RedisError: not all of them arrived. Sending again is safe.
    """
    for _ in range(2):
        with client.pipeline(transaction=False) as pipeline:
            for result, layouts in batch:
                pipeline.evalsha(_SHA, 1, latest_key(result.target_id), *_arguments(result, layouts))
            answers = pipeline.execute(raise_on_error=False)
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        if not failures:
            return
        if not isinstance(failures[0], NoScriptError):
            raise failures[0]
        client.script_load(_SCRIPT)  # Redis forgets scripts when it starts anew
    raise failures[0]


def read_latest(client: "redis.Redis", target_id: int) -> dict[str, dict[str, Any]]:
    """The latest state of a target, by poll.

    Returns:
        For each poll `at`, `due`, `outcome`, `detail`; `samples`, a mapping of series as text to value (None: not a
        number), and `sampled_at`, when they were read, which is earlier than `at` if the last reads failed. Times are
        ISO 8601.
    """
    fields = {_text(name): _text(value) for name, value in client.hgetall(latest_key(target_id)).items()}
    return {
        poll: json.loads(status)
        | {"samples": json.loads(fields.get(f"{poll}:samples", "{}")), "sampled_at": fields.get(f"{poll}:sampled_at")}
        for poll, status in fields.items()
        if ":" not in poll
    }


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _arguments(result: SlotResult, layouts: Mapping[bytes, Layout]) -> tuple[str | bytes | int, ...]:
    at, due = result.finished.isoformat(), result.due.isoformat()
    status = {"at": at, "due": due, "outcome": result.outcome, "detail": result.detail}
    change = {"service": result.service, "target": result.target, "poll": result.poll, "at": at}
    sampled_at = max((block.ts for block in result.blocks), default=result.finished).isoformat()
    return (
        result.poll,
        int(result.due.timestamp() * 1000),
        result.outcome.value,
        msgspec.json.encode(status),
        _samples(result, layouts) if result.blocks else b"",
        sampled_at,
        KEPT_SECONDS,
        CHANGES,
        msgspec.json.encode(change | {"outcome": result.outcome}),
    )


def _samples(result: SlotResult, layouts: Mapping[bytes, Layout]) -> bytes:
    samples: dict[str, float] = {}
    for block in sorted(result.blocks, key=lambda block: block.ts):
        values = np.frombuffer(block.values, NETWORK_FLOAT).tolist()
        samples.update(zip(_names(layouts[block.digest]), values, strict=True))
    return msgspec.json.encode(samples)


@lru_cache(maxsize=10_000)  # more than one worker has targets with many series: missing costs more than sending
def _names_of(body: bytes) -> tuple[str, ...]:
    return tuple(str(member) for member in Layout.from_body(body).members)


def _names(layout: Layout) -> tuple[str, ...]:
    return _names_of(layout.body)
