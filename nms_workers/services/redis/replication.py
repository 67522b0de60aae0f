"""Who replicates from whom: roles, links and what changed, by INFO and by the cluster's own view."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nms_workers.records import Entity, Event, Link, Record, Sample
from nms_workers.services.redis.client import RedisClient
from nms_workers.services.redis.connection import Server
from nms_workers.services.redis.results import ClusterNode
from nms_workers.services.redis.target import joined

_STATES = {"fail": "fail", "fail?": "pfail", "handshake": "handshake", "noaddr": "noaddr"}


def role_of(info: Mapping[str, Any]) -> str:
    """`master` or `replica`; whatever else the server calls itself."""
    role = str(info.get("role", ""))
    return "replica" if role == "slave" else role


def of_server(client: RedisClient, server: Server, info: Mapping[str, Any], labels: dict[str, str]) -> Iterator[Record]:
    """Links of a server to its replicas or its master, how far replicas are behind, and what changed.

    Args:
        info: fields of INFO, the replication section among them.
        labels: added to every sample.
    """
    replicas = [one for name, one in info.items() if name.startswith("slave") and isinstance(one, Mapping)]
    for replica in replicas:
        key = joined(str(replica["ip"]), int(replica["port"]))
        yield Entity("replica", key, {"state": str(replica.get("state", ""))})
        yield Link("replicates", ("replica", key), ("server", server.address))
        behind = int(info["master_repl_offset"]) - int(replica["offset"])
        yield Sample("redis_replica_behind_bytes", max(behind, 0), labels | {"replica": key})
    if "master_host" in info:
        master = joined(str(info["master_host"]), int(info["master_port"]))
        yield Link("replicates", ("server", server.address), ("server", master))
    yield from _changes(client, server, info)


def of_cluster(client: RedisClient, nodes: Sequence[ClusterNode]) -> Iterator[Record]:
    """The nodes of a cluster, their links, and whether some have failed."""
    known = {node.id for node in nodes}
    for node in nodes:
        attributes = {"address": joined(node.host, node.port), "role": node.role, "flags": list(node.flags)}
        yield Entity("cluster_node", node.id, attributes | {"slots": node.slots})
        if node.master_id in known:
            yield Link("replicates", ("cluster_node", node.id), ("cluster_node", node.master_id))
    states = {node.id: next((_STATES[flag] for flag in node.flags if flag in _STATES), "ok") for node in nodes}
    for (role, state), number in sorted(Counter((node.role, states[node.id]) for node in nodes).items()):
        yield Sample("redis_cluster_nodes", number, {"role": role, "state": state})
    failed = sorted(joined(node.host, node.port) for node in nodes if states[node.id] == "fail")
    message = f"failed nodes of the cluster: {', '.join(failed)}" if failed else ""
    yield from _lasting(client, "cluster_nodes_failed", "the cluster", message)


def of_cluster_state(client: RedisClient, server: Server, cluster: Mapping[str, Any]) -> Iterator[Event]:
    """Whether a node of a cluster takes queries, by its CLUSTER INFO."""
    state = cluster.get("cluster_state")
    message = "" if state == "ok" else f"{server.address} takes no queries: the state of the cluster is {state}"
    yield from _lasting(client, "cluster_down", server.address, message)


def _changes(client: RedisClient, server: Server, info: Mapping[str, Any]) -> Iterator[Event]:
    if client.target.sentinels:
        before = client.remember("master by sentinels", server.address)
        if before not in (None, server.address):
            message = f"{client.target.master_name} failed over from {before} to {server.address}"
            yield Event("failover", message, "warning", attributes={"from": before, "to": server.address})
    role = role_of(info)
    before = client.remember(f"role of {server.address}", role)
    if before not in (None, role):
        message = f"{server.address} was a {before} and is a {role}"
        yield Event("role_change", message, "warning", f"role_change:{server.address}")
    if role == "replica" or before == "replica":
        down = info.get("master_link_status", "up") != "up"
        message = f"{server.address} has no link to its master {info.get('master_host')}:{info.get('master_port')}"
        yield from _lasting(client, "master_link_down", server.address, message if down else "")


def _lasting(client: RedisClient, kind: str, subject: str, trouble: str) -> Iterator[Event]:
    """An event when a trouble begins, changes or ends. The first read always tells: an alarm may stand since before.

    Args:
        trouble: what is wrong, for people; empty when nothing is.
    """
    if client.remember(f"{kind} of {subject}", trouble) == trouble:
        return
    fingerprint = f"{kind}:{subject}"
    if trouble:
        yield Event(kind, trouble, "error", fingerprint, "firing")
    else:
        yield Event(kind, f"{subject}: no {kind.replace('_', ' ')}", "info", fingerprint, "resolved")
