"""What the fleet makes of it, in a real database: every poll ends well, and what fires is told and resolved once."""

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from nms_workers.fleet.clients import Clients
from nms_workers.fleet.flight import Flights
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.run import Runner
from nms_workers.fleet.targets import sync
from nms_workers.services.elasticsearch.service import Elasticsearch
from nms_workers.settings import Settings, TargetConfig
from nms_workers.store.latest import Latest
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from nms_workers.transport.breaker import Breakers
from tests.fleet.stores import database_url, engine, postgres_name, red, redis_server, rows
from tests.servers import Server
from tests.stubs.elasticsearch import ElasticsearchStub

__all__ = ["database_url", "engine", "postgres_name", "red", "redis_server"]

Run = Callable[[str], str]


@pytest.fixture
def run(stub: ElasticsearchStub, engine: Engine, red: "redis.Redis", redis_server: Server, tmp_path: Path) -> Run:
    """`run(poll)`: one slot of the target `logs` by a worker of its own; its outcome, when all is written."""
    target = TargetConfig.model_validate({"name": "logs", "service": "elasticsearch", "url": stub.url})
    inventory = Inventory(red)
    sync(engine, inventory, Settings(targets=[target]), datetime.now(UTC))
    due = int(datetime.now(UTC).timestamp() * 1000)

    def slot(poll: str) -> str:
        nonlocal due
        due += 1000
        with ExitStack() as after:
            url = engine.url.render_as_string(hide_password=False)
            writer, clients = Writer(Spool(tmp_path / "spool"), url, Latest(redis_server.url)), Clients()
            after.callback(clients.close)
            writer.start()
            after.callback(writer.close, 10)
            runner = Runner(Flights(red, "host:1"), Breakers(red), clients, writer, "host:1")
            outcomes = runner.run("elasticsearch", poll, [(one, due) for one in inventory.all().values()])
            assert writer.flush(20)
        return outcomes["logs"]

    return slot


def test_every_poll_ends_well(run: Run, stub: ElasticsearchStub, engine: Engine) -> None:
    for at in range(120):
        stub.make_index(f"logs-{at}", docs=1)
    stub.make_stream("app", lifecycle={"enabled": True})
    stub.repositories["backup"] = {"snapshots": []}
    assert {poll: run(poll) for poll in Elasticsearch.polls()} == dict.fromkeys(Elasticsearch.polls(), "ok")
    query = "SELECT count(DISTINCT labels) FROM series WHERE metric = 'elasticsearch_index_docs'"
    assert rows(engine, query) == [(100,)]


def test_a_red_index_is_told_once_and_resolved_once(run: Run, stub: ElasticsearchStub, engine: Engine) -> None:
    stub.make_index("logs-1")
    stub.make_index("logs-2", health="red")
    for health in ("red", "red", "green", "green", "red"):
        stub.indices["logs-2"]["health"] = health
        assert run("indices") == "ok"
    query = "SELECT fingerprint, state FROM events WHERE kind = 'index_red' ORDER BY ts"
    fingerprint = "index_red:logs-2"
    assert rows(engine, query) == [(fingerprint, "firing"), (fingerprint, "resolved"), (fingerprint, "firing")]
