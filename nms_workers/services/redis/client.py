"""The Redis client: finds the servers of a target and reads them with typed methods. Usable without the fleet.

client = RedisClient(RedisTarget(host="cache.example.net", password="env:CACHE_PASSWORD"))
print(client.get_memory_usage())
client.close()
"""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

from nms_workers.errors import ParseError, Refused, TargetError, Unreachable
from nms_workers.services.redis import analysis, results
from nms_workers.services.redis.connection import NotOffered, NotPermitted, Server
from nms_workers.services.redis.target import RedisTarget


class RedisClient:
    """One target: a single server, the master that sentinels name, or every node of a cluster.

    Connects when first used; safe to share between threads. Every method raises `Unreachable`, `AuthError`,
    `Timeout`, `ParseError` or `Refused`.
    """

    def __init__(self, target: RedisTarget) -> None:
        self.target = target
        self._lock = threading.Lock()
        self._servers: dict[tuple[str, int], Server] = {}
        self._sentinels = [Server(target, host, port, sentinel=True) for host, port in target.sentinel_addresses]
        self._nodes: tuple[results.ClusterNode, ...] = ()
        self.failing: set[Server] = set()  # read last: a dead node of a cluster costs the others no time
        self._remembered: dict[str, Any] = {}

    def close(self) -> None:
        """Let go of connections; the next use opens new ones."""
        with self._lock:
            for server in (*self._servers.values(), *self._sentinels):
                server.close()

    def remember(self, what: str, now: Any) -> Any:
        """What was remembered under this name before; None at first. Tells what changed between two reads."""
        with self._lock:
            before = self._remembered.get(what)
            self._remembered[what] = now
            return before

    def servers(self) -> list[Server]:
        """The servers to read: the server, the master that sentinels name, or the reachable nodes of the cluster.

        Raises:
            TargetError: no sentinel and no node could say.
        """
        if self.target.cluster:
            nodes = [self._server(node.host, node.port) for node in self.cluster_nodes() if node.reachable]
            return sorted(nodes, key=self.failing.__contains__)
        return [self._single()]

    def masters(self) -> list[Server]:
        """The servers that hold the data and take writes: each key is on one of them.

        Raises:
            TargetError: as `servers`.
        """
        if not self.target.cluster:
            return [self._single()]
        nodes = self.cluster_nodes()
        return [self._server(n.host, n.port) for n in nodes if n.reachable and n.role == "master" and n.slots]

    def cluster_nodes(self) -> tuple[results.ClusterNode, ...]:
        """The nodes of the cluster as its first answering node knows them, at most `max_nodes`.

        Raises:
            TargetError: no node answers; the error is that of the configured one.
        """
        known = [self._server(node.host, node.port) for node in self._nodes if node.reachable]
        first = self._server(self.target.host, self.target.port)
        error: TargetError | None = None
        for server in dict.fromkeys([first, *known]):
            try:
                nodes = _cluster_nodes(server)
            except TargetError as exc:
                error = error or exc
            else:
                self._nodes = nodes[: self.target.max_nodes]
                return self._nodes
        raise error or Unreachable("the cluster has no node")

    def get_info(self, section: str = "everything", node: str = "") -> dict[str, Any]:
        """Fields of `INFO` as the server names them; compound values (`db0`, `cmdstat_get`) are mappings.

        Args:
            section: one of the server's sections, `default`, `all` or `everything`.
            node: `host:port` of a node of a cluster; default: the first.
        """
        servers = [server for server in self.servers() if node in ("", server.address)]
        if not servers:
            raise Refused(f"{node} is no reachable node of this target")
        return servers[0].info(section)

    def get_memory_usage(self) -> tuple[results.MemoryUsage, ...]:
        """Memory of each server."""
        return tuple(_memory_usage(server) for server in self.servers())

    def get_keyspace_info(self) -> tuple[results.Database, ...]:
        """The databases that hold keys, by number."""
        return databases(server.info("keyspace") for server in self.masters())

    def get_command_stats(self) -> tuple[results.CommandStats, ...]:
        """What each command cost, the costliest first."""
        sums: dict[str, Counter[str]] = {}
        for server in self.servers():
            for name, stats in server.info("commandstats").items():
                sums.setdefault(name.removeprefix("cmdstat_"), Counter()).update(stats)
        found = [
            results.CommandStats(name, one["calls"], one["usec"] / 1e6, one["rejected_calls"], one["failed_calls"])
            for name, one in sums.items()
        ]
        return tuple(sorted(found, key=lambda one: -one.seconds))

    def analyze_memory_usage(self, sample: int = 1000, top: int = 20, separator: str = ":") -> results.MemoryAnalysis:
        """Where the memory of the target's database goes, from about `sample` keys of each master.

        Args:
            sample: how many keys are measured; each costs the server about 10 microseconds.
            top: how many of the biggest are named.
            separator: ends the prefix of a key.
        """
        sizes = analysis.KeySizes(separator)
        masters = self.masters()
        complete = [sizes.measure(server, sample) for server in masters]
        return results.MemoryAnalysis(
            keys=sum(server.call("DBSIZE") for server in masters),
            sampled=sizes.keys,
            complete=all(complete),
            bytes=sizes.bytes,
            biggest=sizes.biggest(top),
            by_prefix=sizes.by_prefix(),
            by_type=sizes.by_type(),
            doctor={server.address: str(_if_offered(server, "MEMORY DOCTOR") or "") for server in masters},
        )

    def count(self, db: int | None = None) -> int:
        """How many keys a database has, by default the target's own; in a cluster on all masters together."""
        return sum(int(server.call("DBSIZE")) for server in self._of(self.target.db if db is None else db))

    def flush(self, db: int | None = None, *, asynchronous: bool = True) -> tuple[int, int]:
        """Delete every key of a database, in a cluster on every master.

        Args:
            db: default: the target's own.
            asynchronous: the server frees the memory in the background.

        Returns:
            How many keys there were, and how many there are now: others may be writing.
        """
        before = after = 0
        for server in self._of(self.target.db if db is None else db):
            keys = server.call("DBSIZE")
            if keys:
                server.call("FLUSHDB", "ASYNC" if asynchronous else "SYNC")
                after += server.call("DBSIZE")
            before += keys
        return before, after

    def _of(self, db: int) -> Iterator[Server]:
        """Connections of every master to this database; one that is not kept ends after its turn."""
        for server in self.masters():
            if db == server.db:
                yield server
                continue
            with closing(Server(self.target, server.host, server.port, db=db)) as other:
                yield other

    def _single(self) -> Server:
        if self._sentinels:
            return self._server(*self._ask_sentinels())
        return self._server(self.target.host, self.target.port)

    def _ask_sentinels(self) -> tuple[str, int]:
        """Where the master is, by the first sentinel that knows.

        Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
        """
        name, error = self.target.master_name, None
        for sentinel in self._sentinels:
            try:
                address = sentinel.call("SENTINEL GET-MASTER-ADDR-BY-NAME", name)
            except TargetError as exc:
                error = error or exc
                continue
            if address:
                self._sentinels = sorted(
                    self._sentinels, key=lambda one: one is not sentinel
                )  # this one first next time
                return address[0], int(address[1])
        raise error or Refused(f"no sentinel knows a master {name!r}", hint="check master_name")

    def _server(self, host: str, port: int) -> Server:
        with self._lock:
            if (host, port) not in self._servers:
                self._servers[host, port] = Server(self.target, host, port, db=self.target.db)
            return self._servers[host, port]


def databases(answers: Iterable[dict[str, Any]]) -> tuple[results.Database, ...]:
    """The databases of one or more servers from their `INFO keyspace`, summed by number."""
    sums: dict[int, Counter[str]] = {}
    for info in answers:
        for name, one in info.items():
            number = name.removeprefix("db")
            if name != number and number.isdecimal():
                sums.setdefault(int(number), Counter()).update(
                    keys=one["keys"], expires=one["expires"], ttl=one["avg_ttl"] * one["expires"]
                )
    return tuple(
        results.Database(db, one["keys"], one["expires"], one["ttl"] / one["expires"] / 1000 if one["expires"] else 0.0)
        for db, one in sorted(sums.items())
    )


def _memory_usage(server: Server) -> results.MemoryUsage:
    info = server.info("memory")
    try:
        return results.MemoryUsage(
            node=server.address,
            used=info["used_memory"],
            peak=info["used_memory_peak"],
            rss=info["used_memory_rss"],
            limit=info["maxmemory"],
            policy=info["maxmemory_policy"],
            dataset=info["used_memory_dataset"],
            overhead=info["used_memory_overhead"],
            fragmentation_ratio=info["mem_fragmentation_ratio"],
            stats=_if_offered(server, "MEMORY STATS") or {},
        )
    except KeyError as exc:
        raise ParseError(f"INFO memory of {server.address} has no {exc}", hint="is it a Redis?") from None


def _if_offered(server: Server, command: str) -> Any:
    try:
        return server.call(command)
    except (NotOffered, NotPermitted):
        return None


def _cluster_nodes(server: Server) -> tuple[results.ClusterNode, ...]:
    try:
        return tuple(_cluster_node(address, node) for address, node in server.call("CLUSTER NODES").items())
    except (KeyError, ValueError, TypeError, AttributeError) as exc:
        message = f"CLUSTER NODES of {server.address} has a shape we do not know: {type(exc).__name__}"
        raise ParseError(message) from None


def _cluster_node(address: str, node: dict[str, Any]) -> results.ClusterNode:
    host, _, port = address.partition("@")[0].rpartition(":")
    flags = tuple(node["flags"].split(","))
    return results.ClusterNode(
        id=node["node_id"],
        host=host,
        port=int(port or 0),
        role="master" if "master" in flags else "replica",
        master_id=node["master_id"].strip("-"),
        flags=flags,
        slots=sum(int(span[-1]) - int(span[0]) + 1 for span in node["slots"]),
    )
