"""What the fleet makes of it, in a real database: every poll ends well, and what fires is told and resolved once."""

from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from nms_workers.services.elasticsearch.service import Elasticsearch
from tests.fleet.one_target import RunPoll, runs_of
from tests.fleet.stores import database_url, engine, postgres_name, red, redis_server, rows
from tests.servers import Server
from tests.stubs.elasticsearch import ElasticsearchStub

__all__ = ["database_url", "engine", "postgres_name", "red", "redis_server"]


@pytest.fixture
def run(stub: ElasticsearchStub, engine: Engine, red: "redis.Redis", redis_server: Server, tmp_path: Path) -> RunPoll:
    """Runs polls of the target `logs`."""
    target = {"name": "logs", "service": "elasticsearch", "url": stub.url}
    return runs_of(target, engine, red, redis_server, tmp_path)


def test_every_poll_ends_well(run: RunPoll, stub: ElasticsearchStub, engine: Engine) -> None:
    for at in range(120):
        stub.make_index(f"logs-{at}", docs=1)
    stub.make_stream("app", lifecycle={"enabled": True})
    stub.repositories["backup"] = {"snapshots": []}
    assert {poll: run(poll) for poll in Elasticsearch.polls()} == dict.fromkeys(Elasticsearch.polls(), "ok")
    query = "SELECT count(DISTINCT labels) FROM series WHERE metric = 'elasticsearch_index_docs'"
    assert rows(engine, query) == [(100,)]


def test_a_red_index_is_told_once_and_resolved_once(run: RunPoll, stub: ElasticsearchStub, engine: Engine) -> None:
    stub.make_index("logs-1")
    stub.make_index("logs-2", health="red")
    for health in ("red", "red", "green", "green", "red"):
        stub.indices["logs-2"]["health"] = health
        assert run("indices") == "ok"
    query = "SELECT fingerprint, state FROM events WHERE kind = 'index_red' ORDER BY ts"
    fingerprint = "index_red:logs-2"
    assert rows(engine, query) == [(fingerprint, "firing"), (fingerprint, "resolved"), (fingerprint, "firing")]
