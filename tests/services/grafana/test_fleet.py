"""What the fleet makes of it, in a real database: alerts are told once and resolved once, across restarts."""

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
from nms_workers.services.grafana.service import Grafana
from nms_workers.settings import Settings, TargetConfig
from nms_workers.store.latest import Latest
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from nms_workers.transport.breaker import Breakers
from tests.fleet.stores import database_url, engine, postgres_name, red, redis_server, rows
from tests.servers import Server
from tests.services.grafana.support import STATS, alert, fill, group, rule
from tests.stubs.grafana import GrafanaStub

__all__ = ["database_url", "engine", "postgres_name", "red", "redis_server"]

pytestmark = pytest.mark.usefixtures("connect")  # for its environment

Run = Callable[[str], str]


@pytest.fixture
def run(
    grafana: GrafanaStub,
    engine: Engine,
    red: "redis.Redis",
    redis_server: Server,
    tmp_path: Path,
) -> Run:
    """`run(poll)`: one slot of the target `g` by a worker that was started for it; the outcome, when all is written."""
    login = {"username": "admin", "password": "env:TEST_GRAFANA_PASSWORD"}
    target = {"name": "g", "service": "grafana", "url": grafana.url, "max_alerts": 3, "retry": {"attempts": 1}} | login
    inventory = Inventory(red)
    sync(engine, inventory, Settings(targets=[TargetConfig.model_validate(target)]), datetime.now(UTC))
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
            outcomes = runner.run("grafana", poll, [(one, due) for one in inventory.all().values()])
            assert writer.flush(20)
        return outcomes["g"]

    return slot


def told(engine: Engine) -> list[tuple[str, str]]:
    """(host, state) of what was told of alerts, in its order."""
    query = "SELECT attributes -> 'labels' ->> 'host', state FROM events WHERE kind = 'alert' ORDER BY ts, state"
    return [(host, state) for host, state in rows(engine, query)]


def test_every_poll_ends_well(run: Run, grafana: GrafanaStub) -> None:
    fill(grafana)
    grafana.stats = STATS
    assert {poll: run(poll) for poll in Grafana.polls()} == dict.fromkeys(Grafana.polls(), "ok")


def test_an_alert_is_told_once_and_resolved_once(run: Run, grafana: GrafanaStub, engine: Engine) -> None:
    grafana.groups = [group("g", rule("r1", "Host down", alert("Alerting", host="a")))]
    assert [run("alerts") for _ in range(3)] == ["ok", "ok", "ok"]
    assert told(engine) == [("a", "firing")]

    alerts = [alert("Alerting", host=f"more {number}") for number in range(4)]
    grafana.groups = [group("g", rule("r1", "Host down", *alerts))]
    assert run("alerts") == "partial"
    assert ("a", "resolved") not in told(engine), "it may be among those that were left out"

    grafana.groups = [group("g", rule("r1", "Host down", alert("Normal", host="a")))]
    assert [run("alerts") for _ in range(2)] == ["ok", "ok"]
    assert rows(engine, "SELECT count(*) FROM firing") == [(0,)]
    states = rows(engine, "SELECT state, count(*) FROM events WHERE kind = 'alert' GROUP BY state ORDER BY state")
    assert states == [("firing", 4), ("resolved", 4)]
