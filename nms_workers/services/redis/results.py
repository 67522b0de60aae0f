"""What the methods of `RedisClient` return. Sizes are bytes, durations seconds."""

from typing import Any

import msgspec


class ClusterNode(msgspec.Struct, frozen=True):
    """One line of `CLUSTER NODES`.

    Args:
        id: 40 hexadecimal digits, for as long as the node lives.
        address: `host:port` it is reached at; empty when the cluster does not know.
        role: `master` or `replica`.
        master_id: the master of a replica, otherwise empty.
        flags: as the cluster tells them, `fail?` for a suspected failure.
        slots: how many of the 16384 hash slots it serves.
    """

    id: str
    host: str
    port: int
    role: str
    master_id: str
    flags: tuple[str, ...]
    slots: int

    @property
    def reachable(self) -> bool:
        """Whether the cluster takes it for alive and knows its address."""
        return bool(self.host) and self.port > 0 and not {"fail", "noaddr", "handshake"} & set(self.flags)


class MemoryUsage(msgspec.Struct, frozen=True):
    """Memory of one server.

    Args:
        stats: `MEMORY STATS` as the server names it; empty when it is not permitted.
    """

    node: str
    used: int
    peak: int
    rss: int
    limit: int
    policy: str
    dataset: int
    overhead: int
    fragmentation_ratio: float
    stats: dict[str, Any]


class Database(msgspec.Struct, frozen=True):
    """One database; in a cluster the sum over its masters, the mean time to live weighted by keys."""

    db: int
    keys: int
    expires: int
    average_ttl: float


class CommandStats(msgspec.Struct, frozen=True):
    """What one command cost since the start or the last `CONFIG RESETSTAT`; in a cluster the sum over its nodes."""

    command: str
    calls: int
    seconds: float
    rejected: int
    failed: int

    @property
    def seconds_per_call(self) -> float:
        """Mean CPU time of a call."""
        return self.seconds / self.calls if self.calls else 0.0


class KeySize(msgspec.Struct, frozen=True):
    """One key and the memory of it and its value."""

    key: str
    type: str
    bytes: int


class KeyGroup(msgspec.Struct, frozen=True):
    """The sampled keys that share a prefix or a type."""

    name: str
    keys: int
    bytes: int


class MemoryAnalysis(msgspec.Struct, frozen=True):
    """What a bounded look at the keys found.

    Args:
        keys: how many the database holds.
        sampled: how many were looked at.
        complete: every key was looked at.
        bytes: memory of the sampled keys.
        biggest: the largest of them, largest first.
        by_prefix, by_type: largest first.
        doctor: what `MEMORY DOCTOR` says of each server, by address; empty when it is not permitted.
    """

    keys: int
    sampled: int
    complete: bool
    bytes: int
    biggest: tuple[KeySize, ...]
    by_prefix: tuple[KeyGroup, ...]
    by_type: tuple[KeyGroup, ...]
    doctor: dict[str, str]
