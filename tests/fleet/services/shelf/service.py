"""A service of the tests' own: a list in a real Redis says what each read brings, and how it ends.

An item is one instruction, `{"sample": ["shelf_items", 3]}` or `{"fail": "Timeout"}`; `_OBEY` knows them all.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import redis
from pydantic import PositiveInt

from nms_workers import errors
from nms_workers.change import Change
from nms_workers.records import Entity, Event, Layout, Link, Record, Sample, SampleBlock, series
from nms_workers.service import BreakerPolicy, Service, TargetSettings, action, poll
from nms_workers.transport.secret import Secret


class ShelfTarget(TargetSettings):
    """Where the list lies."""

    url: Secret
    key: str
    size: PositiveInt = 1


class ShelfClient:
    """Reads the list. A size of 13 cannot be built: a fault in a client costs only its target."""

    def __init__(self, target: ShelfTarget) -> None:
        if target.size == 13:
            raise ZeroDivisionError("thirteen")
        self.target = target
        self.closed = 0
        self._redis = redis.Redis.from_url(target.url.reveal(), socket_timeout=5, decode_responses=True)

    def items(self) -> list[dict[str, Any]]:
        self._redis.incr(f"{self.target.key}:reads")
        return [json.loads(item) for item in self._redis.lrange(self.target.key, 0, -1)]

    def put(self, item: str) -> tuple[int, int]:
        before = self._redis.llen(self.target.key)
        return before, self._redis.rpush(self.target.key, json.dumps({"sample": [item, 1]}))

    def take(self, item: str) -> int | None:
        gone = self._redis.lrem(self.target.key, -1, json.dumps({"sample": [item, 1]}))
        return self._redis.llen(self.target.key) if gone else None

    def count(self, what: str) -> int:
        return self._redis.incr(f"{self.target.key}:{what}")

    def wait_for(self, key: str) -> None:
        """Return when the test pushes to this list."""
        self._redis.blpop([key], timeout=4)

    def say(self, key: str) -> None:
        self._redis.rpush(key, "here")

    def close(self) -> None:
        self.closed += 1
        self._redis.close()


def _fail(_: ShelfClient, name: str) -> Iterator[Record]:
    raise getattr(errors, name)("the shelf says so")
    yield  # a generator, as the others are


def _bug(_: ShelfClient, text: str) -> Iterator[Record]:
    yield from ()
    raise RuntimeError(text)


def _sleep(_: ShelfClient, seconds: float) -> Iterator[Record]:
    yield from ()
    time.sleep(seconds)


def _block(_: ShelfClient, spec: tuple[list[str], list[float]]) -> Iterator[Record]:
    names, values = spec
    yield SampleBlock(Layout([series(name) for name in names]), np.array(values, dtype=np.float64))


def _stop_here(client: ShelfClient, keys: tuple[str, str]) -> Iterator[Record]:
    yield from ()
    client.say(keys[0])
    client.wait_for(keys[1])


_OBEY: dict[str, Callable[[ShelfClient, Any], Iterator[Record]]] = {
    "sample": lambda _, spec: iter([Sample(*spec)]),
    "block": _block,
    "event": lambda _, spec: iter([Event(*spec)]),
    "entity": lambda _, spec: iter([Entity(*spec)]),
    "link": lambda _, spec: iter([Link("beside", ("thing", spec[0]), ("thing", spec[1]))]),
    "noise": lambda _, count: (Event("noise", f"event {n}") for n in range(count)),
    "junk": lambda _, junk: iter([junk]),
    "fail": _fail,
    "bug": _bug,
    "sleep": _sleep,
    "meet": _stop_here,
}


def _read(client: ShelfClient) -> Iterator[Record]:
    for item in client.items():
        for verb, spec in item.items():
            yield from _OBEY[verb](client, spec)


class Shelf(Service):
    """Reads what lies on a shelf."""

    kind = "shelf"
    Target = ShelfTarget
    client = ShelfClient
    breaker = BreakerPolicy(failures=2, reset=30.0)

    @poll(every="30s", deadline="5s", enumerates=("thing",))
    def items(self, client: ShelfClient) -> Iterator[Record]:
        """What lies there, one target a task."""
        yield from _read(client)

    @poll(every="30s", volatile=True)
    def loose(self, client: ShelfClient) -> Iterator[Record]:
        """What lies there, another set each time."""
        yield from _read(client)

    @poll(every="10s", deadline="2s", shard=3)
    def rack(self, clients: Mapping[str, ShelfClient]) -> Iterator[tuple[str, Record | errors.TargetError]]:
        """Three shelves a task."""
        for name, client in clients.items():
            try:
                for record in _read(client):
                    yield name, record
            except errors.TargetError as exc:
                yield name, exc

    @action(undo="take")
    def put(self, client: ShelfClient, item: str, times: PositiveInt = 1, dry_run: bool = False) -> Change:
        """Lay something down."""
        if dry_run:
            return Change(changed=True, message=f"would lay down {item} beside {len(client.items())} others")
        if item == "broken":
            raise errors.Refused("broken things are not taken", hint="bring a whole one")
        if item == "bug":
            raise RuntimeError("hunter2")
        before, after = client.put(item)
        return Change(changed=after != before, message=f"laid down {item}", before={"n": before}, after={"n": after})

    @action(undo="put")
    def take(self, client: ShelfClient, item: str, before: dict[str, int]) -> Change:
        """Take away what was laid down last; `before` is what `put` told."""
        left = client.take(item)
        return Change(changed=left is not None, message=f"took {item}", before=before, after={"n": left})

    @action(serialize_by="box")
    def fill(self, client: ShelfClient, item: str, box: str | None = None) -> Change:
        """Put something into a box; without one, into all of them."""
        before, after = client.put(item)
        return Change(changed=after != before, message=f"{item} is in {box}")

    @action(deadline="5s")
    def knock(self, client: ShelfClient, error: str, until: PositiveInt = 1) -> Change:
        """Fail with this error until it was tried so often."""
        if (tries := client.count("knocks")) < until:
            raise getattr(errors, error)(f"nobody at home, {tries}")
        return Change(changed=True, message=f"let in after {tries}")

    @action(idempotent=False)
    def roll(self, client: ShelfClient) -> Change:
        """Something that is not the same when it is done twice."""
        client.count("rolls")
        raise errors.Timeout("no answer")

    @action(runs_at="edge")
    def beside(self, client: ShelfClient, item: str) -> Change:
        """Lay something down, from the host beside the shelf."""
        before, after = client.put(item)
        return Change(changed=after != before, message=f"laid down {item}")

    @action(confirm=True, deadline="2s")
    def clear(self, client: ShelfClient) -> Change:
        """Throw everything away."""
        return Change(changed=False, message="there was nothing", before={"odd": float("nan"), "nul": "a\x00b"})

    @action()
    def nothing(self, client: ShelfClient) -> Change:
        """Breaks the contract: it returns no change."""
        return None  # type: ignore[return-value]
