"""Redis and Valkey: what is polled, and the one action."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from pydantic import NonNegativeInt

from nms_workers.change import Change, about_to_change
from nms_workers.errors import Refused, TargetError
from nms_workers.records import Entity, Event, Record, Sample
from nms_workers.service import Service, action, poll
from nms_workers.services.redis import clientlist, fields, replication, slowlog
from nms_workers.services.redis.analysis import count_keys
from nms_workers.services.redis.client import RedisClient, databases
from nms_workers.services.redis.connection import Argument, NotOffered, NotPermitted, Server
from nms_workers.services.redis.target import RedisTarget

Labels = dict[str, str]

_PINGS = 5
_BUCKETS = 64  # of a latency histogram: powers of two microseconds


class Redis(Service):
    """Key-value store: reads Redis and Valkey servers, sentinel-managed masters and whole clusters.

    In a cluster every series has the label `node` besides those in `metrics.csv`.
    """

    kind = "redis"
    Target = RedisTarget
    client = RedisClient
    port = 6379

    @poll(every="15s", enumerates=("server", "replica", "cluster_node", "replicates"))
    def server(self, client: RedisClient) -> Iterator[Record]:
        """Everything INFO tells of the server, its replicas and its cluster."""
        if client.target.cluster:
            yield from replication.of_cluster(client, client.cluster_nodes())
        yield from _each(client, _server)

    @poll(every="60s")
    def commands(self, client: RedisClient) -> Iterator[Record]:
        """Calls, time, failures and latency of each command; error replies by kind."""
        yield from _each(client, _commands)

    @poll(every="60s", enumerates=("database",))
    def keyspace(self, client: RedisClient) -> Iterator[Record]:
        """Keys, expiring keys and mean time to live of each database."""
        seen: list[dict[str, Any]] = []

        def read(_: RedisClient, server: Server, labels: Labels) -> Iterator[Record]:
            info = server.info("keyspace")
            seen.append(info)
            yield from fields.samples("keyspace", info, labels)

        yield from _each(client, read)
        yield from (Entity("database", f"db{one.db}") for one in databases(seen))

    @poll(every="60s")
    def memory(self, client: RedisClient) -> Iterator[Record]:
        """Where the memory of keys and hash tables goes, by MEMORY STATS."""
        yield from _each(client, _memory)

    @poll(every="60s", volatile=True)
    def clients(self, client: RedisClient) -> Iterator[Record]:
        """Connections by user, name and flag; idle times and buffers, by CLIENT LIST."""
        yield from _each(client, _clients)

    @poll(every="60s")
    def slowlog(self, client: RedisClient) -> Iterator[Record]:
        """Durations in the slow log as samples, its new entries as events."""
        yield from _each(client, _slowlog)

    @poll(every="60s")
    def latency(self, client: RedisClient) -> Iterator[Record]:
        """Round trips of PING, and spikes by the latency monitor."""
        yield from _each(client, _latency)

    @poll(every="60s", volatile=True)
    def histogram(self, client: RedisClient) -> Iterator[Record]:
        """Latency histograms of the busiest commands."""
        yield from _each(client, _histogram)

    @poll(every="5m")
    def keys(self, client: RedisClient) -> Iterator[Record]:
        """How many keys match each of the target's `key_patterns`, by a bounded scan."""
        target = client.target
        for pattern in target.key_patterns:
            counts = [count_keys(server, pattern, target.scan_limit) for server in client.masters()]
            labels = {"db": str(target.db), "pattern": pattern}
            yield Sample("redis_key_pattern_keys", sum(keys for keys, _ in counts), labels)
            yield Sample("redis_key_pattern_complete", all(complete for _, complete in counts), labels)

    @action(
        confirm=True, serialize_by="db", looks_first=True, idempotent=False
    )  # again, it would delete what was written since
    def flushdb(self, client: RedisClient, db: NonNegativeInt | None = None, asynchronous: bool = True) -> Change:
        """Delete every key of a database, by default the target's own; in a cluster on every master."""
        number = client.target.db if db is None else db
        if keys := client.count(number):
            about_to_change({"keys": keys})
        before, after = client.flush(number, asynchronous=asynchronous)
        if not before:
            return Change(changed=False, message=f"database {number} was empty", before={"keys": 0}, after={"keys": 0})
        message = f"deleted {before} keys of database {number}"
        if after:
            message += f"; {after} were written meanwhile"
        return Change(changed=True, message=message, before={"keys": before}, after={"keys": after})


def _each(client: RedisClient, read: Callable[[RedisClient, Server, Labels], Iterator[Record]]) -> Iterator[Record]:
    """Read every server of the target; one that fails costs only its own records.

    Raises:
        TargetError: the first failure, when all were tried.
    """
    failure: TargetError | None = None
    for server in client.servers():
        try:
            yield from read(client, server, {"node": server.address} if client.target.cluster else {})
        except TargetError as exc:
            failure = failure or exc
            client.failing.add(server)
        else:
            client.failing.discard(server)
    if failure:
        raise failure


class _Parts:
    """Asks for the parts of a read: one that the server does not offer or permit is left out and told once."""

    def __init__(self, client: RedisClient, server: Server, read: int = 0) -> None:
        self._client, self._server = client, server
        self._refused: list[Refused] = []
        self._read = read  # how many parts the read has already

    def ask(self, *command: Argument) -> Any:
        """The answer, or None when this part is left out."""
        try:
            answer = self._server.call(*command)
        except NotOffered as exc:
            if not exc.subcommand:  # an unknown subcommand is an older server, an unknown command was renamed
                self._refused.append(exc)
            return None
        except NotPermitted as exc:
            self._refused.append(exc)
            return None
        self._read += 1
        return answer

    def left_out(self) -> Iterator[Event]:
        """An event for each part left out for the first time.

        Raises:
            Refused: nothing at all could be read.
        """
        if self._refused and not self._read:
            raise self._refused[0]
        for exc in self._refused:
            if not self._client.remember(f"left out: {exc.message}", now=True):
                yield Event("left_out", str(exc), severity="warning", fingerprint=f"left_out:{exc.message}")


def _server(client: RedisClient, server: Server, labels: Labels) -> Iterator[Record]:
    info = server.info("all")  # without the fields of modules
    yield from fields.samples("server", info, labels)
    about = {
        "version": info.get("valkey_version", info.get("redis_version", "")),
        "product": info.get("server_name", "redis"),
        "mode": info.get("server_mode", info.get("redis_mode", "")),
        "os": info.get("os", ""),
        "maxmemory_policy": info.get("maxmemory_policy", ""),
    }
    unknown = fields.unknown(info)
    yield Entity("server", server.address, about | {"role": replication.role_of(info), "unknown_fields": unknown[:100]})
    yield Sample("redis_server_info", 1, about | labels)
    yield Sample("redis_info_unknown_fields", len(unknown), labels)
    if looked := info.get("keyspace_hits", 0) + info.get("keyspace_misses", 0):
        yield Sample("redis_keyspace_hit_ratio", info["keyspace_hits"] / looked, labels)
    if "rdb_last_save_time" in info and "server_time_usec" in info:
        age = info["server_time_usec"] / 1e6 - info["rdb_last_save_time"]
        yield Sample("redis_rdb_last_save_age_seconds", max(age, 0.0), labels)
    yield from replication.of_server(client, server, info, labels)
    if info.get("cluster_enabled") == 1:
        yield from _cluster_info(client, server, labels)


def _cluster_info(client: RedisClient, server: Server, labels: Labels) -> Iterator[Record]:
    parts = _Parts(client, server, read=1)
    if cluster := parts.ask("CLUSTER INFO"):
        yield from fields.samples("cluster", cluster, labels)
        yield from replication.of_cluster_state(client, server, cluster)
    yield from parts.left_out()


def _commands(_: RedisClient, server: Server, labels: Labels) -> Iterator[Record]:
    for section in ("commandstats", "errorstats", "latencystats"):  # before 7.0 INFO takes one section at a time
        yield from fields.samples("commands", server.info(section), labels)


def _memory(client: RedisClient, server: Server, labels: Labels) -> Iterator[Record]:
    yield from fields.samples("memory", server.call("MEMORY STATS"), labels)


def _clients(client: RedisClient, server: Server, labels: Labels) -> Iterator[Record]:
    connected = server.info("clients").get("connected_clients", 0)
    limit = client.target.client_limit
    if connected > limit:
        message = f"{server.address} has {connected} clients, more than client_limit ({limit}): they are not listed"
        if not client.remember(f"too many clients of {server.address}", now=True):
            yield Event("left_out", message, severity="warning", fingerprint=f"left_out:clients:{server.address}")
        return
    client.remember(f"too many clients of {server.address}", now=False)
    yield from clientlist.summary(server.call("CLIENT LIST"), client.target.label_limit, labels)


def _slowlog(client: RedisClient, server: Server, labels: Labels) -> Iterator[Record]:
    parts = _Parts(client, server)
    length = parts.ask("SLOWLOG LEN")
    if length is not None:
        yield Sample("redis_slowlog_entries", length, labels)
    answer = parts.ask("SLOWLOG GET", client.target.slowlog_limit)
    if answer is not None:
        yield from _slow_commands(client, server, slowlog.parsed(answer), labels)
    config = parts.ask("CONFIG GET", "slowlog-*")
    if config:
        threshold = int(config["slowlog-log-slower-than"])
        if threshold >= 0:
            yield Sample("redis_slowlog_threshold_seconds", threshold / 1e6, labels)
        yield Sample("redis_slowlog_max_entries", int(config["slowlog-max-len"]), labels)
    yield from parts.left_out()


def _slow_commands(
    client: RedisClient, server: Server, entries: list[slowlog.SlowCommand], labels: Labels
) -> Iterator[Record]:
    if entries:
        durations = np.array([entry.seconds for entry in entries])
        yield Sample("redis_slowlog_duration_average_seconds", durations.mean(), labels)
        for quantile in (0.5, 0.95, 1.0):
            longest = np.quantile(durations, quantile)
            yield Sample("redis_slowlog_duration_seconds", longest, labels | {"quantile": f"{quantile:g}"})
    seen = client.remember(f"slow commands of {server.address}", {entry.fingerprint for entry in entries}) or ()
    for entry in reversed(entries):
        if entry.fingerprint in seen:
            continue
        attributes = {
            "command": entry.command,
            "seconds": entry.seconds,
            "client": entry.client,
            "client_name": entry.client_name,
            "node": server.address,
        }
        message = f"{entry.command} took {entry.seconds:.3f} s on {server.address}"
        fingerprint = f"{entry.fingerprint}:{server.address}"
        yield Event("slow_command", message, fingerprint=fingerprint, attributes=attributes, ts=entry.at)


def _latency(client: RedisClient, server: Server, labels: Labels) -> Iterator[Record]:
    parts = _Parts(client, server)
    for event, at, latest, longest, *_ in parts.ask("LATENCY LATEST") or ():
        of_event = labels | {"event": event}
        yield Sample("redis_latency_event_time_seconds", at, of_event)
        yield Sample("redis_latency_event_latest_seconds", latest / 1e3, of_event)
        yield Sample("redis_latency_event_max_seconds", longest / 1e3, of_event)
    trips = []
    for _ in range(_PINGS):  # after the first command: connecting is not measured
        start = time.perf_counter()
        if parts.ask("PING"):
            trips.append(time.perf_counter() - start)
    if trips:
        stats = {"min": min(trips), "average": sum(trips) / len(trips), "max": max(trips)}
        yield from (Sample("redis_ping_seconds", seconds, labels | {"stat": stat}) for stat, seconds in stats.items())
    yield from parts.left_out()


def _histogram(client: RedisClient, server: Server, labels: Labels) -> Iterator[Record]:
    parts = _Parts(client, server)
    answer = parts.ask("LATENCY HISTOGRAM") or []
    histograms = [(name, *_histogram_of(one)) for name, one in _pairs(answer)]
    busiest = sorted(histograms, key=lambda one: -one[1])[: client.target.label_limit]
    for name, _, buckets in busiest:
        for microseconds, calls in buckets[:_BUCKETS]:
            le = {"command": name, "le": f"{microseconds / 1e6:g}"}
            yield Sample("redis_command_latency_bucket_total", calls, labels | le)
    yield from parts.left_out()


def _histogram_of(answer: list[Any]) -> tuple[int, list[tuple[int, int]]]:
    """Calls, and (upper bound in microseconds, calls up to it) of one command."""
    found = dict(_pairs(answer))
    return found["calls"], list(_pairs(found["histogram_usec"]))


def _pairs(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)
