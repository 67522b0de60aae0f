"""The table of fields, the masking of commands and the settings: what needs no server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nms_workers.services.redis import fields
from nms_workers.services.redis.service import Redis
from nms_workers.services.redis.slowlog import masked
from nms_workers.services.redis.target import RedisTarget


def test_the_table_and_the_contract_agree() -> None:
    metrics = Redis.metrics()
    for field in fields.fields():
        if not field.metric:
            continue
        declared = metrics[field.metric]
        assert {name for name, _ in field.labels} == set(declared.labels), field.field
        assert (declared.type == "counter") == field.metric.endswith("_total"), field.field
        if declared.unit not in ("", "ratio"):
            assert declared.unit in field.metric, field.field


def test_no_field_is_named_twice() -> None:
    names = [field.field for field in fields.fields()]
    assert len(names) == len(set(names))


def test_fields_nobody_knows_are_named_and_harm_nothing() -> None:
    info = {"uptime_in_seconds": 5, "flux": 1, "db0": {"keys": 1, "expires": 0, "avg_ttl": 0, "spin": 2}, "hz": "many"}
    assert fields.unknown(info) == ["flux", "db0.spin", "hz"]
    assert [(s.metric, s.value) for s in fields.samples("server", info, {})] == [("redis_uptime_seconds", 5.0)]


def test_units_words_and_absent_values() -> None:
    info = {
        "used_memory_peak_perc": "87.50%",
        "latest_fork_usec": 250,
        "instantaneous_input_kbps": 2.0,
        "rdb_last_bgsave_status": "err",
        "rdb_last_bgsave_time_sec": -1,
        "master_failover_state": "waiting-for-sync",
        "slave0": {"ip": "::1", "port": 6380, "state": "wait_bgsave", "offset": 0, "lag": -1, "type": "replica"},
    }
    got = {s.metric: (s.value, dict(s.labels)) for s in fields.samples("server", info, {})}
    replica = {"replica": "[::1]:6380"}
    assert got == {
        "redis_memory_peak_ratio": (0.875, {}),
        "redis_latest_fork_duration_seconds": (pytest.approx(0.00025), {}),
        "redis_instantaneous_input_bytes_per_second": (2048.0, {}),
        "redis_rdb_last_bgsave_success": (0.0, {}),
        "redis_failover_in_progress": (1.0, {}),
        "redis_replica_online": (0.0, replica),
        "redis_replica_offset_bytes": (0.0, replica),
    }
    assert fields.unknown(info) == []


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["get", "user:1"], "GET ?"),
        (["AUTH", "nms", "hunter2"], "AUTH ? ?"),
        (["HELLO", "3", "AUTH", "nms", "hunter2"], "HELLO ? ? ? ?"),
        (["config", "set", "requirepass", "hunter2"], "CONFIG SET ? ?"),
        (["ACL", "SETUSER", "nms", ">hunter2"], "ACL SETUSER ? ?"),
        (["ACL", "hunter 2"], "ACL ?"),
        (["hunter 2"], "?"),
        (["DEL", *map(str, range(30))], "DEL ? ? ? ? ? ? ? ? (and 22 more)"),
        ([], "?"),
    ],
)
def test_commands_are_masked(words: list[str], shown: str) -> None:
    assert masked(words) == shown


@given(st.sampled_from(["SET", "AUTH", "EVAL", "MIGRATE"]), st.lists(st.text(min_size=1), max_size=40))
def test_no_argument_is_ever_shown(name: str, arguments: list[str]) -> None:
    shown = masked([name, *arguments]).split()
    assert shown[0] == name
    assert shown[1:].count("?") == min(len(arguments), 8)
    assert set(shown[1:9]) <= {"?"}


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"sentinels": ["a:1"]}, "sentinels and master_name belong together"),
        ({"master_name": "main"}, "sentinels and master_name belong together"),
        ({"sentinels": ["a:b"], "master_name": "main"}, "is not host:port"),
        ({"sentinels": ["a:1"], "master_name": "main", "cluster": True}, "exclude each other"),
        ({"unix_socket": "/tmp/s", "tls": True}, "no TLS"),
        ({"tls_cert": "/c"}, "tls_cert and tls_key belong together"),
        ({"username": "nms"}, "needs a password"),
        ({"cluster": True, "db": 2}, "database 0"),
        ({"password": "hunter2"}, "env:NAME"),
        ({"port": 0}, "greater than or equal to 1"),
        ({"slowlog_limit": 5000}, "less than or equal to 1024"),
        ({"hots": "x"}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault) as error:
        RedisTarget.model_validate(settings)
    assert "hunter2" not in str(error.value)


def test_addresses_of_sentinels() -> None:
    target = RedisTarget(sentinels=("a", "b:1", "[::1]:2", "[::2]"), master_name="main")
    assert target.sentinel_addresses == (("a", 26379), ("b", 1), ("::1", 2), ("::2", 26379))
