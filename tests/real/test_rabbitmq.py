"""RabbitMQ as broker: quorum queues, both classes of task, their acknowledgements, expiry, and a restart."""

import time

import pytest
from amqp.exceptions import PreconditionFailed
from celery import Celery
from kombu import Connection, Queue

from tests.conftest import StartServer
from tests.real.conftest import POSTGRES, REDIS, MakeFleet
from tests.real.fleet import Fleet, until
from tests.real.jobs import act, ended, row
from tests.real.ledger import Ledger
from tests.real.probe_server import Behaviour, ProbeServer
from tests.servers import Server

pytestmark = pytest.mark.real(POSTGRES, REDIS, "rabbitmq")


@pytest.fixture
def rabbit(start_server: StartServer) -> Server:
    """A RabbitMQ that a test may stop."""
    return start_server("rabbitmq")


@pytest.fixture
def fleet(make_fleet: MakeFleet, database: str, own_redis: Server, rabbit: Server) -> Fleet:
    """A fleet whose messages go through RabbitMQ."""
    return make_fleet(database, own_redis.url, rabbit.url)


def test_polls_and_actions_run_through_quorum_queues_and_survive_a_restart(
    fleet: Fleet, ledger: Ledger, probe: ProbeServer, rabbit: Server
) -> None:
    fleet.configure(fleet.target("a", probe.port, {"quick": None, "together": None}))
    members = fleet.crew("control", "polls", "actions", "beat")
    until(lambda: {run.poll for run in ledger.stored()} == {"quick", "together"}, "both polls run")
    assert ended(ledger, act(fleet, "apply", "first"))["state"] == "succeeded"
    for name in ("poll.probe", "act.probe", "dispatch", "watch"):
        assert _is_quorum(rabbit.url, name), name
    since = time.time()

    rabbit.restart()
    returned = time.time()
    for member in members:
        if member.name != "beat":  # its file tells that it lives, not that it reaches the broker
            until(lambda member=member: member.beats(returned), f"{member.name} consumes again")
    reads = len(ledger.stored())
    until(lambda: len(ledger.stored()) > reads + 5, "polling goes on")
    assert ended(ledger, act(fleet, "apply", "second"))["state"] == "succeeded"

    for poll, every in (("quick", 1.0), ("together", 2.0)):
        assert ledger.assert_complete("a", poll, every, since)[-1].outcome == "ok"
        assert probe.seen.most_at_once["a", poll] == 1
    ledger.assert_nothing_lost_or_double()
    assert probe.seen.effects == {"first": 1, "second": 1}
    assert all(member.running for member in members)


def test_a_rabbitmq_that_was_killed_costs_no_job_and_does_none_twice(
    fleet: Fleet, ledger: Ledger, probe: ProbeServer, rabbit: Server
) -> None:
    """SIGKILL: no queue is closed, no connection ended in peace. One job runs at that moment, one is submitted then."""
    fleet.configure(fleet.target("a", probe.port, {"quick": None}))
    members = fleet.crew("control", "polls", "actions", "beat")
    until(lambda: len(ledger.stored()) >= 2, "polling goes on")
    since = time.time()
    probe.hold_effects = True
    running = act(fleet, "apply", "first")
    until(lambda: probe.seen.stalled["first"], "an action is in the middle")

    rabbit.kill()
    probe.release()
    meanwhile = act(fleet, "apply", "second")
    assert row(ledger, meanwhile)["state"] == "queued", "nobody can be told of it now"
    rabbit.start()
    returned = time.time()
    for member in members:
        if member.name != "beat":
            until(lambda member=member: member.beats(returned), f"{member.name} consumes again", 90)
    assert ended(ledger, meanwhile, 90)["state"] == "succeeded"
    assert ended(ledger, running, 90)["state"] in {"succeeded", "unchanged"}
    reads = len(ledger.stored())
    until(lambda: len(ledger.stored()) > reads + 3, "polling goes on")

    assert ledger.assert_complete("a", "quick", 1.0, since)[-1].outcome == "ok"
    ledger.assert_nothing_lost_or_double()
    assert probe.seen.effects == {"first": 1, "second": 1}
    assert probe.seen.most_at_once["a", "quick"] == 1
    assert all(member.running for member in members)


def test_polls_ack_early_and_expire_and_actions_ack_late(fleet: Fleet, ledger: Ledger, probe: ProbeServer) -> None:
    fleet.configure(fleet.target("a", probe.port, {"steady": None}))
    fleet.crew("control", "beat")
    polls, actions = fleet.worker("polls", "first").ready(), fleet.worker("actions", "one").ready()
    until(lambda: len(ledger.stored()) >= 2, "polling goes on")
    since = time.time()

    probe.behave("steady", Behaviour(stall_after=3))
    until(lambda: probe.seen.stalled["steady"], "a poll is under way")
    polls.kill()
    probe.release()
    reads = probe.seen.reads["a", "steady"]
    until(lambda: ledger.outcomes("a")["lost"] == 1, "the slot of the killed poll is lost")
    assert probe.seen.reads["a", "steady"] == reads, "nobody polled meanwhile"
    fleet.worker("polls", "second").ready()
    until(lambda: probe.seen.reads["a", "steady"] >= reads + 3, "the new worker polls")

    probe.hold_effects = True
    job_id = act(fleet, "apply", "ban")
    until(lambda: probe.seen.stalled["ban"], "an action is in the middle")
    actions.kill()
    probe.release()
    fleet.worker("actions", "two").ready()
    row = ended(ledger, job_id, 60)
    assert (row["state"], row["attempts"]) == ("unchanged", 2)
    assert probe.seen.effects == {"ban": 1}

    outcomes = [slot.outcome for slot in ledger.assert_complete("a", "steady", 2.0, since)]
    assert ledger.outcomes("a")["lost"] == 1, "its slot may be from before the stall"
    assert outcomes.count("expired") >= 2, "what nobody took in time was dropped"
    assert outcomes[-1] == "ok"
    ledger.assert_nothing_lost_or_double()


def test_another_producer_s_action(fleet: Fleet, ledger: Ledger, probe: ProbeServer) -> None:
    fleet.configure(fleet.target("it", probe.port, {}))
    fleet.crew("control", "beat", "actions")  # RabbitMQ drops what is sent to a queue that is not there yet
    until(lambda: ledger.rows("SELECT 1 FROM targets"), "the target is known")
    with Celery("theirs", broker=fleet.broker) as theirs:
        # `declare=[]`: the queue is there; a producer that declares it its own way is refused by RabbitMQ
        theirs.send_task("nms.probe.apply", kwargs={"target": "it", "effect": "ban"}, queue="act.probe", declare=[])
    until(lambda: ledger.rows("SELECT 1 FROM jobs WHERE state = 'succeeded'"), "the action ran", 90)
    assert probe.seen.effects == {"ban": 1}


def _is_quorum(url: str, name: str) -> bool:
    """RabbitMQ refuses to take a queue for another type than it has."""
    with Connection(url) as connection:
        Queue(name)(connection.channel()).queue_declare(passive=True)
        try:
            Queue(name, durable=True, queue_arguments={"x-queue-type": "classic"})(connection.channel()).declare()
        except PreconditionFailed as exc:
            return "quorum" in str(exc)
    return False
