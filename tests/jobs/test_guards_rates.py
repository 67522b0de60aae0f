"""Limits are the fleet's: two processes at once get no more than one, and a restart gives nobody a fresh start."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from nms_workers.jobs.rates import wait
from nms_workers.settings import Limit
from tests.fleet.stores import rows

TREE = Path(__file__).parents[2]


def submit_from_two_processes(url: str, requesters: tuple[str, str], limits: list[dict[str, Any]]) -> list[int]:
    """How many jobs each of two processes, started at one moment, was let in with; each tries 30 times."""
    command = [sys.executable, "-m", "tests.jobs.submitter", url]
    environment = os.environ | {"PYTHONPATH": str(TREE), "NMS_DATABASE_URL": url, "NMS_REDIS_URL": "redis://127.0.0.1"}
    processes = [
        subprocess.Popen(
            [*command, who, "30", json.dumps({"limits": limits})],
            cwd=TREE,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for who in requesters
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [int(process.communicate(timeout=60)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


PER_REQUESTER = {"per": "requester", "jobs": 17, "within": "10m"}
PER_ACTION = {"per": "action", "jobs": 23, "within": "10m"}


def test_two_processes_at_once_get_no_more_than_the_limit_and_two_later_ones_nothing(
    engine: Engine, database_url: str
) -> None:
    for expected in (17, 0):
        assert sum(submit_from_two_processes(database_url, ("ada", "ada"), [PER_REQUESTER])) == expected
        assert rows(engine, "SELECT count(*) FROM jobs") == [(17,)]


def test_each_requester_has_a_limit_and_all_together_have_one(engine: Engine, database_url: str) -> None:
    let_in = submit_from_two_processes(database_url, ("ada", "bob"), [PER_REQUESTER, PER_ACTION])
    assert sum(let_in) == 23
    assert max(let_in) <= 17
    assert rows(engine, "SELECT count(*) FROM jobs") == [(23,)]


def _job(engine: Engine, seconds_ago: float, **columns: str) -> None:
    given = {"service": "redis", "action": "flushdb", "requested_by": "ada", "state": "succeeded"} | columns
    with engine.begin() as connection:
        connection.execute(
            text("""INSERT INTO jobs (id, service, action, target, requested_by, state, created_at)
                    VALUES (gen_random_uuid(), :service, :action, 'x', :requested_by, :state,
                            now() - make_interval(secs => :ago))"""),
            given | {"ago": seconds_ago},
        )


def _wait(engine: Engine, limit: Limit, requested_by: str = "ada", action: str = "flushdb") -> float | None:
    with engine.begin() as connection:
        return wait(connection, limit, "redis", action, requested_by)


def test_the_window_slides(engine: Engine) -> None:
    """There is room when the oldest of the jobs that count leaves the window, not at the turn of a minute."""
    for ago in (59, 50, 20, 10):
        _job(engine, ago)
    for most, expected in ((5, None), (4, 1), (3, 10), (2, 40), (1, 50)):
        found = _wait(engine, Limit(per="requester", jobs=most, within=60.0))
        assert found == (None if expected is None else pytest.approx(expected, abs=0.9))
    assert _wait(engine, Limit(per="requester", jobs=3, within=45.0)) is None


@pytest.mark.parametrize(
    ("state", "counts"),
    [("queued", True), ("running", True), ("failed", True), ("cancelled", True), ("refused", False)],
)
def test_whatever_became_of_a_job_it_counts_unless_it_was_refused(engine: Engine, state: str, counts: bool) -> None:
    _job(engine, 1, state=state)
    assert (_wait(engine, Limit(per="requester", jobs=1, within=60.0)) is not None) == counts


def test_each_limit_counts_its_own(engine: Engine) -> None:
    _job(engine, 1)
    _job(engine, 2, requested_by="bob")
    _job(engine, 3, service="postgresql", action="reload_config")
    of_ada = Limit(per="requester", jobs=2, within=60.0)
    assert _wait(engine, of_ada) is not None
    assert _wait(engine, of_ada, requested_by="bob") is None
    assert _wait(engine, of_ada, requested_by="ADA") is None
    of_the_action = Limit(per="action", jobs=2, within=60.0)
    assert _wait(engine, of_the_action, requested_by="eve") is not None
    assert _wait(engine, of_the_action, action="other") is None
    of_some = Limit(per="requester", jobs=2, within=60.0, actions=("redis.*",))
    assert _wait(engine, of_some) is None, "her other job is not one of these"
    assert _wait(engine, of_some.model_copy(update={"jobs": 1})) is not None
