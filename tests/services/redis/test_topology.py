"""Replicas, sentinels and a cluster, all real."""

from collections.abc import Callable
from typing import Any

import pytest

from nms_workers.errors import Refused, Unreachable
from nms_workers.records import Entity, Link, Sample
from tests.conftest import StartServer
from tests.servers import Server
from tests.services.redis.conftest import Connect, Plain
from tests.services.redis.support import await_true, events, make_cluster, read, value, values

FreePort = Callable[[], int]


def replica_of(master: Server, **more: str) -> dict[str, str]:
    """Settings of a replica that follows at once."""
    return {
        "replicaof": f"{master.host} {master.port}",
        "masterauth": f'"{master.password}"',
        "repl-diskless-sync-delay": "0",
        "appendonly": "no",  # a replica that still writes its first append-only file does not stop when told to
    } | more


def sentinel_conf(master: Server) -> dict[str, Any]:
    """Settings of a sentinel that fails over within seconds."""
    return {
        "sentinel": [
            f"monitor main {master.host} {master.port} 1",
            f'auth-pass main "{master.password}"',
            "down-after-milliseconds main 500",
            "failover-timeout main 3000",
        ]
    }


@pytest.fixture
def pair(start_server: StartServer, plain: Plain) -> tuple[Server, Server]:
    """A master and its replica, in sync."""
    master = start_server("redis-7.0", conf={"repl-diskless-sync-delay": "0"})
    replica = start_server("redis-7.0", conf=replica_of(master))
    other = plain(replica)
    await_true(lambda: other.info("replication")["master_link_status"] == "up")
    return master, replica


def test_a_master_tells_of_its_replica(pair: tuple[Server, Server], connect: Connect, plain: Plain) -> None:
    master, replica = pair
    plain(master).set("a", 1)
    client, address = connect(master), f"127.0.0.1:{replica.port}"
    records = await_true(lambda: _if_acknowledged(read(client, "server"), address))
    assert value(records, "redis_connected_replicas") == 1
    assert value(records, "redis_replica_lag_seconds", replica=address) <= 2
    assert 0 <= value(records, "redis_replica_behind_bytes", replica=address) < 1000
    assert Entity("replica", address, {"state": "online"}) in records
    assert Link("replicates", ("replica", address), ("server", f"127.0.0.1:{master.port}")) in records


def _if_acknowledged(records: list[Any], address: str) -> list[Any]:
    labels = (("replica", address),)
    online = values(records, "redis_replica_online").get(labels)
    return records if online == 1 and values(records, "redis_replica_offset_bytes")[labels] > 0 else []


def test_a_lost_master_fires_and_resolves(pair: tuple[Server, Server], connect: Connect) -> None:
    master, replica = pair
    client = connect(replica)
    records = read(client, "server")
    assert value(records, "redis_master") == 0
    assert value(records, "redis_master_link_up") == 1
    assert (
        Link("replicates", ("server", f"127.0.0.1:{replica.port}"), ("server", f"127.0.0.1:{master.port}")) in records
    )
    assert [event.state for event in events(records, "master_link_down")] == ["resolved"]
    assert not events(read(client, "server"), "master_link_down")
    master.kill()
    (fired,) = await_true(lambda: events(read(client, "server"), "master_link_down"))
    assert fired.state == "firing"
    assert str(master.port) in fired.message
    master.start()
    (resolved,) = await_true(lambda: events(read(client, "server"), "master_link_down"))
    assert (resolved.state, resolved.fingerprint) == ("resolved", fired.fingerprint)


def test_a_change_of_role_is_told(pair: tuple[Server, Server], connect: Connect, plain: Plain) -> None:
    _, replica = pair
    client = connect(replica)
    assert not events(read(client, "server"), "role_change")
    plain(replica).replicaof("NO", "ONE")
    (event,) = events(read(client, "server"), "role_change")
    assert "was a replica and is a master" in event.message
    assert not events(read(client, "server"), "role_change")


def test_flushdb_of_a_replica_is_refused(pair: tuple[Server, Server], connect: Connect, plain: Plain) -> None:
    master, replica = pair
    plain(master).set("a", 1)
    other = plain(replica)
    await_true(other.dbsize)
    with pytest.raises(Refused, match="read-only replica"):
        connect(replica).flush()
    assert plain(master).dbsize() == 1


def test_sentinels_find_the_master_and_its_successor(
    pair: tuple[Server, Server], start_server: StartServer, connect: Connect, plain: Plain, free_port: FreePort
) -> None:
    master, replica = pair
    sentinel = start_server("redis-7.0", conf=sentinel_conf(master), arguments=["--sentinel"])
    watch = plain(sentinel)
    await_true(lambda: watch.sentinel_slaves("main"))
    dead = f"127.0.0.1:{free_port()}"
    client = connect(
        sentinels=[dead, f"127.0.0.1:{sentinel.port}"],
        master_name="main",
        password="env:TEST_REDIS_PASSWORD",
        sentinel_password="env:TEST_REDIS_PASSWORD",
    )
    connect(master)  # sets the password that both share
    records = read(client, "server")
    assert values(records, "redis_replica_online").keys() == {(("replica", f"127.0.0.1:{replica.port}"),)}
    assert not events(records, "failover")
    master.kill()
    with pytest.raises(Unreachable):
        read(client, "server")
    new = ["127.0.0.1", str(replica.port)]
    await_true(lambda: list(map(str, watch.sentinel_get_master_addr_by_name("main"))) == new)
    records = read(client, "server")
    assert value(records, "redis_master") == 1
    (event,) = events(records, "failover")
    assert event.attributes == {"from": f"127.0.0.1:{master.port}", "to": f"127.0.0.1:{replica.port}"}


def test_an_unknown_master_name_is_refused(
    start_server: StartServer, session_server: StartServer, connect: Connect
) -> None:
    sentinel = start_server("redis-7.0", conf=sentinel_conf(session_server("redis-7.0")), arguments=["--sentinel"])
    connect(sentinel)
    client = connect(
        sentinels=[f"127.0.0.1:{sentinel.port}"], master_name="wrong", sentinel_password="env:TEST_REDIS_PASSWORD"
    )
    with pytest.raises(Refused, match="no sentinel knows a master 'wrong'"):
        read(client, "server")


@pytest.fixture
def cluster(start_server: StartServer, plain: Plain, free_port: FreePort) -> list[Server]:
    """Three masters, and a replica of the first."""
    conf = {
        "cluster-enabled": "yes",
        "cluster-node-timeout": "1000",
        "appendonly": "no",
        "repl-diskless-sync-delay": "0",
    }
    servers = []
    for _ in range(4):
        own = {"cluster-port": str(free_port()), "masterauth": '"correct horse"'}
        servers.append(start_server("redis-7.0", conf=conf | own))
    *masters, replica = [plain(server) for server in servers]
    make_cluster(masters, replicas=[(replica, 0)])
    return servers


def test_every_node_of_a_cluster_is_read(cluster: list[Server], connect: Connect, plain: Plain) -> None:
    addresses = {f"127.0.0.1:{server.port}" for server in cluster}
    client = connect(cluster[0], cluster=True, key_patterns=("{a}*",))
    tagged = {f"{{a}}{i}": i for i in range(4)}  # one slot, one master
    owner = next(s for s in cluster[:3] if _owns(plain(s), "{a}"))
    plain(owner).mset(tagged)
    records = read(client, "server")
    assert {dict(labels)["node"] for labels in values(records, "redis_uptime_seconds")} == addresses
    assert set(values(records, "redis_cluster_ok").values()) == {1}
    assert values(records, "redis_cluster_nodes") == {
        (("role", "master"), ("state", "ok")): 3,
        (("role", "replica"), ("state", "ok")): 1,
    }
    nodes = {r.key: r.attributes for r in records if isinstance(r, Entity) and r.kind == "cluster_node"}
    assert {one["address"] for one in nodes.values()} == addresses
    assert sum(one["slots"] for one in nodes.values()) == 16384
    (link,) = [r for r in records if isinstance(r, Link) and r.a[0] == "cluster_node"]
    assert nodes[link.a[1]]["address"] == f"127.0.0.1:{cluster[3].port}"
    assert nodes[link.b[1]]["address"] == f"127.0.0.1:{cluster[0].port}"
    assert sum(one.keys for one in client.get_keyspace_info()) == 4
    assert value(read(client, "keys"), "redis_key_pattern_keys", db="0", pattern="{a}*") == 4
    assert {usage.node for usage in client.get_memory_usage()} == addresses
    assert client.analyze_memory_usage().sampled == 4
    assert client.flush() == (4, 0)


def _owns(node: Any, key: str) -> bool:
    slot = node.cluster("KEYSLOT", key)
    mine = node.execute_command("CLUSTER MYID")
    spans = next(n["slots"] for n in node.cluster("NODES").values() if n["node_id"] == mine)
    return any(int(span[0]) <= slot <= int(span[-1]) for span in spans)


def test_a_dead_node_costs_only_itself(cluster: list[Server], connect: Connect) -> None:
    client = connect(cluster[0], cluster=True)
    read(client, "server")
    cluster[0].kill()  # also the node that the settings name
    records: list[Any] = []

    def told() -> bool:
        try:
            records[:] = read(client, "server")
        except Unreachable:  # until the cluster knows, the dead node is still asked
            return False
        return bool(events(records, "cluster_nodes_failed"))

    await_true(told)
    (event,) = events(records, "cluster_nodes_failed")
    assert event.state == "firing"
    assert str(cluster[0].port) in event.message
    alive = {f"127.0.0.1:{server.port}" for server in cluster[1:]}
    assert {dict(labels)["node"] for labels in values(records, "redis_uptime_seconds")} == alive
    assert any(isinstance(r, Sample) and r.metric == "redis_cluster_slots" for r in records)
