"""The targets the fleet works on: settled in PostgreSQL, carried to every worker in one Redis hash.

Workers read the hash, never the settings file, so a reload needs no restart, and polling goes on while PostgreSQL is
away. References to secrets travel; secrets do not.
"""

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import redis

KEY = "nms:targets"
VERSION = "nms:targets:version"
OUTDATED = "nms:targets:outdated"


class Target(msgspec.Struct, frozen=True):
    """One active target, as dispatch and workers need it. `every` holds seconds by poll: the polls that are on."""

    id: int
    service: str
    name: str
    settings: dict[str, Any]
    every: dict[str, float]
    max_series: int = 10_000
    worker: str | None = None

    def __str__(self) -> str:
        return f"{self.service}/{self.name}"

    @property
    def fingerprint(self) -> str:
        """Equal for equal service settings: a client built from them stays good."""
        return msgspec.json.encode(self.settings, order="sorted").decode()


class Inventory:
    """The targets in Redis, with a copy in this process that is renewed when their version changes.

    Args:
        changed: called with the targets whenever the copy was renewed.
    """

    def __init__(
        self, redis_client: "redis.Redis", changed: Callable[[Mapping[int, Target]], None] = lambda _: None
    ) -> None:
        self._redis, self._changed = redis_client, changed
        self._lock = threading.Lock()
        self._version: bytes | None = None
        self._targets: dict[int, Target] = {}

    def publish(self, targets: Iterable[Target]) -> None:
        """Make these all the targets there are, in one transaction."""
        body = {str(target.id): msgspec.json.encode(target) for target in targets}
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(KEY)
            if body:
                pipe.hset(KEY, mapping=body)  # type: ignore[arg-type]
            pipe.delete(OUTDATED)
            pipe.set(VERSION, uuid.uuid4().hex)  # a count would begin anew in a Redis that lost its data
            pipe.execute()

    def all(self) -> Mapping[int, Target]:
        """Every active target by id.

        Raises:
            redis.RedisError: Redis is away.
        """
        version = self._redis.get(VERSION)
        with self._lock:
            if version is not None and version == self._version:
                return self._targets
            found: Mapping[bytes, bytes] = self._redis.hgetall(KEY)  # type: ignore[assignment]
            self._targets = targets = {int(key): msgspec.json.decode(body, type=Target) for key, body in found.items()}
            self._version = version  # type: ignore[assignment]
        if version is not None:  # without one Redis lost its data: they are not gone, only unknown for a moment
            self._changed(targets)
        return targets

    def known(self) -> bool:
        """Whether targets were ever published here, and are still those: a Redis that lost its data is told anew."""
        return bool(self._redis.exists(VERSION)) and not self._redis.exists(OUTDATED)

    def outdate(self) -> None:
        """Say that the rows of `targets` were changed by somebody else than a sync: beat makes one within seconds."""
        self._redis.set(OUTDATED, 1)

    def pick(self, ids: Sequence[int]) -> list[Target]:
        """Those of these targets that are still active."""
        everyone = self.all()
        return [everyone[one] for one in ids if one in everyone]

    def with_poll(self, service: str, poll: str) -> list[Target]:
        """The targets of a service on which this poll is on."""
        return [target for target in self.all().values() if target.service == service and poll in target.every]
