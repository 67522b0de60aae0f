"""From the wish to the audit: a refusal is a job that ended with its reason, and nothing was touched."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

import nms_workers.services
from nms_workers.fleet.clients import Clients
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.targets import sync
from nms_workers.jobs.audit import history
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.job import Job, find
from nms_workers.jobs.run import run
from nms_workers.jobs.submit import submit
from nms_workers.jobs.undo import wish_to_undo
from nms_workers.jobs.wish import Wish
from nms_workers.service import Client, services
from nms_workers.settings import Guards, Settings, TargetConfig, Window
from tests.servers import Server

ADDRESS = "198.51.100.7"


@pytest.fixture
def _stores(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_server: Server) -> None:
    monkeypatch.setenv("NMS_DATABASE_URL", database_url)
    monkeypatch.setenv("NMS_REDIS_URL", redis_server.url)


@pytest.fixture
def book(
    _stores: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine, red: "redis.Redis"
) -> Iterator[Path]:
    """The service `fence`, found by its folder, its target `gate`, and the book that tells what was done."""
    here = str(Path(__file__).parent / "services")
    monkeypatch.setattr(nms_workers.services, "__path__", [*nms_workers.services.__path__, here])
    services.cache_clear()
    written = tmp_path / "book"
    written.touch()
    gate = TargetConfig.model_validate({"service": "fence", "name": "gate", "book": str(written)})
    sync(engine, Inventory(red), Settings(targets=[gate]), datetime.now(UTC))
    yield written
    monkeypatch.undo()
    services.cache_clear()


@pytest.fixture
def work(engine: Engine, red: "redis.Redis") -> Any:
    """`work(job, guards)`: a worker takes the job, with these guards in its settings."""

    def client_of(job: Job) -> Client:
        return Clients().get(next(iter(Inventory(red).all().values())))

    return lambda job, guards: run(_desk(engine, guards), job, "host:1", client_of)


def _desk(engine: Engine, guards: dict[str, Any]) -> Desk:
    return Desk(engine, Settings(guards=Guards.model_validate(guards)), lambda job: None)


def _wish(action: str = "ban", **arguments: object) -> Wish:
    return Wish("fence", action, "gate", arguments or {"address": ADDRESS}, requested_by="ada", reason="scans us")


def test_what_a_guard_refuses_is_a_job_that_ended_with_its_reason(engine: Engine, book: Path, work: Any) -> None:
    job = submit(_desk(engine, {}), _wish(address="::ffff:127.0.0.1"))
    assert (job.state, job.done) == ("refused", True)
    assert job.error == (
        "fence.ban is refused: 127.0.0.1 would cut off 127.0.0.0/8, loopback (RFC 1122); "
        "127.0.0.1, this host's own (lo); 127.0.0.1, PostgreSQL of the fleet (127.0.0.1); and more"
    )
    lines = [(one.event, one.who) for one in history(engine, job.id)]
    assert lines == [("submitted", "ada"), ("refused", "guard")]
    assert history(engine, job.id)[-1].why == job.error
    assert work(job, {}).state == "refused"
    assert book.read_text() == ""


ALWAYS = Window(rule="never", since=datetime(2020, 1, 1, tzinfo=UTC), until=datetime(2200, 1, 1, tzinfo=UTC))
LATER_REFUSED = [
    ({"protected": ["198.51.100.0/24"]}, "protected by the settings"),
    ({"deny": ["fence.*"]}, "guards.deny"),
    ({"allow": []}, "guards.allow"),
    ({"find": [], "protected": ["::ffff:198.51.100.7/128"]}, "protected by the settings"),
    ({"windows": [ALWAYS]}, "in this window"),
]


@pytest.mark.parametrize(("guards", "why"), LATER_REFUSED)
def test_what_was_allowed_and_is_not_any_more_is_refused_right_before_it_runs(
    engine: Engine, book: Path, work: Any, guards: dict[str, Any], why: str
) -> None:
    job = submit(_desk(engine, {}), _wish())
    assert job.state == "queued"
    ended = work(job, guards)
    assert ended.state == "refused"
    assert why in ended.error
    assert history(engine, job.id)[-1].why == ended.error
    assert book.read_text() == ""


def test_a_target_that_was_added_meanwhile_is_seen(engine: Engine, book: Path, work: Any, red: "redis.Redis") -> None:
    job = submit(_desk(engine, {}), _wish())
    targets = [
        {"service": "fence", "name": "gate", "book": str(book)},
        {"service": "redis", "name": "r", "host": ADDRESS},
    ]
    settings = Settings(targets=[TargetConfig.model_validate(one) for one in targets])
    sync(engine, Inventory(red), settings, datetime.now(UTC))
    assert "the target redis/r" in work(job, {}).error
    assert book.read_text() == ""


def test_what_may_run_runs_and_may_be_taken_back_when_nothing_else_may(engine: Engine, book: Path, work: Any) -> None:
    now = datetime.now(UTC)
    freeze = Window(rule="never", since=now - timedelta(hours=1), until=now + timedelta(hours=1))
    strict = {"windows": [freeze], "limits": [{"per": "requester", "jobs": 1, "within": "1h"}]}
    job = work(submit(_desk(engine, {}), _wish()), {})
    assert (job.state, job.error) == ("succeeded", None)
    assert submit(_desk(engine, strict), _wish("unban", address=ADDRESS)).state == "refused"
    undone = work(submit(_desk(engine, strict), wish_to_undo(job, "ada", "enough")), strict)
    assert (undone.state, undone.error) == ("succeeded", None)
    assert book.read_text().splitlines() == [f"banned {ADDRESS}/32", f"let {ADDRESS}/32 in"]


def test_a_job_that_is_there_already_is_not_counted_again(engine: Engine, book: Path) -> None:
    desk = _desk(engine, {"limits": [{"per": "requester", "jobs": 1, "within": "1h"}]})
    wish = Wish("fence", "ban", "gate", {"address": ADDRESS}, requested_by="ada", idempotency_key="once")
    first = submit(desk, wish)
    assert first.state == "queued"
    assert submit(desk, wish) == first
    other = submit(desk, _wish())
    assert (other.state, find(engine, first.id)) == ("refused", first)
    assert other.error is not None
    assert other.error.startswith("fence.ban is refused: 'ada' may have 1 in 3600 s (guards.limits); ")
