"""SIGTERM: what runs ends and is stored, what waits goes back into the queue, and the exit status is 0."""

import time
from collections.abc import Iterable

import pytest
import redis
from celery import Celery

from tests.real.conftest import POSTGRES, REDIS
from tests.real.fleet import Fleet, until
from tests.real.jobs import act, ended
from tests.real.ledger import Ledger
from tests.real.probe_server import Behaviour, ProbeServer

pytestmark = pytest.mark.real(POSTGRES, REDIS)


def test_polls_in_flight_end_and_the_others_go_back(fleet: Fleet, ledger: Ledger, probe: ProbeServer) -> None:
    names = ["a", "b", "c", "d"]
    fleet.configure(*(fleet.target(name, probe.port, {"steady": "10m"}) for name in names))
    (beat,) = fleet.crew("beat")
    until(lambda: len(ledger.rows("SELECT 1 FROM schedules")) == len(names), "the targets are known")
    assert beat.stop() == 0
    probe.behave("steady", Behaviour(stall_after=3))
    polls = fleet.worker("polls", "first", "--concurrency", "1").ready()
    _poll_now(fleet, ledger, names)
    until(lambda: probe.seen.stalled["steady"], "one poll is under way")

    polls.process.terminate()
    until(lambda: "Warm shutdown" in polls.words(), "it begins to stop")
    probe.release()
    assert polls.process.wait(60) == 0
    stored = ledger.stored()  # the one under way, and one more that the pool had taken already
    assert len(stored) in (1, 2)
    assert ledger.rows("SELECT outcome FROM poll_runs WHERE manual") == [("ok",)] * len(stored)
    with redis.Redis.from_url(fleet.redis) as client:
        assert client.llen("poll.probe") == len(names) - len(stored)
        assert client.hlen("unacked") == 0

    fleet.worker("polls", "second").ready()
    until(lambda: len(ledger.stored()) == len(names), "the others are polled by the next worker")
    assert {run.target for run in ledger.assert_nothing_lost_or_double()} == set(names)
    assert sum(probe.seen.reads.values()) == len(names)


def test_an_action_in_flight_ends(fleet: Fleet, ledger: Ledger, probe: ProbeServer) -> None:
    fleet.configure(fleet.target("it", probe.port, {}))
    _, _, actions = fleet.crew("control", "beat", "actions")
    probe.hold_effects = True
    job_id = act(fleet, "apply", "ban")
    until(lambda: probe.seen.stalled["ban"], "the action is in the middle")

    actions.process.terminate()
    until(lambda: "shutdown" in actions.words().lower(), "it begins to stop")
    probe.release()
    assert ended(ledger, job_id)["state"] == "succeeded"
    assert actions.process.wait(60) == 0
    assert probe.seen.effects["ban"] == 1


def test_an_action_that_takes_too_long_is_done_by_another_worker(
    fleet: Fleet, ledger: Ledger, probe: ProbeServer
) -> None:
    fleet.configure(fleet.target("it", probe.port, {}))
    _, _, actions = fleet.crew("control", "beat", "actions")
    probe.hold_effects = True
    job_id = act(fleet, "apply", "ban")
    until(lambda: probe.seen.stalled["ban"], "the action is in the middle")

    assert actions.stop() == 0
    probe.release()
    stopped = time.monotonic()
    fleet.worker("actions", "next").ready()
    job = ended(ledger, job_id)
    assert (job["state"], job["attempts"]) == ("unchanged", 2)
    assert time.monotonic() - stopped < 15, "it did not wait until the lease ran out"
    assert probe.seen.effects["ban"] == 1


def _poll_now(fleet: Fleet, ledger: Ledger, names: Iterable[str]) -> None:
    """Ask for a poll of each of these, one message each."""
    ids = dict(ledger.rows("SELECT name, id FROM targets"))
    due = int(time.time() * 1000)
    with Celery("test", broker=fleet.broker) as app:
        for name in names:
            arguments = {"slots": [[ids[name], due]], "targets": [name], "manual": True}
            app.send_task("nms.probe.steady", kwargs=arguments, queue="poll.probe")
