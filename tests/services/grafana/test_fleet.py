"""What the fleet makes of it, in a real database: alerts are told once and resolved once, across restarts."""

from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from nms_workers.services.grafana.service import Grafana
from tests.fleet.one_target import RunPoll, runs_of
from tests.fleet.stores import database_url, engine, postgres_name, red, redis_server, rows
from tests.servers import Server
from tests.services.grafana.support import STATS, alert, fill, group, rule
from tests.stubs.grafana import GrafanaStub

__all__ = ["database_url", "engine", "postgres_name", "red", "redis_server"]

pytestmark = pytest.mark.usefixtures("connect")  # for its environment


@pytest.fixture
def run(grafana: GrafanaStub, engine: Engine, red: "redis.Redis", redis_server: Server, tmp_path: Path) -> RunPoll:
    """Runs polls of the target `g`."""
    login = {"username": "admin", "password": "env:TEST_GRAFANA_PASSWORD"}
    target = {"name": "g", "service": "grafana", "url": grafana.url, "max_alerts": 3, "retry": {"attempts": 1}} | login
    return runs_of(target, engine, red, redis_server, tmp_path)


def told(engine: Engine) -> list[tuple[str, str]]:
    """(host, state) of what was told of alerts, in its order."""
    query = "SELECT attributes -> 'labels' ->> 'host', state FROM events WHERE kind = 'alert' ORDER BY ts, state"
    return [(host, state) for host, state in rows(engine, query)]


def test_every_poll_ends_well(run: RunPoll, grafana: GrafanaStub) -> None:
    fill(grafana)
    grafana.stats = STATS
    assert {poll: run(poll) for poll in Grafana.polls()} == dict.fromkeys(Grafana.polls(), "ok")


def test_an_alert_is_told_once_and_resolved_once(run: RunPoll, grafana: GrafanaStub, engine: Engine) -> None:
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
