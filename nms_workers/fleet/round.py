"""One round by hand: every poll of every target once, through the real queue, read back from the ledger."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine, select

from nms_workers.errors import Outcome
from nms_workers.fleet.dispatch import Shard, shards
from nms_workers.fleet.inventory import Inventory, Target
from nms_workers.service import service
from nms_workers.store.schema import poll_runs

GRACE_SECONDS = 15.0  # beyond the longest deadline: waiting in the queue, and writing
_LOOK_SECONDS = 0.1
_ATTEMPTS = 4
_BUSY_SECONDS = 2.0  # until what stood in the way has ended

Slot = tuple[int, str]  # a target's id, and a poll


@dataclass(frozen=True)
class Ran:
    """How one slot of the round ended."""

    service: str
    target: str
    poll: str
    outcome: Outcome
    samples: int
    milliseconds: float
    detail: str = ""


def run_round(engine: Engine, inventory: Inventory, send: Callable[[Iterable[Shard]], None]) -> Iterator[Ran]:
    """Publish one slot for every poll of every target and yield each as it ends; what did not end is `expired`.

    Where a fleet runs beside it, a slot of its schedule may be under way just then: what was skipped is asked again.

    Raises:
        redis.RedisError, kombu.exceptions.OperationalError, sqlalchemy.exc.SQLAlchemyError: a store is away.
    """
    everyone = inventory.all()
    wanted = {(target.id, poll): target for target in everyone.values() for poll in target.every}
    skipped: dict[Slot, Ran] = {}
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_BUSY_SECONDS)
        skipped.clear()
        for slot, ran in _ran(engine, wanted, send):
            if ran.outcome is Outcome.SKIPPED:
                skipped[slot] = ran
            else:
                yield ran
        wanted = {slot: wanted[slot] for slot in skipped}
        if not wanted:
            return
    yield from skipped.values()


def _ran(
    engine: Engine, wanted: Mapping[Slot, Target], send: Callable[[Iterable[Shard]], None]
) -> Iterator[tuple[Slot, Ran]]:
    due_ms = int(time.time() * 1000)
    waiting = dict(wanted)
    by_poll: dict[tuple[str, str], list[Target]] = {}
    for (_, poll), target in wanted.items():
        by_poll.setdefault((target.service, poll), []).append(target)
    for (kind, poll), targets in by_poll.items():
        send(shards(kind, poll, [(target, due_ms) for target in targets], manual=True))
    longest = max((service(kind).polls()[poll].deadline for kind, poll in by_poll), default=0.0)
    ends = time.monotonic() + longest + GRACE_SECONDS
    rows = select(poll_runs).where(poll_runs.c.due == datetime.fromtimestamp(due_ms / 1000, UTC), poll_runs.c.manual)
    while waiting and time.monotonic() < ends:
        with engine.connect() as connection:
            found = connection.execute(rows).all()
        for row in found:
            slot = row.target_id, row.poll
            if ended := waiting.pop(slot, None):
                outcome, took = Outcome(row.outcome), row.milliseconds or 0.0
                yield slot, Ran(ended.service, ended.name, row.poll, outcome, row.samples, took, row.detail)
        if waiting:
            time.sleep(_LOOK_SECONDS)
    for slot, left in waiting.items():
        yield slot, Ran(left.service, left.name, slot[1], Outcome.EXPIRED, 0, 0.0, "no worker ended it in time")
