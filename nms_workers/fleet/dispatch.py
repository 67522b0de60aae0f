"""From the clock to the queue: which targets are due now, cut into shards, published in one batch.

Runs every tick of a poll. Two dispatchers at once cannot publish a slot twice: each takes the window since the last
one by moving a mark in Redis, and only the first to move it gets the window.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import redis
from kombu.exceptions import OperationalError

from nms_workers.fleet.inventory import Inventory, Target
from nms_workers.fleet.slots import late, latest_due, phase
from nms_workers.service import Poll, service

# A mark far ahead was left by a clock that was wrong: it counts as none, or nothing would be due until then.
_MOVE_MARK = """
local last = redis.call('GET', KEYS[1])
if last and tonumber(last) > tonumber(ARGV[1]) + tonumber(ARGV[2]) then last = false end
if not last or tonumber(ARGV[1]) > tonumber(last) then redis.call('SET', KEYS[1], ARGV[1], 'EX', 86400) end
return last
"""
_PUT_BACK = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'EX', 86400) end"
_CLOCK_MS = 60_000  # how far the clocks of two hosts may be apart


@dataclass(frozen=True)
class Shard:
    """The slots one task takes: (target, due in ms)."""

    service: str
    poll: str
    queue: str
    slots: tuple[tuple[Target, int], ...]
    manual: bool = False

    @property
    def task(self) -> str:
        """The name of the Celery task that polls it."""
        return f"nms.{self.service}.{self.poll}"

    @property
    def expires_ms(self) -> int:
        """When the first of its slots is stale: its next slot is due."""
        return min(due + int(target.every[self.poll] * 1000) for target, due in self.slots)


class Dispatcher:
    """Publishes what is due.

    Args:
        send: publishes shards; one call, one batch.
    """

    def __init__(self, inventory: Inventory, client: "redis.Redis", send: Callable[[Iterable[Shard]], None]) -> None:
        self._inventory, self._send = inventory, send
        self._move_mark = client.register_script(_MOVE_MARK)
        self._put_back = client.register_script(_PUT_BACK)

    def dispatch(self, kind: str, poll: str, now_ms: int) -> int:
        """Publish every slot that became due since the last dispatch. Slots older than `late()` are left to expire.

        Returns:
            how many slots were published.

        Raises:
            redis.RedisError: Redis is away; nothing was published.
            kombu.exceptions.OperationalError: the broker is away; the next dispatch, if it is soon, does it anew.
        """
        mark = f"nms:dispatched:{kind}:{poll}"
        since = int(self._move_mark(keys=[mark], args=[now_ms, _CLOCK_MS]) or 0)
        due = [
            (target, slot)
            for target in self._inventory.with_poll(kind, poll)
            if (slot := _due(target, kind, poll, now_ms)) > max(since, now_ms - late(target.every[poll]) * 1000)
        ]
        try:
            self._send(shards(kind, poll, due))
        except OperationalError:
            self._put_back(keys=[mark], args=[now_ms, since])  # what was sent already is run twice and counted once
            raise
        return len(due)


def shards(kind: str, poll: str, due: Iterable[tuple[Target, int]], *, manual: bool = False) -> Iterator[Shard]:
    """Cut slots into shards of the poll's size; targets beside a worker of their own go to that worker's queue."""
    declared: Poll = service(kind).polls()[poll]
    by_queue: dict[str, list[tuple[Target, int]]] = {}
    for target, slot in due:
        queue = f"edge.{target.worker}" if target.worker else f"poll.{kind}"
        by_queue.setdefault(queue, []).append((target, slot))
    for queue, slots in by_queue.items():
        rest = iter(slots)
        while shard := tuple(islice(rest, declared.shard)):
            yield Shard(kind, poll, queue, shard, manual)


def _due(target: Target, kind: str, poll: str, now_ms: int) -> int:
    every_ms = int(target.every[poll] * 1000)
    return latest_due(now_ms, every_ms, phase(kind, target.name, poll, every_ms))
