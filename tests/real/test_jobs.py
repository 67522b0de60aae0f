"""Actions as jobs: whoever dies, a job ends in one state, and its effect happened as often as it should."""

import os
import signal

import psutil
import pytest
import redis
from celery import Celery

from tests.real.conftest import POSTGRES, REDIS
from tests.real.fleet import Fleet, Member, until
from tests.real.jobs import act, ended
from tests.real.ledger import Ledger
from tests.real.probe_server import ProbeServer

pytestmark = pytest.mark.real(POSTGRES, REDIS)


@pytest.fixture
def actions(fleet: Fleet, probe: ProbeServer) -> Member:
    """A fleet that can act on the target `it`; the worker of actions."""
    fleet.configure(fleet.target("it", probe.port, {}), head="[workers]\naction_processes = 1")
    _, _, actions = fleet.crew("control", "beat", "actions")
    return actions


def child(actions: Member) -> int:
    """The process that runs actions: the busy one, of the pool of one."""
    (only,) = psutil.Process(actions.pid).children()
    return only.pid


def test_a_killed_child_costs_seconds(fleet: Fleet, ledger: Ledger, probe: ProbeServer, actions: Member) -> None:
    probe.hold_effects = True
    job_id = act(fleet, "apply", "ban")
    until(lambda: probe.seen.stalled["ban"], "the action is in the middle")
    os.kill(child(actions), signal.SIGKILL)
    probe.release()

    row = ended(ledger, job_id, 12)  # its lease would have run for 25
    assert (row["state"], row["attempts"]) == ("unchanged", 2), "the second attempt looked first"
    assert probe.seen.effects["ban"] == 1
    assert actions.running


def test_what_kills_every_worker_fails_after_three_attempts(
    fleet: Fleet, ledger: Ledger, probe: ProbeServer, actions: Member
) -> None:
    job_id = act(fleet, "poison", "crash")
    row = ended(ledger, job_id)
    assert (row["state"], row["attempts"]) == ("failed", 3)
    assert row["error"].startswith("its worker died")
    assert probe.seen.effects["crash"] == 3

    assert ended(ledger, act(fleet, "apply", "ban"))["state"] == "succeeded", "the worker goes on"


def test_a_whole_worker_that_was_killed_leaves_a_job_that_another_finishes(
    fleet: Fleet, ledger: Ledger, probe: ProbeServer, actions: Member
) -> None:
    probe.hold_effects = True
    job_id = act(fleet, "apply", "ban")
    until(lambda: probe.seen.stalled["ban"], "the action is in the middle")
    actions.kill()
    probe.release()
    fleet.worker("actions", "second").ready()

    row = ended(ledger, job_id, 60)
    assert (row["state"], row["attempts"]) == ("unchanged", 2)
    assert probe.seen.effects["ban"] == 1


def test_an_action_that_hangs_ends_at_its_limit(
    fleet: Fleet, ledger: Ledger, probe: ProbeServer, actions: Member
) -> None:
    row = ended(ledger, act(fleet, "hang", "wait"), 30)
    assert row["state"] == "failed"
    assert row["error"] == "it did not end in its 2 s"
    assert probe.seen.effects["wait"] == 1


def test_the_same_key_is_the_same_job(fleet: Fleet, ledger: Ledger, probe: ProbeServer, actions: Member) -> None:
    first = act(fleet, "apply", "ban", "--key", "k1")
    assert act(fleet, "apply", "ban", "--key", "k1") == first
    assert ended(ledger, first)["state"] == "succeeded"
    assert act(fleet, "apply", "ban", "--key", "k1") == first
    refused = fleet.run("act", "probe", "apply", "effect=other", "--key", "k1")
    assert refused.returncode == 2
    assert first in refused.stderr
    assert probe.seen.effects == {"ban": 1}
    assert ledger.rows("SELECT count(*) FROM jobs") == [(1,)]


@pytest.mark.parametrize("task_id", ["7d0f4c0a-5b1e-4c56-9d0e-6f1f6a2d9b11", "their-own-name"])
def test_a_producer_that_knows_nothing_of_ours_makes_a_job(
    fleet: Fleet, ledger: Ledger, probe: ProbeServer, actions: Member, task_id: str
) -> None:
    with Celery("theirs", broker=fleet.broker) as theirs:
        for _ in range(2):  # it is not sure that the first arrived
            theirs.send_task(
                "nms.probe.apply", kwargs={"target": "it", "effect": "ban"}, task_id=task_id, queue="act.probe"
            )
        theirs.send_task("nms.probe.apply", kwargs={"target": "none", "effect": "ban"}, queue="act.probe")
        theirs.send_task("nms.probe.apply", kwargs={"target": "it", "wrong": "ban"}, queue="act.probe")
    until(lambda: ledger.rows("SELECT 1 FROM jobs WHERE state = 'succeeded'"), "the action ran")
    with redis.Redis.from_url(fleet.redis) as client:
        until(lambda: client.llen("act.probe") + client.hlen("unacked") == 0, "the others were taken, and refused")

    assert ledger.rows("SELECT service, action, target, arguments, state, attempts FROM jobs") == [
        ("probe", "apply", "it", {"effect": "ban"}, "succeeded", 1)
    ]
    assert probe.seen.effects == {"ban": 1}
