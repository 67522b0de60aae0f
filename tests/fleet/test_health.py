"""Whether targets are healthy, and which containers are restarted: decisions first, then rounds at real servers."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Connection, Engine

from nms_workers.errors import Outcome
from nms_workers.fleet.clients import Clients
from nms_workers.fleet.docker_discovery import reconcile
from nms_workers.fleet.health import Asked, Condition, Restart, Round, overview
from nms_workers.fleet.health_checks import Seen
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.labels import Found
from nms_workers.fleet.repair import Decision, Patient, Ward
from nms_workers.fleet.targets import sync
from nms_workers.jobs.restarts import restart
from nms_workers.settings import DockerDiscovery, Health, Repair, Settings
from nms_workers.store.slot import SlotResult
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from tests.fleet.stores import rows
from tests.servers import Server

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
StartServer = Callable[..., Server]
Look = Callable[..., dict[str, int]]


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def ill(name: str, *depends_on: str, restarts: tuple[datetime, ...] = (), **more: Any) -> Patient:
    values: dict[str, Any] = {"unhealthy": True, "engine": "local", "container": name, "allowed": True} | more
    return Patient(f"redis/{name}", depends_on=depends_on, restarts=restarts, **values)


def decide(*patients: Patient, gone: tuple[str, ...] = (), **rules: Any) -> dict[str, Decision]:
    ward = Ward({one.name: one for one in patients}, gone)
    sick = {one.name for one in patients if one.unhealthy}
    return {name[6:]: one for name, one in ward.decide(Repair(**rules), NOW, sick).items()}


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        ("+", "unknown"),
        ("++", "healthy"),
        ("++--", "healthy"),
        ("++---", "unhealthy"),
        ("++--+--", "healthy"),
        ("++---+", "unhealthy"),
        ("++---+-++", "healthy"),
        ("---", "unhealthy"),
        ("++-?-?-", "unhealthy"),
        ("??????", "unknown"),
    ],
)
def test_it_takes_several_in_a_row_to_change_a_state(seen: str, state: str) -> None:
    condition = Condition.of(None, NOW)
    for number, what in enumerate(seen):
        told = Seen({"+": True, "-": False, "?": None}[what])
        condition = condition.after(told, Health(failures=3, successes=2), NOW + timedelta(seconds=30 * number))
    assert condition.state == state
    changed = {"++---": 4, "++---+-++": 8, "---": 2, "++-?-?-": 6, "++": 1}.get(seen)
    if changed is not None:
        assert condition.since == NOW + timedelta(seconds=30 * changed)


def test_a_container_is_restarted_and_only_one_that_may_be() -> None:
    decided = decide(
        ill("a"), ill("b", allowed=False), ill("c", container=""), ill("d", busy=True), ill("e", unhealthy=False)
    )
    assert decided.keys() == {"a", "b"}
    assert decided["a"] == Decision(attempt=1)
    assert "no label nms.restart=true" in decided["b"].held


@pytest.mark.parametrize(
    ("last", "before", "decision"),
    [
        (29, (), Decision(held="attempt 2 of 4 comes at 12:00:01 UTC")),
        (31, (), Decision(attempt=2)),
        (59, (200,), Decision(held="attempt 3 of 4 comes at 12:00:01 UTC")),
        (61, (200,), Decision(attempt=3)),
        (119, (300, 200), Decision(held="attempt 4 of 4 comes at 12:00:01 UTC")),
        (121, (300, 200), Decision(attempt=4)),
        (3000, (3300, 3200, 3100), Decision(given_up=True)),
        (3000, (4000, 3800, 3700), Decision(attempt=2)),
    ],
    ids=["too soon", "2nd", "too soon for the 3rd", "3rd", "too soon for the 4th", "4th", "given up", "others are old"],
)
def test_each_attempt_waits_twice_as_long_and_then_it_is_given_up(
    last: float, before: tuple[float, ...], decision: Decision
) -> None:
    one = ill("a", restarts=tuple(ago(seconds) for seconds in (*before, last)))
    assert decide(one, attempts=4, backoff=30.0, within=3600.0) == {"a": decision}


def test_what_was_given_up_stays_so() -> None:
    assert decide(ill("a", given_up=True)) == {}


def test_no_storm_of_restarts() -> None:
    many = [ill(f"n{number}") for number in range(9)]
    just_now = ill("z", unhealthy=False, restarts=(ago(10), ago(30), ago(61)))
    decided = decide(*many, just_now, per_minute=5)
    assert [name for name, one in decided.items() if one.attempt] == ["n0", "n1", "n2"]
    assert all("5 containers were restarted in the last minute" in decided[f"n{n}"].held for n in range(3, 9))


def test_what_others_depend_on_comes_first() -> None:
    decided = decide(ill("app", "cache"), ill("cache", "db"), ill("db"))
    assert {name: one.attempt for name, one in decided.items()} == {"app": 0, "cache": 0, "db": 1}
    assert decided["app"].held == "it waits for redis/cache, which is unhealthy"
    healthy_between = decide(ill("app", "redis/cache"), ill("cache", "db", unhealthy=False), ill("db"))
    assert healthy_between["app"].held == "it waits for redis/db, which is unhealthy"
    assert decide(ill("app", "cache"), ill("cache", unhealthy=False))["app"].attempt == 1
    assert decide(ill("app", "cache"), gone=("redis/cache",))["app"].held == "it waits for redis/cache, which is gone"
    assert decide(ill("app", "nobody"))["app"].attempt == 1


def test_in_a_circle_nobody_waits_for_the_other() -> None:
    decided = decide(ill("a", "b"), ill("b", "a"), ill("c", "a"), ill("d", "d"))
    assert {name: one.attempt for name, one in decided.items()} == {"a": 1, "b": 1, "c": 0, "d": 1}


@pytest.fixture
def writer(engine: Engine, tmp_path: Path) -> Iterator[Writer]:
    made = Writer(Spool(tmp_path / "spool", 10_000_000), engine.url.render_as_string(hide_password=False))
    made.start()
    yield made
    made.close(10.0)


@pytest.fixture
def look(engine: Engine, red: "redis.Redis", writer: Writer) -> Iterator[Look]:
    """`look(settings)`: one round with these settings, its records written."""
    clients = Clients()

    def make(settings: Settings, writes: bool = True) -> dict[str, int]:
        def ask(connection: Connection, wanted: Restart) -> Asked:
            return restart(connection, settings, wanted)

        counts = Round(engine, Inventory(red), clients, settings, writer, "test:1", ask).run()
        assert not writes or writer.flush(20.0)
        return counts

    yield make
    clients.close()


def settings(*targets: dict[str, Any], **health: Any) -> Settings:
    rules = {"failures": 2, "successes": 1, "timeout": "2s", "every": "10s"} | health
    return Settings.model_validate({"targets": list(targets), "health": rules})


def enter(engine: Engine, red: "redis.Redis", wanted: Settings) -> None:
    sync(engine, Inventory(red), wanted, datetime.now(UTC))


def container(engine: Engine, name: str, port: int) -> None:
    """A target that discovery found, at a port."""
    rules = DockerDiscovery(approve=("type:redis",))
    one = Found(
        "redis", name, {"host": "127.0.0.1", "port": port}, f"{name}-1", "0" * 64, "", "127.0.0.1", restart=True
    )
    with engine.begin() as connection:
        reconcile(connection, "local", [one], rules, datetime.now(UTC))


def told(engine: Engine, kind: str) -> list[tuple[Any, ...]]:
    return rows(engine, "SELECT state, severity FROM events WHERE kind = :kind ORDER BY ts", kind=kind)


def samples(engine: Engine) -> list[float]:
    return [value for (value,) in rows(engine, "SELECT value FROM samples WHERE metric = 'target_healthy' ORDER BY ts")]


def test_a_server_that_goes_and_comes_back(
    engine: Engine, red: "redis.Redis", look: Look, start_server: StartServer
) -> None:
    server = start_server("valkey-9")
    wanted = settings({"service": "redis", "name": "cache", "host": server.host, "port": server.port})
    enter(engine, red, wanted)
    assert overview(engine)[0]["state"] == "unknown"
    assert look(wanted) == {"healthy": 1}
    server.stop()
    assert [look(wanted) for _ in range(3)] == [{"healthy": 1}, {"unhealthy": 1}, {"unhealthy": 1}]
    (row,) = overview(engine)
    assert (row["state"], row["failures"], row["restarts"], row["held"]) == ("unhealthy", 3, 0, "")
    assert row["detail"] == f"port {server.port} does not open: Connection refused"
    assert told(engine, "target_unhealthy") == [("firing", "error")], "told once, however often it is seen"
    server.start()
    assert look(wanted) == {"healthy": 1}
    assert [state for state, _ in told(engine, "target_unhealthy")] == ["firing", "resolved"]
    assert samples(engine) == [1, 1, 0, 0, 1]
    assert rows(engine, "SELECT count(*) FROM jobs") == [(0,)], "it is no container"


def test_how_its_polls_end_counts_before_its_port(
    engine: Engine, red: "redis.Redis", look: Look, writer: Writer, redis_server: Server
) -> None:
    wanted = settings({"service": "redis", "name": "cache", "host": redis_server.host, "port": redis_server.port})
    enter(engine, red, wanted)

    def polled(*outcomes: Outcome) -> None:
        ((target_id,),) = rows(engine, "SELECT id FROM targets")
        for poll, outcome in zip(("server", "clients"), outcomes, strict=False):
            now = datetime.now(UTC)
            result = SlotResult(
                target_id=target_id,
                service="redis",
                target="cache",
                poll=poll,
                due=now,
                started=now,
                finished=now,
                outcome=outcome,
                detail="because",
            )
            writer.put(result)
        assert writer.flush(20.0)

    polled(Outcome.TIMEOUT, Outcome.SKIPPED)
    look(wanted)
    polled(Outcome.UNREACHABLE)
    assert look(wanted) == {"unhealthy": 1}
    assert overview(engine)[0]["detail"] == "server: unreachable: because"
    polled(Outcome.TIMEOUT, Outcome.OK)
    assert look(wanted) == {"healthy": 1}, "it answers one of its polls"
    polled(Outcome.TIMEOUT)
    look(wanted)
    assert look(wanted) == {"healthy": 1}, "an old outcome does not count again: its port opens"
    assert overview(engine)[0]["failures"] == 0
    for _ in range(2):
        polled(Outcome.AUTH, Outcome.ERROR)
        assert look(wanted) == {"healthy": 1}, "it is there, though it does not know us"


def test_a_path_must_answer(
    engine: Engine, red: "redis.Redis", look: Look, session_server: Callable[[str], Server]
) -> None:
    server = session_server("prometheus")
    url = f"http://{server.host}:{server.port}"
    named = [("good", "/-/healthy"), ("bad", "/nowhere"), ("whole", f"{url}/-/ready")]
    wanted = settings(
        *({"service": "prometheus", "name": name, "url": url, "health": {"http": http}} for name, http in named)
    )
    enter(engine, red, wanted)
    look(wanted)
    assert look(wanted) == {"healthy": 2, "unhealthy": 1}
    details = {row["target"]: row["detail"] for row in overview(engine)}
    assert "/nowhere was answered with 404" in details["bad"]
    by_kind = settings({"service": "prometheus", "name": "good", "url": url}, checks={"prometheus": {"http": "/no"}})
    enter(engine, red, by_kind)
    look(by_kind)
    assert look(by_kind) == {"unhealthy": 1}, "the kind's checks, where the target has none of its own"


def test_programs_run_only_where_they_may(
    engine: Engine, red: "redis.Redis", look: Look, redis_server: Server, tmp_path: Path
) -> None:
    script = tmp_path / "check"
    script.write_text(
        f'#!/bin/sh\necho "$NMS_SERVICE $NMS_TARGET $NMS_HOST $NMS_PORT $HOME" > {tmp_path}/seen\nexit 3\n'
    )
    script.chmod(0o755)
    target = {"service": "redis", "name": "cache", "host": redis_server.host, "port": redis_server.port}
    target |= {"health": {"command": [str(script)]}}
    off = settings(target)
    enter(engine, red, off)
    look(off)
    assert look(off) == {"healthy": 1}
    assert not (tmp_path / "seen").exists()
    on = settings(target, commands=True)
    look(on)
    assert look(on) == {"unhealthy": 1}
    assert overview(engine)[0]["detail"] == f"{script} ended with 3"
    assert (tmp_path / "seen").read_text() == f"redis cache {redis_server.host} {redis_server.port} \n"


def test_what_cannot_be_asked_from_here_is_not_judged(
    engine: Engine, red: "redis.Redis", look: Look, free_port: Callable[[], int]
) -> None:
    port = free_port()
    wanted = settings(
        {"service": "redis", "name": "edge", "host": "127.0.0.1", "port": port, "worker": "elsewhere"},
        {"service": "snmp", "name": "switch", "host": "127.0.0.1", "port": port, "community": "env:X"},
        {"service": "fail2ban", "name": "bans"},
    )
    enter(engine, red, wanted)
    for _ in range(3):
        assert look(wanted) == {"unknown": 3}, overview(engine)
    assert samples(engine) == []


def test_rounds_at_once_count_a_check_once(engine: Engine, red: "redis.Redis", look: Look) -> None:
    together = threading.Barrier(4, timeout=30)  # each round sees the target as it was before all of them

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            together.wait()
            self.send_error(500)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        url = f"http://127.0.0.1:{server.server_port}"
        check = {"poll": False, "http": "/slow"}
        wanted = settings(
            {"service": "prometheus", "name": "p", "url": url, "health": check, "retry": {"attempts": 1}},
            failures=100,
            timeout="30s",
            every="60s",
        )
        enter(engine, red, wanted)
        with ThreadPoolExecutor(4) as pool:
            counts = [one.result() for one in [pool.submit(look, wanted, writes=False) for _ in range(4)]]
        server.shutdown()
        serving.join()
    assert sorted(counts, key=len) == [{}, {}, {}, {"unknown": 1}]
    assert overview(engine)[0]["failures"] == 1


def test_a_container_is_restarted_by_a_job_and_then_given_up(
    engine: Engine, red: "redis.Redis", look: Look, free_port: Callable[[], int]
) -> None:
    wanted = settings(
        {"service": "docker", "name": "local", "url": "unix:///nonexistent/docker.sock"},
        repair={"attempts": 2, "backoff": "0.001s", "per_minute": 100},
        failures=1,
    )
    enter(engine, red, wanted)
    container(engine, "web", free_port())
    look(wanted)
    ((action, at, arguments, who, reason, state, evidence),) = rows(
        engine, "SELECT action, target, arguments, requested_by, reason, state, evidence FROM jobs"
    )
    assert (action, at, who, state) == ("restart", "local", "health", "queued")
    assert arguments["container"] == "web-1"
    assert evidence["target"] == "redis/web"
    assert "redis/web is unhealthy, attempt 1: port" in reason
    assert told(engine, "restart_requested") == [("occurred", "warning")]
    look(wanted)
    assert rows(engine, "SELECT count(*) FROM jobs") == [(1,)], "it is under way"
    for number in (1, 2):
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE jobs SET state = 'failed', error = 'no' WHERE state = 'queued'")
        look(wanted)
        look(wanted)
        assert len(told(engine, "restart_failed")) == number
    assert rows(engine, "SELECT count(*) FROM jobs") == [(2,)]
    assert told(engine, "restart_given_up") == [("firing", "critical")]
    for _ in range(3):
        look(wanted)
    assert rows(engine, "SELECT count(*) FROM jobs") == [(2,)], "and no more"
    row = next(row for row in overview(engine) if row["target"] == "web")
    assert (row["given_up"], row["restarts"]) == (True, 2)
    assert "was restarted 2 times in 3600 s and is not healthy" in row["held"]


def test_a_restart_that_a_guard_refuses_counts_as_one(
    engine: Engine, red: "redis.Redis", look: Look, free_port: Callable[[], int]
) -> None:
    body = settings({"service": "docker", "name": "local", "url": "unix:///nonexistent/docker.sock"}, failures=1)
    wanted = body.model_copy(update={"guards": body.guards.model_copy(update={"deny": ("docker.restart",)})})
    enter(engine, red, wanted)
    container(engine, "web", free_port())
    look(wanted)
    assert rows(engine, "SELECT state FROM jobs") == [("refused",)]
    assert told(engine, "restart_refused") == [("occurred", "error")]
    look(wanted)
    assert rows(engine, "SELECT count(*) FROM jobs") == [(1,)], "the next attempt waits as if it had been done"
