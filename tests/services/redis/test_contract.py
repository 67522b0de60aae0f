"""Everything that real servers make the service emit is declared in `metrics.csv`, and the other way round."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from nms_workers.records import Record, Sample
from nms_workers.services.redis.client import RedisClient
from nms_workers.services.redis.service import Redis
from tests.conftest import StartServer
from tests.metric_contract import never_emitted, undeclared
from tests.servers import Server
from tests.services.redis.conftest import Connect, Plain
from tests.services.redis.support import MATRIX, await_true, make_cluster, read

NEEDS_REDIS_8 = {  # newer than the servers of the tests
    "redis_io_thread_clients",
    "redis_io_thread_reads_total",
    "redis_io_thread_writes_total",
    "redis_master_link_down_seconds_total",
    "redis_master_link_up_seconds",
    "redis_master_sync_attempts",
    "redis_master_sync_attempts_total",
    "redis_memory_peak_time_seconds",
}
NEEDS_VALKEY_WITH_TLS = {"redis_tls_certificate_expires_seconds"}  # the build of the tests has none

QUIET = {"appendonly": "no", "repl-diskless-sync-delay": "0"}


def test_what_is_emitted_and_what_is_declared(
    start_server: StartServer, connect: Connect, plain: Plain, free_port: Callable[[], int]
) -> None:
    records: list[Record] = []
    for name in MATRIX:
        records += _busy_server(start_server, connect, plain, name)
    records += _loading_server(start_server, connect, plain)
    for name in ("redis-7.0", "valkey-9"):
        records += _syncing_pair(start_server, connect, plain, name)
        records += _without_node(_cluster(start_server, connect, plain, free_port, name))
    assert undeclared(Redis, records) == []
    assert set(never_emitted(Redis, records)) == NEEDS_REDIS_8 | NEEDS_VALKEY_WITH_TLS


def _everything(client: RedisClient) -> Iterator[Record]:
    for poll in Redis.polls():
        yield from read(client, poll)


def _busy_server(start_server: StartServer, connect: Connect, plain: Plain, name: str) -> list[Record]:
    """All of the polls, with an append-only file, slow commands, and a save under way."""
    conf = {"slowlog-log-slower-than": "0", "latency-monitor-threshold": "1"}
    server = start_server(name, conf=conf | ({"io-threads": "2"} if name == "valkey-9" else {}))
    other = plain(server)
    other.mset({f"user:{i}": i for i in range(100)})
    other.expire("user:1", 1000)
    other.get("user:1")
    other.eval("local s = 0; for i = 1, 1000000 do s = s + i end; return s", 0)
    if name == "valkey-9":
        other.hset("hash", "field", 1)
        other.execute_command("HEXPIRE", "hash", 1000, "FIELDS", 1, "field")
    await_true(lambda: other.info("persistence")["aof_rewrite_in_progress"] == 0)
    other.bgrewriteaof()
    await_true(lambda: other.info("persistence")["aof_last_rewrite_time_sec"] >= 0)
    client = connect(server, key_patterns=("user:*",))
    records: list[Record] = []
    for start, running in ((other.bgrewriteaof, "aof_current_rewrite"), (other.bgsave, "rdb_current_bgsave")):
        other.config_set("rdb-key-save-delay", 10_000)  # microseconds for each key
        start()
        await_true(lambda field=f"{running}_time_sec": other.info("persistence")[field] >= 0)
        records += read(client, "server")
        other.config_set("rdb-key-save-delay", 0)
        await_true(lambda field=f"{running}_time_sec": other.info("persistence")[field] < 0)
    return [*records, *_everything(client)]


def _loading_server(start_server: StartServer, connect: Connect, plain: Plain) -> list[Record]:
    server = start_server("redis-7.0", conf=QUIET)
    other = plain(server)
    other.mset({f"k{i}": "x" * 100 for i in range(2000)})
    for setting, number in {"key-load-delay": 1000, "loading-process-events-interval-bytes": 1024}.items():
        other.config_set(setting, number)
    loader = threading.Thread(target=plain(server).execute_command, args=("DEBUG", "RELOAD"))
    loader.start()
    try:
        await_true(lambda: other.info("persistence")["loading"])
        return read(connect(server), "server")
    finally:
        loader.join()


def _syncing_pair(start_server: StartServer, connect: Connect, plain: Plain, name: str) -> list[Record]:
    """A replica while it syncs, in sync, and without its master; and the master."""
    master = start_server(name, conf=QUIET | {"rdbcompression": "no"})
    plain(master).mset({f"k{i}": "x" * 300 for i in range(500)})  # sent in several pieces
    plain(master).config_set("min-replicas-to-write", 1)
    plain(master).config_set("rdb-key-save-delay", 2000)
    follow = {"replicaof": f"{master.host} {master.port}", "masterauth": f'"{master.password}"'}
    replica = start_server(name, conf=QUIET | follow)
    client, other = connect(replica), plain(replica)
    await_true(lambda: other.info("replication").get("master_sync_total_bytes", -1) >= 0)
    records = read(client, "server")
    plain(master).config_set("rdb-key-save-delay", 0)
    await_true(lambda: other.info("replication")["master_link_status"] == "up")
    await_true(lambda: plain(master).info("replication")["slave0"]["state"] == "online")
    records += [*read(client, "server"), *read(connect(master), "server")]
    other.replicaof("NO", "ONE")
    records += read(client, "server")
    other.replicaof(master.host, master.port)
    await_true(lambda: other.info("replication")["master_link_status"] == "up")
    master.kill()
    await_true(lambda: other.info("replication")["master_link_status"] == "down")
    return records + read(client, "server")


def _cluster(
    start_server: StartServer, connect: Connect, plain: Plain, free_port: Callable[[], int], name: str
) -> list[Record]:
    def node() -> Server:
        return start_server(name, conf=QUIET | {"cluster-enabled": "yes", "cluster-port": str(free_port())})

    servers = [node() for _ in range(3)]
    nodes: list[Any] = [plain(server) for server in servers]
    make_cluster(nodes)
    for one in nodes:
        key = next(key for key in map(str, range(1000)) if _takes(one, key))
        assert one.get(key) == "1"
    return list(_everything(connect(servers[0], cluster=True)))


def _takes(node: Any, key: str) -> bool:
    mine = node.execute_command("CLUSTER MYID")
    slot = node.cluster("KEYSLOT", key)
    spans = next(one["slots"] for one in node.cluster("NODES").values() if one["node_id"] == mine)
    return any(int(span[0]) <= slot <= int(span[-1]) for span in spans) and node.set(key, 1)


def _without_node(records: Iterable[Record]) -> Iterator[Record]:
    """In a cluster every series of a server has the label `node` besides those declared."""
    for record in records:
        if isinstance(record, Sample):
            yield Sample(record.metric, record.value, {k: v for k, v in record.labels.items() if k != "node"})
