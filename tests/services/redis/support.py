"""How the tests of this service read and wait."""

from collections.abc import Iterable
from typing import Any

import redis

from nms_workers.records import Record
from nms_workers.services.redis.client import RedisClient
from nms_workers.services.redis.service import Redis
from tests.servers import REDIS as MATRIX
from tests.services.records import await_true, events, value, values

__all__ = ["MATRIX", "await_true", "events", "make_cluster", "read", "value", "values"]


def read(client: RedisClient, poll: str) -> list[Record]:
    """Every record of one run of a poll."""
    return list(Redis.polls()[poll].run(client))


def make_cluster(nodes: list[Any], replicas: Iterable[tuple[Any, int]] = ()) -> None:
    """Join plain connections to a cluster whose `nodes` share the slots; `replicas` are (connection, index of node)."""
    first, share = nodes[0], 16384 // len(nodes)
    kwargs = first.connection_pool.connection_kwargs
    everyone = [*nodes, *(replica for replica, _ in replicas)]
    for i, node in enumerate(nodes):
        end = 16383 if node is nodes[-1] else (i + 1) * share - 1
        node.execute_command("CLUSTER ADDSLOTSRANGE", i * share, end)
    for node in everyone[1:]:
        bus = node.config_get("cluster-port")["cluster-port"]
        own = node.connection_pool.connection_kwargs
        first.execute_command("CLUSTER MEET", kwargs["host"], own["port"], bus)
    await_true(lambda: all(int(node.cluster("INFO")["cluster_known_nodes"]) == len(everyone) for node in everyone))
    for replica, i in replicas:
        master = nodes[i].execute_command("CLUSTER MYID")
        await_true(lambda r=replica, m=master: _replicates(r, m))
    await_true(lambda: all(node.cluster("INFO")["cluster_state"] == "ok" for node in everyone))


def _replicates(replica: Any, master: str) -> bool:
    try:
        replica.execute_command("CLUSTER REPLICATE", master)
    except redis.ResponseError:  # it has not heard of the master yet
        return False
    return True
