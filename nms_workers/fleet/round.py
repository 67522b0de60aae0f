"""One round by hand: every poll of every target once, through the real queue, read back from the ledger."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine, select

from nms_workers.errors import Outcome
from nms_workers.fleet.dispatch import Shard, shards
from nms_workers.fleet.inventory import Inventory
from nms_workers.service import service
from nms_workers.store.schema import poll_runs

GRACE_SECONDS = 15.0  # beyond the longest deadline: waiting in the queue, and writing
_LOOK_SECONDS = 0.1


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

    Raises:
        redis.RedisError, kombu.exceptions.OperationalError, sqlalchemy.exc.SQLAlchemyError: a store is away.
    """
    due_ms = int(time.time() * 1000)
    waiting = {(t.id, poll): t for t in inventory.all().values() for poll in t.every}
    by_poll: dict[tuple[str, str], list[int]] = {}
    for (target_id, poll), target in waiting.items():
        by_poll.setdefault((target.service, poll), []).append(target_id)
    everyone = inventory.all()
    for (kind, poll), ids in by_poll.items():
        send(shards(kind, poll, [(everyone[one], due_ms) for one in ids], manual=True))
    longest = max((service(kind).polls()[poll].deadline for kind, poll in by_poll), default=0.0)
    ends = time.monotonic() + longest + GRACE_SECONDS
    rows = select(poll_runs).where(poll_runs.c.due == datetime.fromtimestamp(due_ms / 1000, UTC), poll_runs.c.manual)
    while waiting and time.monotonic() < ends:
        with engine.connect() as connection:
            found = connection.execute(rows).all()
        for row in found:
            if ended := waiting.pop((row.target_id, row.poll), None):
                outcome = Outcome(row.outcome)
                yield Ran(
                    ended.service, ended.name, row.poll, outcome, row.samples, row.milliseconds or 0.0, row.detail
                )
        if waiting:
            time.sleep(_LOOK_SECONDS)
    for (_, poll), left in waiting.items():
        yield Ran(left.service, left.name, poll, Outcome.EXPIRED, 0, 0.0, "no worker ended it in time")
