"""The client's own methods and the action, against real servers."""

import threading

import pytest

from nms_workers.change import Change
from nms_workers.errors import Refused
from nms_workers.jobs.preview import tried
from nms_workers.services.redis.results import KeyGroup
from nms_workers.services.redis.service import Redis
from tests.conftest import StartServer
from tests.services.redis.conftest import Connect, Plain
from tests.services.redis.support import MATRIX, await_true, read, value

every_server = pytest.mark.parametrize("name", MATRIX)


@every_server
def test_the_typed_methods(start_server: StartServer, connect: Connect, plain: Plain, name: str) -> None:
    server = start_server(name, conf={"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"})
    zero, four = plain(server), plain(server, db=4)
    zero.mset({f"k{i}": i for i in range(9)})
    four.set("a", 1, px=100_000)
    client = connect(server)
    info = client.get_info()
    assert info["maxmemory"] == 64 * 1024 * 1024
    assert info["db4"]["keys"] == 1
    (memory,) = client.get_memory_usage()
    assert (memory.limit, memory.policy) == (64 * 1024 * 1024, "allkeys-lru")
    assert memory.used >= memory.dataset > 0
    assert memory.stats["keys.count"] == 10
    first, second = client.get_keyspace_info()
    assert (first.db, first.keys, first.expires) == (0, 9, 0)
    assert (second.db, second.keys, second.expires) == (4, 1, 1)
    stats = {one.command: one for one in client.get_command_stats()}
    assert stats["mset"].calls == 1
    assert 0 < stats["mset"].seconds == stats["mset"].seconds_per_call < 1
    with pytest.raises(Refused, match="no reachable node"):
        client.get_info(node="10.0.0.1:1")


@every_server
def test_where_the_memory_goes(start_server: StartServer, connect: Connect, plain: Plain, name: str) -> None:
    server = start_server(name)
    other = plain(server)
    other.mset({f"session:{i}": "x" * 100 for i in range(300)} | {f"cache:{i}": "y" * 1000 for i in range(100)})
    other.hset("big", mapping={f"f{i}": "z" * 500 for i in range(1000)})
    analysis = connect(server).analyze_memory_usage(sample=10_000, top=3)
    assert (analysis.keys, analysis.sampled, analysis.complete) == (401, 401, True)
    assert analysis.biggest[0].key == "big"
    assert analysis.biggest[0].bytes == other.memory_usage("big")
    assert len(analysis.biggest) == 3
    assert [(group.name, group.keys) for group in analysis.by_prefix] == [("", 1), ("cache", 100), ("session", 300)]
    assert {group.name: group.keys for group in analysis.by_type} == {"hash": 1, "string": 400}
    assert sum(group.bytes for group in analysis.by_prefix) == analysis.bytes
    assert "Sam" in next(iter(analysis.doctor.values()))
    part = connect(server).analyze_memory_usage(sample=50)
    assert not part.complete
    assert 50 <= part.sampled < 100
    assert all(isinstance(group, KeyGroup) for group in part.by_prefix)


def flush(client: object, **arguments: object) -> Change:
    action = Redis.actions()["flushdb"]
    return action.run(client, **action.validate(arguments))


def test_flushdb_must_be_confirmed() -> None:
    assert Redis.actions()["flushdb"].confirm


@every_server
@pytest.mark.parametrize("asynchronous", [True, False])
def test_flushdb_empties_one_database(
    start_server: StartServer, connect: Connect, plain: Plain, name: str, asynchronous: bool
) -> None:
    server = start_server(name)
    zero, seven = plain(server), plain(server, db=7)
    zero.mset({"a": 1, "b": 2})
    seven.mset({"a": 1, "b": 2, "c": 3})
    client = connect(server)
    change = flush(client, db=7, asynchronous=asynchronous)
    assert (change.changed, change.before, change.after) == (True, {"keys": 3}, {"keys": 0})
    assert (zero.dbsize(), seven.dbsize()) == (2, 0)
    assert not flush(client, db=7).changed
    assert flush(client).before == {"keys": 2}  # the target's own database
    assert zero.dbsize() == 0


def test_a_dry_run_of_flushdb_counts_and_deletes_nothing(
    start_server: StartServer, connect: Connect, plain: Plain
) -> None:
    server = start_server("redis-7.0")
    seven, action = plain(server, db=7), Redis.actions()["flushdb"]
    seven.mset({"a": 1, "b": 2, "c": 3})
    client = connect(server)
    would, empty = (tried(action, lambda: client, action.validate({"db": db})) for db in (7, 8))
    assert would is not None
    assert (would.changed, would.before) == (True, {"keys": 3})
    assert seven.dbsize() == 3
    assert empty is not None
    assert (empty.changed, empty.message) == (False, "database 8 was empty")


def test_flushdb_of_a_database_that_is_not(start_server: StartServer, connect: Connect) -> None:
    client = connect(start_server("redis-7.0"))
    with pytest.raises(Refused, match="out of range"):
        flush(client, db=99)
    with pytest.raises(Refused, match="db"):
        flush(client, db=-1)


def test_flushdb_without_the_right(start_server: StartServer, connect: Connect, plain: Plain, monkeypatch) -> None:
    server = start_server("redis-7.0")
    monkeypatch.setenv("TEST_REDIS_USER_PASSWORD", "weak")
    plain(server).acl_setuser("nms", enabled=True, passwords=["+weak"], commands=["+dbsize"])
    plain(server).set("a", 1)
    client = connect(server, username="nms", password="env:TEST_REDIS_USER_PASSWORD")
    with pytest.raises(Refused, match=r"ACL SETUSER nms \+flushdb"):
        flush(client)
    assert plain(server).dbsize() == 1


def test_one_client_in_many_threads(session_server: StartServer, connect: Connect, plain: Plain) -> None:
    server = session_server("redis-7.0")
    client = connect(server)
    results: list[float] = []

    def work() -> None:
        results.extend(value(read(client, "server"), "redis_max_clients") for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(20)]
    before = plain(server).info("clients")["connected_clients"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [10_000] * 100
    assert plain(server).info("clients")["connected_clients"] - before <= 10  # our pool, and what this test opened


def test_a_closed_client_lets_go_and_may_be_used_again(
    start_server: StartServer, connect: Connect, plain: Plain
) -> None:
    server = start_server("redis-7.0")
    client, other = connect(server), plain(server)
    read(client, "server")
    assert other.info("clients")["connected_clients"] == 2
    client.close()
    await_true(lambda: other.info("clients")["connected_clients"] == 1)
    assert value(read(client, "server"), "redis_connected_clients") == 2
