"""When the fleet was stopped on purpose: in that time no slot was due, so none is missing.

A beat that was killed leaves no such mark, and what it did not dispatch is named in the ledger.
"""

from typing import NamedTuple

import redis

_STOPPED = "nms:beat:stopped"
_LED = "nms:beat:led"
_PAUSES = "nms:beat:pauses"
_KEPT = 50


class Pause(NamedTuple):
    """From (exclusive) and until (inclusive), in milliseconds since the epoch."""

    after_ms: int
    until_ms: int


def stop(client: "redis.Redis", now_ms: int) -> None:
    """The leading beat stops, and says so. Raises redis.RedisError."""
    client.set(_STOPPED, now_ms)


def resume(client: "redis.Redis", now_ms: int, *, running: bool = False) -> None:
    """A beat begins to lead: a pause ends now, if the one before was stopped, or if there was none ever.

    Args:
        running: this beat led before: if Redis knows of none, it lost its data, and that is no pause.

    Raises:
        redis.RedisError: Redis is away; to be called again.
    """
    stopped = client.getdel(_STOPPED)
    if stopped is None and not running and not client.exists(_LED):
        stopped = b"0"
    with client.pipeline(transaction=True) as pipe:
        pipe.set(_LED, 1)
        if stopped is not None:
            pipe.rpush(_PAUSES, f"{int(stopped)}:{now_ms}")
            pipe.ltrim(_PAUSES, -_KEPT, -1)
        pipe.execute()


def pauses(client: "redis.Redis") -> list[Pause]:
    """The pauses that may still matter. Raises redis.RedisError."""
    found: list[bytes] = client.lrange(_PAUSES, 0, -1)  # type: ignore[assignment]
    return [Pause(*map(int, one.split(b":"))) for one in found]
