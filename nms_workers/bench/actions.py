"""How long an action takes from being asked for to its effect, through the whole fleet, counted where the effect is.

Jobs are asked for at a steady rate. When each took effect, and how often, is what the target itself says.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from sqlalchemy import func, select

from nms_workers.app import create_app
from nms_workers.bench.at_fail2ban import AtFail2ban
from nms_workers.bench.at_redis import AtRedis
from nms_workers.bench.place import BenchError, Place
from nms_workers.embedded import Postgres, Redis
from nms_workers.fleet.targets import sync
from nms_workers.heartbeat import folder as heartbeats
from nms_workers.jobs.submit import submit
from nms_workers.runtime import runtime
from nms_workers.settings import Settings
from nms_workers.store.migrations import upgrade
from nms_workers.store.schema import jobs
from nms_workers.supervisor import Process, Supervisor
from nms_workers.tasks import desk_of

WARM = 32  # actions before those that are measured
END_SECONDS = 120.0  # after the last was asked for
PLACES: dict[str, Callable[[Path, int], Place]] = {
    "fail2ban": lambda folder, _: AtFail2ban(folder),
    "redis": AtRedis,
}


def run(
    *, at: str = "fail2ban", actions: int = 1_000, rate: float = 10.0, tell: Callable[[str], None] = lambda _: None
) -> dict[str, float | int | bool | str]:
    """Ask for actions at a rate and measure each.

    Args:
        at: one of `PLACES`.
        actions: how many.
        rate: of them a second.
        tell: called with a line for people now and then.

    Returns:
        `p50_ms` and `p99_ms` from before the submit to the effect, `exactly_once`: whether each job succeeded and its
        effect was seen once and no other, `at`, `jobs`, `rate`, and `jobs_per_second` from the first submit to the last
        effect.

    Raises:
        BenchError: there is no such place here, or the jobs did not end in time.
    """
    numbers, warm = range(actions), range(actions, actions + WARM)
    tell(f"starting a fleet, and {at} as its target")
    with _fleet(at, actions + WARM) as place:
        with place.watched():
            _submit(place, warm, rate, lambda _: None)  # processes connect to what they use when they first use it
            _await_end(WARM)
            asked = _submit(place, numbers, rate, tell)
            _await_end(WARM + actions)
        ended, seen = _states(), place.effects()
        if missing := asked.keys() - seen.keys():
            raise BenchError(f"{len(missing)} of {actions} actions had no effect; the jobs ended as {ended}")
        once = all(len(moments) == 1 for moments in seen.values()) and place.agrees(range(actions + WARM))
    waited = np.array([seen[number][0] - asked[number] for number in numbers]) * 1000
    last = max(seen[number][0] for number in numbers)
    return {
        "p50_ms": round(float(np.percentile(waited, 50)), 1),
        "p99_ms": round(float(np.percentile(waited, 99)), 1),
        "exactly_once": once and ended == {"succeeded": WARM + actions} and len(seen) == WARM + actions,
        "at": at,
        "jobs": actions,
        "rate": rate,
        "jobs_per_second": round(actions / (last - min(asked.values())), 1),
    }


def _submit(place: Place, numbers: range, rate: float, tell: Callable[[str], None]) -> dict[int, float]:
    """When each was asked for."""
    desk = desk_of(create_app(runtime().settings))
    asked: dict[int, float] = {}
    begin, a_tenth = time.monotonic(), max(1, len(numbers) // 10)
    for position, number in enumerate(numbers):
        time.sleep(max(0.0, begin + position / rate - time.monotonic()))
        wish = place.wish(number)
        asked[number] = time.time()
        submit(desk, wish)
        if (position + 1) % a_tenth == 0:
            tell(f"asked for {position + 1} of {len(numbers)}")
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
def _fleet(at: str, actions: int) -> Iterator[Place]:
    """A fleet of its own in a folder of its own, for as long as it is needed; gives the place of its target."""
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="nms-workers-bench-")))
        place = PLACES[at](folder / "target", actions)
        held.callback(place.close)
        database, broker = Postgres(folder / "postgres"), Redis(folder / "redis")
        for server in (database, broker):
            held.callback(server.close)
            server.prepare()
        supervisor = held.enter_context(Supervisor(folder / "logs", on_event=lambda event: None))
        supervisor.start(
            Process("postgres", database.argv, database.env, database.ready, stop_signal=database.stop_signal),
            Process("redis", broker.argv, broker.env, broker.ready),
            place.process,
        )
        upgrade(database.secret_url())
        settings = _settings(folder, place)
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
        yield place


def _settings(folder: Path, place: Place) -> Settings:
    """The settings of this fleet, in force in this process and in its children."""
    config = folder / "nms.toml"
    config.write_text("[guards]\nlimits = []\n" + place.targets(), encoding="utf-8")
    for name in ("NMS_DATABASE_URL", "NMS_REDIS_URL", "NMS_BROKER_URL"):
        os.environ.pop(name, None)
    os.environ |= {"NMS_CONFIG": str(config), "NMS_DATA": str(folder)}
    runtime.cache_clear()
    return runtime().settings
