"""Follow-ups through a whole fleet and its commands: once, whoever dies, shown with evidence, taken back first."""

import json
import os
import signal

import psutil
import pytest

from tests.real.conftest import POSTGRES, REDIS
from tests.real.fleet import Fleet, until
from tests.real.jobs import act, ended
from tests.real.ledger import Ledger
from tests.real.probe_server import ProbeServer

pytestmark = pytest.mark.real(POSTGRES, REDIS)


def test_a_job_that_follows_is_shown_and_undone_first(fleet: Fleet, ledger: Ledger, probe: ProbeServer) -> None:
    fleet.configure(fleet.target("it", probe.port, {}))
    fleet.crew("control", "beat", "actions")
    parent = act(fleet, "spread", "ban", "--wait")
    until(lambda: probe.seen.effects["ban too"] == 1, "what was asked for is done")

    dry = fleet.run("act", "probe", "spread", "effect=never", "--dry-run")
    assert dry.stdout.splitlines() == [
        "it would change: never would be there",
        "then: probe apply on it effect=never too",
    ]
    shown = json.loads(fleet.run("jobs", "show", parent, "--json").stdout)
    (follow_up,) = shown["follow_ups"]
    assert (follow_up["caused_by"], follow_up["evidence"]) == (parent, {"seen": "ban"})
    assert "followed by" in [event["event"] for event in shown["events"]]
    assert follow_up["id"] in fleet.run("jobs", "show", parent).stdout
    ended(ledger, follow_up["id"])

    undone = fleet.run("jobs", "undo", parent, "--wait", "--json")
    assert json.loads(undone.stdout)["undoes"] == parent, undone.stderr
    assert probe.seen.effects == {"ban": 1, "ban too": 1, "undo ban": 1, "undo ban too": 1}
    order = ledger.rows("SELECT arguments ->> 'effect' FROM jobs WHERE action = 'lift' ORDER BY claimed_at")
    assert order == [("ban too",), ("ban",)]


def test_a_job_whose_process_died_is_followed_once(fleet: Fleet, ledger: Ledger, probe: ProbeServer) -> None:
    fleet.configure(fleet.target("it", probe.port, {}), head="[workers]\naction_processes = 1")
    _, _, actions = fleet.crew("control", "beat", "actions")
    probe.hold_effects = True
    parent = act(fleet, "spread", "ban")
    until(lambda: probe.seen.stalled["ban"], "the action is in the middle")
    (child,) = psutil.Process(actions.pid).children()
    os.kill(child.pid, signal.SIGKILL)
    probe.release()

    row = ended(ledger, parent, 60)
    assert (row["state"], row["attempts"]) == ("unchanged", 2)
    follow_ups = "SELECT state FROM jobs WHERE caused_by = %s"
    until(lambda: ledger.rows(follow_ups, parent) == [("succeeded",)], "what was asked for is done")
    assert probe.seen.effects == {"ban": 1, "ban too": 1}
