"""A job for the worker beside its target: it waits for that one, says so, and no other takes it."""

import json

import psutil
import pytest
from celery import Celery

from tests.real.conftest import POSTGRES, REDIS
from tests.real.fleet import Fleet, until
from tests.real.jobs import act, ended, row
from tests.real.ledger import Ledger
from tests.real.probe_server import ProbeServer

pytestmark = pytest.mark.real(POSTGRES, REDIS)


def test_it_waits_for_its_worker_which_polls_too(fleet: Fleet, ledger: Ledger, probe: ProbeServer) -> None:
    target = fleet.target("it", probe.port, {"steady": None}, worker="fw1")
    fleet.configure(target, head="[workers]\nedge_processes = 3")
    fleet.crew("control", "beat", "actions", "polls")
    job_id = act(fleet, "beside", "ban")

    def events() -> list[str]:
        shown = json.loads(fleet.run("jobs", "show", job_id, "--json").stdout)
        return [event["why"] for event in shown["events"] if event["event"] == "waiting"]

    assert "no worker took it from the queue edge.fw1" in until(events, "it says what it waits for", 60)[0]
    assert row(ledger, job_id)["attempts"] == 0
    assert probe.seen.reads["it", "steady"] == 0, "nobody else polls it"

    edge = fleet.worker("edge", "edge", NMS_WORKER_NAME="fw1").ready()
    assert len(psutil.Process(edge.pid).children()) == 3, "as many as [workers] says"
    job = ended(ledger, job_id)
    assert (job["state"], job["attempts"]) == ("succeeded", 1)
    assert job["worker"].startswith("fw1:")
    until(lambda: ledger.outcomes()["ok"] >= 2, "its polls run")

    with Celery("theirs", broker=fleet.broker) as theirs:  # a producer that knows nothing of edges
        theirs.send_task("nms.probe.beside", kwargs={"target": "it", "effect": "theirs"}, queue="act.probe")
    done = until(
        lambda: ledger.rows("SELECT worker FROM jobs WHERE state = 'succeeded' AND arguments->>'effect' = 'theirs'"),
        "it is sent on to the worker beside the target",
    )
    assert done[0][0].startswith("fw1:")
    assert probe.seen.effects == {"ban": 1, "theirs": 1}


def test_what_recurs_is_undone_and_planned_by_commands(fleet: Fleet, ledger: Ledger, probe: ProbeServer) -> None:
    fleet.configure(fleet.target("it", probe.port, {}))
    fleet.crew("control", "beat", "actions")
    job_id = act(fleet, "apply", "ban", "--undo-after", "2s", "--wait")
    until(lambda: probe.seen.effects["undo ban"] == 1, "its time is over")
    assert ended(ledger, job_id)["state"] == "succeeded"

    again = act(fleet, "apply", "mark", "--expires", "60s", "--wait")
    undone = fleet.run("jobs", "undo", again, "--wait", "--json")
    assert json.loads(undone.stdout)["state"] == "succeeded", undone.stderr
    later = act(fleet, "apply", "later", "--after", "1h")
    assert json.loads(fleet.run("jobs", "cancel", later, "--json").stdout)["state"] == "cancelled"
    assert fleet.run("jobs", "cancel", later).returncode == 2
    once_more = json.loads(fleet.run("jobs", "retry", later, "--wait", "--json").stdout)
    assert (once_more["state"], probe.seen.effects["later"]) == ("succeeded", 1)

    dry = fleet.run("act", "probe", "apply", "effect=never", "--dry-run")
    assert "it would run: probe apply on it effect=never" in dry.stdout
    plan = fleet.folder / "plan.toml"
    step = '[[steps]]\nservice = "probe"\ntarget = "it"\naction = "{}"\narguments = {{ effect = "{}" }}\n'
    plan.write_text('name = "both"\n' + step.format("apply", "one") + step.format("hang", "two"))
    planned = fleet.run("plan", str(plan), "--wait", "--json")
    assert planned.returncode == 1
    states = [(job["action"], job["state"]) for job in json.loads(planned.stdout)]
    assert states == [("apply", "succeeded"), ("hang", "failed"), ("lift", "succeeded")]
    assert probe.seen.effects["undo one"] == 1
    assert probe.seen.effects["never"] == 0
