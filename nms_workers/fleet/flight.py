"""Single flight: a target is never polled twice at the same time, anywhere in the fleet.

The lock's token is the slot's due time, which only ever grows for one poll of one target: it is the fencing token, also
after Redis lost its data. Latest state refuses a write with an older one.
"""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import redis

from nms_workers.errors import Skipped

STARTED = "nms:started"  # slot -> worker: tells a slot that was lost from one that never began

_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
return false
"""
_RELEASE = """
redis.call('HDEL', KEYS[2], ARGV[2])
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


def slot_key(target_id: int, poll: str, due_ms: int) -> str:
    """Names a slot in Redis."""
    return f"{target_id}:{poll}:{due_ms}"


class Running(Skipped):
    """This very slot is being run: its message came twice. Whoever runs it tells how it ended."""


class Flights:
    """Takes and releases the locks.

    Args:
        worker: this worker's name, shown to whoever finds the lock taken.
    """

    def __init__(self, redis_client: "redis.Redis", worker: str) -> None:
        self._redis = redis_client
        self._take = redis_client.register_script(_TAKE)
        self._release = redis_client.register_script(_RELEASE)
        self._worker = worker

    @contextmanager
    def flight(self, target_id: int, poll: str, due_ms: int, seconds: float) -> Iterator[None]:
        """Hold the lock of one poll of one target, at most `seconds`.

        Raises:
            Running: a run of this very slot holds it.
            Skipped: another run holds it; nothing may be asked.
            redis.RedisError: Redis is away, so nobody can know who polls.
        """
        keys, args = self._lock(target_id, poll, due_ms, seconds)
        if refused := _refused(self._take(keys=keys, args=args), due_ms):
            raise refused
        try:
            yield
        finally:
            with suppress(redis.RedisError):  # the lock ends by itself in `seconds`
                self._release(keys=keys, args=[args[0], args[2]])

    @contextmanager
    def flights(self, poll: str, slots: Sequence[tuple[int, int, float]]) -> Iterator[list[Skipped | None]]:
        """Hold the locks of many slots, (target, due in ms, seconds), each as `flight` does, in one round trip.

        Yields:
            for each slot None, or why its lock was not to be had.

        Raises:
            redis.RedisError: Redis is away, so nobody can know who polls.
        """
        locks = [self._lock(target_id, poll, due_ms, seconds) for target_id, due_ms, seconds in slots]
        with self._redis.pipeline(transaction=False) as pipe:
            for keys, args in locks:
                self._take(keys=keys, args=args, client=pipe)
            refused = [_refused(one, due_ms) for one, (_, due_ms, _) in zip(pipe.execute(), slots, strict=True)]
        try:
            yield refused
        finally:
            with suppress(redis.RedisError), self._redis.pipeline(transaction=False) as pipe:
                for (keys, args), no in zip(locks, refused, strict=True):
                    if no is None:
                        self._release(keys=keys, args=[args[0], args[2]], client=pipe)
                pipe.execute()

    def _lock(self, target_id: int, poll: str, due_ms: int, seconds: float) -> tuple[list[str], list[str | int]]:
        token = f"{due_ms}@{self._worker}#{uuid.uuid4().hex}"  # unique: one worker may take one slot twice
        slot = slot_key(target_id, poll, due_ms)
        return [f"nms:flight:{target_id}:{poll}", STARTED], [token, int(seconds * 1000), slot, self._worker]


def _refused(holder: bytes | None, due_ms: int) -> Skipped | None:
    if not holder:
        return None
    held_due, _, who = holder.decode().rpartition("#")[0].partition("@")
    if held_due == str(due_ms):
        return Running(f"this slot is being run ({who})")
    return Skipped(f"the previous run still goes ({who})")
