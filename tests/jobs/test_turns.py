"""Two changes of one target, or of one lane of it, never cross, and they run in the order they became due."""

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from nms_workers.change import Change
from nms_workers.errors import ConfigError
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.job import Job, get, new_id
from nms_workers.jobs.run import run
from nms_workers.jobs.submit import record, submit
from nms_workers.jobs.sweep import sweep
from nms_workers.jobs.wish import Wish
from nms_workers.service import Client, Service, TargetSettings, action
from tests.fleet.stores import rows
from tests.jobs.conftest import KEY, ClientOf, Published, age


def fill(item: str, box: str | None = None, target: str = "main") -> Wish:
    return Wish("shelf", "fill", target, {"item": item, "box": box}, requested_by="ada")


def meanwhile(desk: Desk, client_of: ClientOf, job: Job, during: Callable[[], None]) -> Job:
    """Run a job; `during` happens when it is running."""

    def client(claimed: Job) -> Client:
        during()
        return client_of(claimed)

    return run(desk, job, "host:1", client)


@pytest.mark.parametrize(
    ("running", "other", "waits"),
    [
        (fill("a", "red"), fill("b", "red"), True),
        (fill("a", "red"), fill("b", "blue"), False),
        (fill("a", "red"), fill("b"), True),
        (fill("a"), fill("b", "red"), True),
        (fill("a"), fill("b"), True),
        (fill("a"), fill("b", target="spare"), False),
    ],
)
def test_what_would_cross_waits_for_its_turn(  # noqa: PLR0917 - fixtures and parameters
    desk: Desk, client_of: ClientOf, published: Published, running: Wish, other: Wish, waits: bool
) -> None:
    first, second = submit(desk, running), submit(desk, other)
    seen: list[str] = []
    meanwhile(desk, client_of, first, lambda: seen.append(run(desk, second, "host:2", client_of).state))
    assert seen == ["queued" if waits else "succeeded"]
    sent = [job.id for job in published.jobs]
    assert sent == [first.id, second.id, second.id] if waits else sent == [first.id, second.id]
    assert run(desk, second, "host:2", client_of).state == "succeeded"


def test_a_later_one_does_not_overtake(desk: Desk, client_of: ClientOf, red: "redis.Redis") -> None:
    made = [submit(desk, fill(name)) for name in "abc"]
    assert [run(desk, job, "host:1", client_of).state for job in reversed(made)] == ["queued", "queued", "succeeded"]
    assert [run(desk, job, "host:1", client_of).state for job in made[1:]] == ["succeeded", "succeeded"]
    assert [json.loads(item)["sample"][0] for item in red.lrange(KEY, 0, -1)] == ["a", "b", "c"]


def test_a_failed_attempt_keeps_its_turn(engine: Engine, desk: Desk, client_of: ClientOf, published: Published) -> None:
    first = submit(desk, Wish("shelf", "knock", "main", {"error": "Unreachable", "until": 2}, "ada"))
    second = submit(desk, fill("b"))
    assert run(desk, first, "host:1", client_of).state == "queued"
    assert run(desk, second, "host:2", client_of).state == "queued", "it would overtake"
    age(engine, 10)
    sweep(desk)
    assert published.jobs[-1].id == first.id
    assert run(desk, first, "host:1", client_of).state == "succeeded"
    assert published.jobs[-1].id == second.id, "the end of the first sends the second"


def test_a_job_for_later_is_in_nobody_s_way(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    later = submit(desk, Wish("shelf", "fill", "main", {"item": "late"}, "ada", after=60))
    assert run(desk, submit(desk, fill("now")), "host:1", client_of).state == "succeeded"
    assert run(desk, later, "host:1", client_of).state == "queued", "its time has not come"
    age(engine, 61)
    assert run(desk, later, "host:1", client_of).state == "succeeded"


def test_many_workers_and_many_lanes_keep_every_order(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    """Each worker claims what it pleases; what ran at once and in which order is read from the audit."""
    boxes: list[str | None] = ["red", "blue", None]
    made = [record(desk, fill(f"i{n}", boxes[n % 3]), new_id()) for n in range(60)]

    def work(worker: int) -> None:
        order = random.Random(worker).sample(made, len(made))  # noqa: S311 - no secret
        while order:
            order = [job for job in order if not run(desk, job, f"host:{worker}", client_of).done]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    ended = [get(engine, job.id) for job in made]
    assert {(job.state, job.attempts) for job in ended} == {("succeeded", 1)}
    for lane in ('box="red"', 'box="blue"'):
        mine = [job for job in ended if job.lane in (lane, None)]
        spans: list[Any] = [(job.claimed_at, job.finished_at) for job in mine]
        assert all(before[1] <= after[0] for before, after in pairwise(spans)), lane


def test_the_database_itself_keeps_two_of_one_lane_from_running(
    engine: Engine, desk: Desk, client_of: ClientOf
) -> None:
    for box in ("red", "red"):
        submit(desk, fill("a", box))
    with pytest.raises(IntegrityError, match="jobs_running_key"), engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET state = 'running'"))
    assert rows(engine, "SELECT DISTINCT state FROM jobs") == [("queued",)]


def test_a_lane_is_an_argument_of_its_action() -> None:
    class Odd(Service):
        """An action serialized by nothing it knows."""

        kind = "odd"
        Target = TargetSettings

        @action(serialize_by="colour")
        def paint(self, client: Client, wall: str) -> Change:
            """Paint."""
            return Change(changed=True, message=wall)

    with pytest.raises(ConfigError, match="odd paint is serialized by 'colour'"):
        Odd.actions()
