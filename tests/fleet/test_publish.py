"""From shards and jobs to messages, as they lie in a real broker."""

import base64
import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from nms_workers.app import create_app
from nms_workers.fleet.dispatch import Shard, shards
from nms_workers.fleet.inventory import Target
from nms_workers.jobs.job import Job
from nms_workers.publish import publish_job, publish_shards
from nms_workers.settings import Settings, TargetConfig
from tests.servers import Server

pytestmark = pytest.mark.usefixtures("shelf")


def _app(server: Server, monkeypatch: pytest.MonkeyPatch) -> Celery:
    monkeypatch.setenv("NMS_REDIS_URL", server.url)
    return create_app(Settings(targets=[TargetConfig(service="shelf", name="e", worker="fw1")]))


@pytest.fixture
def app(redis_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    made = _app(redis_server, monkeypatch)
    yield made
    made.close()


def messages(red: "redis.Redis", queue: str) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """(headers, kwargs, properties) of the messages of a queue, the oldest first."""
    found = []
    for raw in reversed(red.lrange(queue, 0, -1)):
        message = json.loads(raw)
        assert message["content-type"] == "application/json"
        _, kwargs, _ = json.loads(base64.b64decode(message["body"]))
        found.append((message["headers"], kwargs, message["properties"]))
    return found


def target(number: int, every: float = 30.0, worker: str | None = None) -> Target:
    polls = dict.fromkeys(("items", "rack"), every)
    return Target(number, "shelf", f"s{number}", {"url": "env:SHELF_URL"}, polls, worker=worker)


def test_a_shard_is_one_message_that_ends_when_the_next_slot_is_due(app: Celery, red: "redis.Redis") -> None:
    now = int(time.time() * 1000)
    due = [(target(n), now - 10_000 + n) for n in range(5)] + [(target(9, worker="fw1"), now)]
    publish_shards(app, shards("shelf", "rack", due))
    first, second = messages(red, "poll.shelf")
    assert [one[1]["slots"] for one in (first, second)] == [
        [[n, now - 10_000 + n] for n in range(3)],
        [[n, now - 10_000 + n] for n in range(3, 5)],
    ]
    headers, kwargs, _ = first
    assert headers["task"] == "nms.shelf.rack"
    assert (kwargs["targets"], kwargs["manual"]) == (["s0", "s1", "s2"], False)
    expires = datetime.fromisoformat(headers["expires"]).astimezone(UTC).timestamp() * 1000
    assert expires == pytest.approx(now + 20_000, abs=1_000)
    assert headers["ignore_result"]
    [(_, edge, _)] = messages(red, "edge.fw1")
    assert edge["targets"] == ["s9"]


def test_a_message_carries_no_settings(app: Celery, red: "redis.Redis") -> None:
    publish_shards(app, shards("shelf", "items", [(target(1), int(time.time() * 1000))]))
    assert b"SHELF_URL" not in base64.b64decode(json.loads(red.lindex("poll.shelf", 0))["body"])
    assert b"url" not in red.lindex("poll.shelf", 0)


def test_five_thousand_slots_are_published_in_seconds(app: Celery, red: "redis.Redis") -> None:
    now = int(time.time() * 1000)
    began = time.process_time()
    publish_shards(app, shards("shelf", "items", [(target(n), now) for n in range(5_000)]))
    assert time.process_time() - began < 10  # 1.5 s of CPU where nothing else runs
    assert red.llen("poll.shelf") == 5_000
    assert len({kwargs["slots"][0][0] for _, kwargs, _ in messages(red, "poll.shelf")}) == 5_000


def test_nothing_is_published_for_nothing(app: Celery, red: "redis.Redis") -> None:
    publish_shards(app, iter(()))
    assert red.llen("poll.shelf") == 0


def test_a_late_shard_still_gets_a_moment(app: Celery, red: "redis.Redis") -> None:
    now = int(time.time() * 1000)
    publish_shards(app, [Shard("shelf", "items", "poll.shelf", ((target(1, every=1.0), now - 60_000),))])
    [(headers, _, _)] = messages(red, "poll.shelf")
    assert datetime.fromisoformat(headers["expires"]).timestamp() * 1000 == pytest.approx(now + 100, abs=900)


def test_a_job_s_message_is_what_anybody_would_send(app: Celery, red: "redis.Redis") -> None:
    job_id = uuid.uuid4()
    fields: dict[str, Any] = dict.fromkeys(Job.__dataclass_fields__)
    job = Job(
        **fields | {"id": job_id, "service": "shelf", "action": "put", "target": "main", "arguments": {"item": "x"}}
    )
    publish_job(app, job)
    [(headers, kwargs, properties)] = messages(red, "act.shelf")
    assert (headers["task"], headers["id"], properties["correlation_id"]) == ("nms.shelf.put", str(job_id), str(job_id))
    assert kwargs == {"target": "main", "item": "x"}


@pytest.mark.parametrize("before", [0, 1, 700], ids=["never connected", "connected", "many"])
def test_without_a_broker_it_is_told_soon(
    start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    server = start_server("valkey-9")
    app = _app(server, monkeypatch)
    now = int(time.time() * 1000)
    publish_shards(app, shards("shelf", "items", [(target(n), now) for n in range(min(before, 1))]))
    server.stop()
    began = time.monotonic()
    with pytest.raises(OperationalError):
        publish_shards(app, shards("shelf", "items", [(target(n), now) for n in range(max(before, 1))]))
    assert time.monotonic() - began < 10
    app.close()


def test_a_broker_that_is_back_is_found_again(
    start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server("valkey-9")
    app = _app(server, monkeypatch)
    now = int(time.time() * 1000)
    publish_shards(app, shards("shelf", "items", [(target(1), now)]))
    server.restart()
    publish_shards(app, shards("shelf", "items", [(target(2), now), (target(3), now)]))
    with redis.Redis.from_url(server.url) as red:
        assert [kwargs["targets"] for _, kwargs, _ in messages(red, "poll.shelf")] == [["s1"], ["s2"], ["s3"]]
    app.close()
