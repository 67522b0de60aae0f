"""Containers of a real engine: found live, also after the engine's restart; restarted when ill, and given up."""

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from typing import Any, cast

import docker
import pytest
import redis

from nms_workers.fleet.health_checks import EngineHealth
from nms_workers.fleet.inventory import Inventory
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.target import DockerTarget
from tests.real.conftest import POSTGRES, REDIS
from tests.real.fleet import Fleet, Member, until
from tests.real.ledger import Ledger
from tests.servers import Server
from tests.servers.docker import IMAGE, DockerServer

pytestmark = pytest.mark.real("docker", POSTGRES, REDIS)

StartServer = Callable[..., Server]
SECOND = 1_000_000_000  # the engine's unit of time

_RULES = """
[discovery.docker]
approve = ["type:redis"]
"""
_HEALTH = """
[health]
every = "1s"
failures = 2
successes = 1
[health.repair]
attempts = 2
within = "10m"
backoff = "1s"
per_minute = 50
"""


@pytest.fixture
def engine(start_server: StartServer) -> DockerServer:
    return cast(DockerServer, start_server("docker"))


@pytest.fixture
def api(engine: DockerServer) -> Iterator[docker.APIClient]:
    with engine.plain() as client:
        yield client


def configure(fleet: Fleet, engine: DockerServer, head: str = "") -> None:
    target = f'[[targets]]\nservice = "docker"\nname = "local"\nurl = "{engine.url}"\n'
    fleet.configure(target, head=_RULES + head)


def watch(fleet: Fleet) -> Member:
    heartbeat = f"discovery@{socket.gethostname()}.heartbeat"
    return fleet.start("discovery", "discover", "docker", "--watch", heartbeat=heartbeat).ready()


def run(api: docker.APIClient, name: str, labels: Mapping[str, str] | None = None, **options: Any) -> float:
    """Start a labelled container; returns when it was started (seconds since the epoch)."""
    own = {"nms.service": "true", "nms.service.type": "redis"} | {f"nms.{k}": v for k, v in (labels or {}).items()}
    made = api.create_container(IMAGE, ["sleep", "100000"], name=name, labels=own, stop_signal="SIGKILL", **options)
    api.start(made["Id"])
    started = api.inspect_container(made["Id"])["State"]["StartedAt"]
    return datetime.fromisoformat(started[:26] + "+00:00").timestamp()


def states(ledger: Ledger) -> dict[str, str]:
    rows = ledger.rows("SELECT service || '/' || name, state FROM targets WHERE source = 'docker'")
    return dict(rows)  # type: ignore[arg-type]


def events(ledger: Ledger, kind: str) -> list[tuple[Any, ...]]:
    """State, severity and message of the events of a kind, the oldest first."""
    return ledger.rows("SELECT state, severity, message FROM events WHERE kind = %s ORDER BY ts", kind)


def fleet_targets(fleet: Fleet) -> set[str]:
    """The names of the targets that workers know."""
    with redis.Redis.from_url(fleet.redis) as client:
        return {target.name for target in Inventory(client).all().values()}


def test_containers_are_targets_within_two_seconds_and_go_as_they_go(
    fleet: Fleet, ledger: Ledger, engine: DockerServer, api: docker.APIClient
) -> None:
    configure(fleet, engine)
    fleet.crew("beat")
    watch(fleet)
    until(lambda: fleet_targets(fleet) == {"local"}, "the fleet knows its file")
    started = run(api, "cache", {"target.password": "env:CACHE_PASSWORD"})
    until(lambda: states(ledger) == {"redis/cache": "active"}, "the container is a target", 2.0)
    assert time.time() - started < 2.0, "from the container's start on"
    until(lambda: "cache" in fleet_targets(fleet), "the fleet polls it", 10.0)
    (settings,) = ledger.rows("SELECT settings FROM targets WHERE name = 'cache'")[0]
    address = api.inspect_container("cache")["NetworkSettings"]["IPAddress"]
    assert settings == {"host": address, "port": 6379, "password": "env:CACHE_PASSWORD"}

    run(api, "web", {"service.type": "grafana"})
    until(lambda: states(ledger).get("grafana/web") == "proposed", "no rule approves of it, so it waits", 2.0)
    approved = fleet.run("targets", "approve", "web")
    assert approved.stdout.strip() == "active now: grafana/web", approved.stderr

    run(api, "broken", {"target.password": "in clear"})
    run(api, "other", {"service.type": "nonsense"})
    until(lambda: len(events(ledger, "discovery_fault")) == 2, "what cannot be a target is told by name")
    told = {message.partition(":")[0]: message for _, _, message in events(ledger, "discovery_fault")}
    assert 'nms.target.password: write "env:NAME" or "file:/path"' in told["broken"]
    assert "there is no service 'nonsense'" in told["other"]
    api.remove_container("other", force=True)
    until(lambda: len(events(ledger, "discovery_fault")) == 3, "it is over")
    assert events(ledger, "discovery_fault")[-1][0] == "resolved"
    assert "in clear" not in fleet.logs()

    api.stop("cache")
    until(lambda: states(ledger)["redis/cache"] == "gone", "it went", 2.0)
    until(lambda: "cache" not in fleet_targets(fleet), "the fleet polls it no more", 10.0)
    api.start("cache")
    until(lambda: states(ledger)["redis/cache"] == "active", "it is back", 2.0)
    assert [state for name, state in states(ledger).items() if name == "grafana/web"] == ["active"]


def test_what_changed_while_the_engine_was_away_is_seen_when_it_is_back(
    fleet: Fleet, ledger: Ledger, engine: DockerServer, api: docker.APIClient
) -> None:
    configure(fleet, engine)
    member = watch(fleet)
    run(api, "stays")
    run(api, "goes")
    until(lambda: states(ledger) == {"redis/stays": "active", "redis/goes": "active"}, "both are targets")
    engine.kill()
    until(lambda: "all targets stay" in member.words(), "it is told that the engine is away")
    assert states(ledger) == {"redis/stays": "active", "redis/goes": "active"}, "nobody knows better"
    engine.start()
    with engine.plain() as again:
        again.start("stays")
        until(lambda: states(ledger) == {"redis/stays": "active", "redis/goes": "gone"}, "all was looked at again")
        run(again, "new")
        until(lambda: states(ledger).get("redis/new") == "active", "and events come again", 5.0)
    assert member.words().count("all targets stay") == 1


def restarts(ledger: Ledger) -> list[tuple[Any, ...]]:
    """State and container of the restarts that were asked for, the oldest first."""
    return ledger.rows(
        "SELECT state, arguments->>'container' FROM jobs WHERE requested_by = 'health' ORDER BY created_at"
    )


def looks(ledger: Ledger) -> int:
    """How often the container's target was looked at."""
    return int(ledger.rows("SELECT count(*) FROM poll_runs WHERE poll = 'fleet.health'")[0][0])


def began(api: docker.APIClient, container: str) -> str:
    return str(api.inspect_container(container)["State"]["StartedAt"])


def ill_until_told(api: docker.APIClient, name: str, **labels: str) -> None:
    """A container whose own health check fails until somebody makes the file it looks for."""
    check = {"test": ["CMD", "test", "-e", "/well"], "interval": SECOND, "timeout": 5 * SECOND, "retries": 1}
    run(api, name, {"health.poll": "false", **labels}, healthcheck=check)


@pytest.mark.timeout(300)
def test_an_ill_container_is_restarted_so_often_and_then_given_up_also_by_the_next_fleet(
    fleet: Fleet, ledger: Ledger, engine: DockerServer, api: docker.APIClient
) -> None:
    configure(fleet, engine, _HEALTH)
    control, *_ = fleet.crew("control", "actions", "beat")
    watch(fleet)
    ill_until_told(api, "web", restart="true")
    first = began(api, "web")
    until(lambda: events(ledger, "restart_given_up"), "it is restarted, and given up", 90.0)
    assert restarts(ledger) == [("succeeded", "web")] * 2
    assert began(api, "web") > first
    assert [severity for _, severity, _ in events(ledger, "restart_given_up")] == ["critical"]
    (_, _, words) = events(ledger, "restart_given_up")[0]
    assert "was restarted 2 times in 600 s and is not healthy" in words
    for kind, number in (("target_unhealthy", 1), ("restart_requested", 2), ("restart_done", 2)):
        assert len(events(ledger, kind)) == number, kind
    reasons = ledger.rows(
        "SELECT reason, evidence->>'target' FROM jobs WHERE requested_by = 'health' ORDER BY created_at"
    )
    assert [reason.partition(":")[0] for reason, _ in reasons] == [
        "redis/web is unhealthy, attempt 1",
        "redis/web is unhealthy, attempt 2",
    ]
    assert "health check fails" in reasons[0][0]

    control.kill()
    fleet.worker("control", "another").ready()
    before = looks(ledger)
    until(lambda: looks(ledger) > before + 4, "it is looked at again and again")
    assert len(restarts(ledger)) == 2, "a new fleet knows what was tried"
    shown = fleet.run("health", "--json")
    assert shown.returncode == 1, "something is unhealthy"
    (row,) = (one for one in json.loads(shown.stdout) if one["target"] == "web")
    assert (row["state"], row["given_up"], row["restarts"]) == ("unhealthy", True, 2)

    made = api.exec_create("web", ["touch", "/well"])
    api.exec_start(made["Id"])
    until(lambda: events(ledger, "restart_given_up")[-1][0] == "resolved", "somebody made it well", 30.0)
    assert [state for state, *_ in events(ledger, "target_unhealthy")] == ["firing", "resolved"]
    assert len(restarts(ledger)) == 2


def test_what_others_depend_on_is_restarted_first_and_what_may_not_be_is_left(
    fleet: Fleet, ledger: Ledger, engine: DockerServer, api: docker.APIClient
) -> None:
    configure(fleet, engine, _HEALTH)
    for name, labels in (
        ("db", {"restart": "true"}),
        ("app", {"restart": "true", "depends_on": "db"}),
        ("forbidden", {}),
    ):
        ill_until_told(api, name, **labels)
    fleet.crew("control", "actions", "beat")
    watch(fleet)
    until(lambda: len(restarts(ledger)) == 2, "db is restarted, and again", 90.0)
    assert {container for _, container in restarts(ledger)} == {"db"}
    held = {message for _, _, message in events(ledger, "restart_held")}
    assert "the container app of redis/app is not restarted: it waits for redis/db, which is unhealthy" in held
    assert any("forbidden is not restarted: its container has no label nms.restart=true" in one for one in held)
    until(lambda: restarts(ledger)[-1][0] == "succeeded", "its last restart is over")
    made = api.exec_create("db", ["touch", "/well"])
    api.exec_start(made["Id"])
    until(lambda: ("succeeded", "app") in restarts(ledger), "db is well, so app is restarted", 60.0)
    assert ("succeeded", "forbidden") not in restarts(ledger)


def test_how_containers_are_is_what_the_engine_says(engine: DockerServer, api: docker.APIClient) -> None:
    run(api, "plain")
    ill_until_told(api, "ill")
    patient = {"test": ["CMD", "false"], "interval": SECOND, "start_period": 3600 * SECOND}
    run(api, "starting", healthcheck=patient)
    with closing(DockerClient(DockerTarget(url=engine.url))) as client:
        until(lambda: EngineHealth.of(client).seen("ill").well is False, "its check failed", 30.0)
        known = EngineHealth.of(client)
        assert (known.seen("plain").well, known.seen("starting").well) == (True, None)
        assert known.seen("nobody").detail == "its container does not run"
        api.exec_start(api.exec_create("ill", ["touch", "/well"])["Id"])
        until(lambda: EngineHealth.of(client).seen("ill").well, "it is well", 30.0)
