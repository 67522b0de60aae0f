"""A change that takes minutes: its job gives the worker back, and looks again until what was asked for is there."""

import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from nms_workers.jobs.audit import history
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.job import get
from nms_workers.jobs.people import cancel
from nms_workers.jobs.run import run
from nms_workers.jobs.submit import submit
from nms_workers.jobs.sweep import sweep
from nms_workers.jobs.wish import Wish
from tests.jobs.conftest import ClientOf, Published, age


@pytest.fixture
def client_of(fence_client_of: ClientOf) -> ClientOf:
    return fence_client_of


def wish(action: str, **arguments: object) -> Wish:
    return Wish("fence", action, "gate", arguments, requested_by="ada")


def test_it_is_asked_for_once_and_looked_at_until_it_is_there(
    engine: Engine, desk: Desk, client_of: ClientOf, published: Published, book: Path
) -> None:
    job = submit(desk, wish("build", looks=5))
    for look in range(1, 5):
        waiting = run(desk, job, f"host:{look}", client_of)
        assert (waiting.state, waiting.attempts, waiting.error) == ("queued", 0, "there is no tower yet")
        assert run(desk, job, "host:9", client_of).state == "queued", "not before its time"
        assert book.read_text().count("looked") == look
        age(engine, 16)
        assert sweep(desk) == 1
        assert published.jobs[-1].id == job.id
    ended = run(desk, job, "host:5", client_of)
    assert (ended.state, ended.attempts, ended.before) == ("succeeded", 1, {"tower": False})
    assert book.read_text().count("asked for a tower") == 1
    told = [event.event for event in history(engine, job.id)]
    assert told == ["submitted", *["claimed", "put back"] * 4, "claimed", "succeeded"]


def test_others_wait_for_it_as_for_one_that_runs(engine: Engine, desk: Desk, client_of: ClientOf, book: Path) -> None:
    first, second = submit(desk, wish("build", looks=2)), submit(desk, wish("withdraw"))
    run(desk, first, "host:1", client_of)
    assert run(desk, second, "host:1", client_of).state == "queued"
    age(engine, 16)
    assert run(desk, first, "host:1", client_of).state == "succeeded"
    assert run(desk, second, "host:1", client_of).state == "succeeded"
    assert book.read_text().splitlines()[-1] == "withdrawn"


def test_all_of_its_runs_have_one_deadline(engine: Engine, desk: Desk, client_of: ClientOf, book: Path) -> None:
    job = submit(desk, wish("wait_for_ever"))
    ends = time.monotonic() + 20
    while (now := run(desk, job, "host:1", client_of)).state == "queued":
        assert time.monotonic() < ends, now
        age(engine, 1)
    assert now.state == "failed"
    assert now.error is not None
    assert now.error.startswith("there is no moon yet, 1 s after it was first asked for")
    assert book.read_text().splitlines() == ["asked for the moon"]


def test_it_can_be_cancelled_meanwhile(engine: Engine, desk: Desk, client_of: ClientOf) -> None:
    job = submit(desk, wish("build", looks=2))
    run(desk, job, "host:1", client_of)
    cancel(desk, job.id, "ada")
    age(engine, 16)
    assert run(desk, job, "host:1", client_of).state == "cancelled"
    assert get(engine, job.id).state == "cancelled"
