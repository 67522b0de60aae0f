"""Many jobs while everything they stand on dies at random: each ends once, and each effect happened exactly once.

200 jobs and short outages by default; `NMS_CHAOS_JOBS=1000` is the whole, with PostgreSQL away for 30 s at a time.
"""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import count

import psutil
import psycopg
import pytest

from tests.real.conftest import POSTGRES, REDIS, MakeFleet
from tests.real.fleet import CODE, until
from tests.real.ledger import Ledger
from tests.real.probe_server import ProbeServer
from tests.servers import Server

pytestmark = pytest.mark.real(POSTGRES, REDIS)

JOBS = int(os.environ.get("NMS_CHAOS_JOBS", "200"))
TARGETS = 20
BLOWS = max(4, JOBS // 50)
AWAY = 30.0 if JOBS >= 1000 else 4.0  # seconds without PostgreSQL
AT_WORK = """
    SELECT split_part(worker, ':', 2)::int FROM jobs WHERE state = 'running' AND arguments ->> 'effect' = ANY(%s)
"""
FINAL = ("succeeded", "unchanged", "failed", "refused", "cancelled", "expired")


@pytest.mark.timeout(1200 if JOBS >= 1000 else 400)
def test_every_job_ends_once_and_takes_effect_once_whatever_dies(
    make_fleet: MakeFleet, own_postgres: Server, own_redis: Server, probe: ProbeServer
) -> None:
    fleet = make_fleet(own_postgres.url, own_redis.url)
    ledger = Ledger(fleet.database, fleet.journal)
    fleet.configure(*(fleet.target(f"it{n}", probe.port, {}) for n in range(TARGETS)))
    fleet.crew("control", "beat")
    until(lambda: ledger.rows("SELECT count(*) FROM targets") == [(TARGETS,)], "the targets are known")
    numbers = count()
    workers = [fleet.worker("actions", f"actions{next(numbers)}").ready() for _ in range(2)]

    def kill_a_worker() -> None:
        """In the middle of a job: the target has taken its effect, and does not answer yet."""
        probe.hold_effects = True
        dying = workers.pop(0)
        children = {child.pid for child in psutil.Process(dying.pid).children()}
        until(
            lambda: children & {pid for (pid,) in ledger.rows(AT_WORK, [*probe.seen.stalled])},
            f"{dying.name} is at work",
        )
        dying.kill()
        probe.release()
        workers.append(fleet.worker("actions", f"actions{next(numbers)}").ready())

    def restart_the_broker() -> None:
        own_redis.kill()
        own_redis.start()

    def stop_postgresql() -> None:
        own_postgres.stop()
        back = time.monotonic() + AWAY
        until(lambda: time.monotonic() >= back, "it was away long enough", AWAY + 5)
        own_postgres.start()

    blows: list[Callable[[], None]] = [kill_a_worker, restart_the_broker, stop_postgresql]
    chance = random.Random(os.environ.get("NMS_CHAOS_SEED", "3"))  # noqa: S311 - no secret
    order = blows + chance.choices(blows, k=BLOWS - len(blows))
    chance.shuffle(order)
    argv = [sys.executable, "-m", "tests.real.many_jobs", str(JOBS), str(TARGETS)]
    with subprocess.Popen(argv, cwd=CODE, env=fleet.env) as producer:
        try:
            for number, blow in enumerate(order, start=1):
                reached = JOBS * number // (len(order) + 1)
                until(lambda reached=reached: len(probe.seen.effects) >= reached, f"{reached} effects", 180)
                blow()
            assert producer.wait(240) == 0
        finally:
            producer.kill()
    until(lambda: _open(ledger) == 0, "every job ended", 240)

    jobs = ledger.rows("SELECT id, state, arguments ->> 'effect', attempts FROM jobs")
    assert len(jobs) == JOBS
    assert Counter(state for _, state, _, _ in jobs).keys() <= {"succeeded", "unchanged"}, Counter(j[1] for j in jobs)
    assert probe.seen.effects == {effect: 1 for _, _, effect, _ in jobs}
    ends = ledger.rows("SELECT job_id, count(*) FROM job_events WHERE event = ANY(%s) GROUP BY job_id", list(FINAL))
    assert dict(ends) == {job_id: 1 for job_id, _, _, _ in jobs}
    claims = dict(ledger.rows("SELECT job_id, count(*) FROM job_events WHERE event = 'claimed' GROUP BY job_id"))
    assert claims == {job_id: attempts for job_id, _, _, attempts in jobs}, "the audit tells of every attempt"
    assert any(attempts > 1 for *_, attempts in jobs), "at least one worker died in the middle of a job"


def _open(ledger: Ledger) -> int:
    try:
        ((waiting,),) = ledger.rows(
            "SELECT (SELECT %s - count(*) FROM jobs) + count(*) FROM jobs WHERE state IN ('queued', 'running')", JOBS
        )
    except psycopg.OperationalError:
        return -1
    return int(waiting)
