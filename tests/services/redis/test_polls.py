"""What the polls read from real servers, against what redis-py says of the same server."""

import re
from datetime import UTC, datetime

import pytest
import redis

from nms_workers.records import Entity
from tests.conftest import StartServer
from tests.services.redis.conftest import Connect, Plain
from tests.services.redis.support import MATRIX, await_true, events, read, value, values

every_server = pytest.mark.parametrize("name", MATRIX)


@every_server
def test_server_tells_what_info_tells(session_server: StartServer, connect: Connect, plain: Plain, name: str) -> None:
    server = session_server(name)
    other = plain(server)
    other.set("hit", 1)
    other.get("hit")
    other.get("no such key")
    records = read(connect(server), "server")
    info = other.info()
    assert value(records, "redis_max_clients") == info["maxclients"]
    assert value(records, "redis_memory_system_bytes") == info["total_system_memory"]
    assert value(records, "redis_master") == 1
    assert value(records, "redis_rdb_last_bgsave_success") == 1
    assert value(records, "redis_aof_enabled") == 1
    assert 0 < value(records, "redis_memory_peak_ratio") <= 1.1
    hits, misses = (value(records, f"redis_keyspace_{which}_total") for which in ("hits", "misses"))
    assert value(records, "redis_keyspace_hit_ratio") == pytest.approx(hits / (hits + misses))
    assert value(records, "redis_time_seconds") == pytest.approx(datetime.now(UTC).timestamp(), abs=30)
    about = dict(next(iter(values(records, "redis_server_info"))))
    assert about["version"] == info.get("valkey_version", info["redis_version"])
    assert about["product"] == ("valkey" if name == "valkey-9" else "redis")


@every_server
def test_every_field_of_info_is_known(session_server: StartServer, connect: Connect, name: str) -> None:
    server = session_server(name)
    records = read(connect(server), "server")
    assert value(records, "redis_info_unknown_fields") == 0
    (entity,) = [r for r in records if isinstance(r, Entity) and r.kind == "server"]
    assert entity.attributes["unknown_fields"] == []


@every_server
def test_commands_are_counted(session_server: StartServer, connect: Connect, plain: Plain, name: str) -> None:
    server, other = session_server(name), plain(session_server(name))
    client = connect(server)
    before = values(read(client, "commands"), "redis_command_calls_total").get((("command", "lpush"),), 0)
    for _ in range(7):
        other.lpush("list", "x")
    other.set("text", "x")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        other.lpush("text", "x")
    records = read(client, "commands")
    assert value(records, "redis_command_calls_total", command="lpush") == before + 8
    assert value(records, "redis_command_failed_calls_total", command="lpush") >= 1
    assert value(records, "redis_errors_total", error="WRONGTYPE") >= 1
    assert value(records, "redis_command_seconds_total", command="lpush") < 1
    if name != "redis-6.2":  # latencystats came with 7.0
        latencies = [
            value(records, "redis_command_latency_seconds", command="lpush", quantile=q)
            for q in ("0.5", "0.99", "0.999")
        ]
        assert latencies == sorted(latencies)
        assert 0 < latencies[0] < 1


@every_server
def test_keyspace_by_database(start_server: StartServer, connect: Connect, plain: Plain, name: str) -> None:
    server = start_server(name)
    zero, three = plain(server), plain(server, db=3)
    zero.mset({f"k{i}": i for i in range(5)})
    three.set("a", 1, ex=1000)
    three.set("b", 1)
    records = read(connect(server), "keyspace")
    assert values(records, "redis_database_keys") == {(("db", "0"),): 5, (("db", "3"),): 2}
    assert value(records, "redis_database_expiring_keys", db="3") == 1
    assert {r.key for r in records if isinstance(r, Entity)} == {"db0", "db3"}
    assert values(read(connect(server), "memory"), "redis_keys") == {(): 7}


@every_server
def test_slow_commands_are_told_once_and_masked(
    start_server: StartServer, connect: Connect, plain: Plain, name: str
) -> None:
    server = start_server(name, conf={"slowlog-log-slower-than": "0"})
    other, client = plain(server), connect(server)
    other.set("patient:jane-roe", "diagnosis secret")
    other.config_set("masterauth", "hunter2")
    first = read(client, "slowlog")
    told = events(first, "slow_command")
    assert {"SET ? ?", "CONFIG SET ? ?"} <= {event.attributes["command"] for event in told}
    text = " ".join(f"{event.message} {event.attributes} {event.fingerprint}" for event in told)
    assert not re.search(r"jane|diagnosis|hunter2|correct", text)
    assert len({event.fingerprint for event in told}) == len(told)
    assert all(event.ts is not None and abs((event.ts - datetime.now(UTC)).total_seconds()) < 60 for event in told)
    assert value(first, "redis_slowlog_entries") >= len(told) - 2
    quantiles = [value(first, "redis_slowlog_duration_seconds", quantile=q) for q in ("0.5", "0.95", "1")]
    assert quantiles == sorted(quantiles)
    assert value(first, "redis_slowlog_duration_average_seconds") <= quantiles[-1]
    assert value(first, "redis_slowlog_threshold_seconds") == 0
    other.get("another")
    again = events(read(client, "slowlog"), "slow_command")
    assert not {event.fingerprint for event in told} & {event.fingerprint for event in again}
    assert "GET ?" in {event.attributes["command"] for event in again}


@every_server
def test_latency_monitor_and_ping(start_server: StartServer, connect: Connect, plain: Plain, name: str) -> None:
    server = start_server(name, conf={"latency-monitor-threshold": "1"})
    other = plain(server)
    script = "local s = 0; for i = 1, 2000000 do s = s + i end; return s"
    other.eval(script, 0)
    records = read(connect(server), "latency")
    assert 0.001 <= value(records, "redis_latency_event_max_seconds", event="command") < 10
    trips = [value(records, "redis_ping_seconds", stat=stat) for stat in ("min", "average", "max")]
    assert trips == sorted(trips)
    assert 0 < trips[0] < 1


@every_server
def test_latency_histogram(session_server: StartServer, connect: Connect, plain: Plain, name: str) -> None:
    server = session_server(name)
    plain(server).ping()
    records = read(connect(server, label_limit=3), "histogram")
    buckets = values(records, "redis_command_latency_bucket_total")
    if name == "redis-6.2":
        assert not records  # came with 7.0: nothing to tell, and nobody to warn
        return
    by_command: dict[str, list[tuple[float, float]]] = {}
    for labels, calls in buckets.items():
        by_command.setdefault(dict(labels)["command"], []).append((float(dict(labels)["le"]), calls))
    assert len(by_command) == 3
    for points in by_command.values():
        assert sorted(points) == sorted(points, key=lambda point: point[1])


@every_server
def test_clients_in_numbers(start_server: StartServer, connect: Connect, plain: Plain, name: str) -> None:
    server = start_server(name)
    for i in range(4):
        plain(server, client_name="web" if i < 3 else "cron").ping()
    records = read(connect(server), "clients")
    assert value(records, "redis_clients_by_name", name="web") == 3
    assert value(records, "redis_clients_by_name", name="cron") == 1
    assert value(records, "redis_clients_by_user", user="default") == value(
        records, "redis_clients_by_flag", flag="normal"
    )
    assert value(records, "redis_client_memory_bytes") > 0
    few = read(connect(server, label_limit=1), "clients")
    assert value(few, "redis_clients_by_name", name="other") >= 2
    assert set(values(few, "redis_clients_by_name")) == {(("name", "web"),), (("name", "other"),)}


def test_too_many_clients_are_not_listed(start_server: StartServer, connect: Connect, plain: Plain) -> None:
    server = start_server("redis-7.0")
    for _ in range(3):
        plain(server).ping()
    client = connect(server, client_limit=2)
    (event,) = read(client, "clients")
    assert event in events([event], "left_out")
    assert "client_limit" in event.message
    assert read(client, "clients") == []


def test_key_patterns_are_counted_in_bounds(start_server: StartServer, connect: Connect, plain: Plain) -> None:
    server = start_server("redis-7.0")
    plain(server, db=2).mset({f"user:{i}": i for i in range(3000)} | {f"job:{i}": i for i in range(20)})
    records = read(connect(server, db=2, key_patterns=("user:*", "job:*")), "keys")
    assert value(records, "redis_key_pattern_keys", db="2", pattern="user:*") == 3000
    assert value(records, "redis_key_pattern_keys", db="2", pattern="job:*") == 20
    assert value(records, "redis_key_pattern_complete", db="2", pattern="job:*") == 1
    bounded = read(connect(server, db=2, key_patterns=("user:*",), scan_limit=500), "keys")
    assert 0 < value(bounded, "redis_key_pattern_keys", db="2", pattern="user:*") < 1000
    assert value(bounded, "redis_key_pattern_complete", db="2", pattern="user:*") == 0


def test_a_restart_is_survived(start_server: StartServer, connect: Connect) -> None:
    server = start_server("redis-7.0")
    client = connect(server)
    read(client, "server")
    server.restart()
    records = await_true(lambda: read(client, "server"))
    assert value(records, "redis_uptime_seconds") < 30


def test_commands_the_server_renamed(start_server: StartServer, connect: Connect, plain: Plain) -> None:
    conf = {"rename-command": ["CONFIG hidden", "INFO facts"], "slowlog-log-slower-than": "0"}
    server = start_server("redis-7.0", conf=conf)
    named = connect(server, command_names={"CONFIG": "hidden", "INFO": "facts"})
    assert value(read(named, "server"), "redis_max_clients") == 10_000
    assert value(read(named, "slowlog"), "redis_slowlog_threshold_seconds") == 0
    unnamed = connect(server)
    records = read(unnamed, "slowlog")
    assert values(records, "redis_slowlog_entries")
    assert not values(records, "redis_slowlog_threshold_seconds")
    (left_out,) = events(records, "left_out")
    assert "CONFIG GET" in left_out.message
    assert "command_names" in left_out.message
    assert not events(read(unnamed, "slowlog"), "left_out")
