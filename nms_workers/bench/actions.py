"""How long an action takes from being asked for to its effect, through the whole fleet, counted where the effect is.

The target is a server of Redis with a database for each job, one key in each; the action empties it. What the server
saw comes from its own MONITOR (https://valkey.io/commands/monitor/): the time of each FLUSHDB, and how many there were.
Jobs are asked for at a steady rate, spread over several targets, since those of one target run one at a time.
"""

import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
import redis
from sqlalchemy import func, select

from nms_workers.app import create_app
from nms_workers.embedded import Postgres, Redis
from nms_workers.errors import NmsError
from nms_workers.fleet.targets import sync
from nms_workers.heartbeat import folder as heartbeats
from nms_workers.jobs.submit import submit
from nms_workers.jobs.wish import Wish
from nms_workers.runtime import runtime
from nms_workers.service import service
from nms_workers.settings import Settings
from nms_workers.store.migrations import upgrade
from nms_workers.store.schema import jobs
from nms_workers.supervisor import Process, Supervisor
from nms_workers.tasks import desk_of

TARGETS = 8
WARM = 32  # actions before those that are measured
END_SECONDS = 120.0  # after the last was asked for
_LAST = "nms-workers-bench-is-over"


class BenchError(NmsError):
    """The measurement cannot be made here."""


def run(*, actions: int = 1_000, rate: float = 10.0) -> dict[str, float | int | bool]:
    """Ask for actions at a rate and measure each.

    Args:
        actions: how many.
        rate: of them a second.

    Returns:
        `p50_ms` and `p99_ms` from before the submit to the effect, `exactly_once`: whether each job succeeded and its
        effect was seen once and no other, `actions`, `rate`, and `jobs_per_second` from the first submit to the last
        effect.

    Raises:
        BenchError: the jobs did not end in time.
    """
    with _fleet(actions + WARM) as counting, _Monitor(counting) as monitor:
        _submit(range(actions, actions + WARM), rate)  # processes connect to what they use when they first use it
        _await_end(WARM)
        asked = _submit(range(actions), rate)
        _await_end(WARM + actions)
        ended = _states()
    seen = {number: moments for number, moments in monitor.flushed.items() if number < actions}
    if missing := asked.keys() - seen.keys():
        raise BenchError(f"{len(missing)} of {actions} actions had no effect; the jobs ended as {ended}")
    waited = np.array([seen[number][0] - asked[number] for number in asked]) * 1000
    last = max(moments[0] for moments in seen.values())
    return {
        "p50_ms": round(float(np.percentile(waited, 50)), 1),
        "p99_ms": round(float(np.percentile(waited, 99)), 1),
        "exactly_once": ended == {"succeeded": WARM + actions}
        and seen.keys() == asked.keys()
        and all(len(moments) == 1 for moments in seen.values()),
        "actions": actions,
        "rate": rate,
        "jobs_per_second": round(actions / (last - min(asked.values())), 1),
    }


class _Monitor:
    """What the target saw: the moments of FLUSHDB, in seconds since the epoch, by database."""

    def __init__(self, url: str) -> None:
        self.flushed: dict[int, list[float]] = defaultdict(list)
        self._url = url
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._listening.wait(10):
            raise BenchError("the target does not let itself be watched")
        return self

    def __exit__(self, *_: object) -> None:
        """What the server did before it answers this has been seen when the thread ends."""
        with redis.Redis.from_url(self._url, socket_timeout=10) as client:
            client.echo(_LAST)
        self._thread.join(10)

    def _listen(self) -> None:
        with redis.Redis.from_url(self._url) as client, client.monitor() as monitor:
            self._listening.set()
            while True:
                seen = monitor.next_command()
                if seen["command"].endswith(_LAST):
                    return
                if seen["command"].upper().startswith("FLUSHDB"):
                    self.flushed[int(seen["db"])].append(float(seen["time"]))


def _submit(numbers: range, rate: float) -> dict[int, float]:
    """When each was asked for, by its database."""
    desk = desk_of(create_app(runtime().settings))
    asked: dict[int, float] = {}
    begin = time.monotonic()
    for position, number in enumerate(numbers):
        time.sleep(max(0.0, begin + position / rate - time.monotonic()))
        target = f"t{number % TARGETS}"
        asked[number] = time.time()
        submit(desk, Wish("redis", "flushdb", target, {"db": number, "confirm": target}, requested_by="bench"))
    return asked


def _await_end(actions: int) -> None:
    ends = time.monotonic() + END_SECONDS
    while sum(count for state, count in _states().items() if state not in ("queued", "running")) < actions:
        if time.monotonic() > ends:
            raise BenchError(f"the jobs did not end in {END_SECONDS:g} s: {_states()}")
        time.sleep(0.2)


def _states() -> dict[str, int]:
    with runtime().engine.connect() as connection:
        return dict(connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)).all())


@contextmanager
def _fleet(actions: int) -> Iterator[str]:
    """A fleet of its own in a folder of its own, for as long as it is needed; gives the URL of the target."""
    with ExitStack() as held:
        place = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="nms-workers-bench-")))
        database, broker, counting = Postgres(place / "postgres"), Redis(place / "redis"), Redis(place / "target")
        for server in (database, broker, counting):
            held.callback(server.close)
            server.prepare()
        supervisor = held.enter_context(Supervisor(place / "logs", on_event=lambda event: None))
        more = ["--databases", str(actions), "--appendonly", "no"]
        supervisor.start(
            Process("postgres", database.argv, database.env, database.ready, stop_signal=database.stop_signal),
            Process("redis", broker.argv, broker.env, broker.ready),
            Process("target", [*counting.argv, *more], counting.env, counting.ready),
        )
        upgrade(database.secret_url())
        _fill(counting.secret_url(), actions)
        settings = _settings(place, counting)
        held.callback(runtime.cache_clear)
        held.callback(lambda: runtime().close())
        sync(runtime().engine, runtime().inventory, settings, datetime.now(UTC))
        for name in ("control", "actions", "beat"):
            command = ["beat"] if name == "beat" else ["worker", name]
            beats = heartbeats(settings)
            supervisor.start(
                Process(
                    name,
                    [sys.executable, "-m", "nms_workers", *command],
                    ready=lambda beats=beats, name=name: any(beats.glob(f"{name}*.heartbeat")),  # type: ignore[misc]
                )
            )
        yield counting.secret_url()


def _settings(place: Path, counting: Redis) -> Settings:
    """The settings of this fleet, in force in this process and in its children."""
    target = (
        '[[targets]]\nservice = "redis"\nname = "t{}"\nhost = "127.0.0.1"\nport = {}\npassword = "file:{}"\nskip = {}\n'
    )
    config = place / "nms.toml"
    port, password = counting.port, counting.folder.password_file
    skip = list(service("redis").polls())
    targets = "".join(target.format(number, port, password, skip) for number in range(TARGETS))
    config.write_text("[guards]\nlimits = []\n" + targets, encoding="utf-8")
    for name in ("NMS_DATABASE_URL", "NMS_REDIS_URL", "NMS_BROKER_URL"):
        os.environ.pop(name, None)
    os.environ |= {"NMS_CONFIG": str(config), "NMS_DATA": str(place)}
    runtime.cache_clear()
    return runtime().settings


def _fill(url: str, databases: int) -> None:
    with redis.Redis.from_url(url, socket_timeout=30) as client, client.pipeline(transaction=False) as pipe:
        for number in range(databases):
            pipe.execute_command("SELECT", number)
            pipe.set("key", "value")
        pipe.execute_command("SELECT", 0)
        pipe.execute()
