"""kill -9 a worker: one slot is lost and said so, nothing else is, and the next slots are polled by another."""

import time

import pytest

from tests.real.conftest import POSTGRES, REDIS, MakeFleet
from tests.real.fleet import Fleet, until
from tests.real.ledger import Ledger
from tests.real.probe_server import Behaviour, ProbeServer
from tests.servers import Server

pytestmark = pytest.mark.real(POSTGRES, REDIS)


def test_a_poll_that_was_killed_is_lost_and_the_next_ones_are_not(
    fleet: Fleet, ledger: Ledger, probe: ProbeServer
) -> None:
    fleet.configure(fleet.target("victim", probe.port, {"steady": None}))
    fleet.crew("control", "beat")
    first = fleet.worker("polls", "first").ready()
    until(lambda: ledger.outcomes()["ok"] >= 2, "two slots were polled")
    since = time.time()

    probe.behave("steady", Behaviour(stall_after=3))
    until(lambda: probe.seen.stalled["steady"], "a poll is under way")
    first.kill()
    probe.release()
    fleet.worker("polls", "second").ready()
    polled = len(ledger.stored())
    until(lambda: len(ledger.stored()) >= polled + 3, "the new worker polls")

    slots = ledger.assert_complete("victim", "steady", 2.0, since)
    lost = [slot for slot in slots if slot.outcome == "lost"]
    assert len(lost) == 1
    assert lost[0].worker.endswith(f":{first.pid}")
    assert {slot.outcome for slot in slots} <= {"ok", "lost", "skipped", "expired"}
    assert slots[-1].outcome == "ok"
    ledger.assert_nothing_lost_or_double()


def test_what_a_killed_worker_had_spooled_is_written_by_its_neighbour(
    make_fleet: MakeFleet, own_postgres: Server, own_redis: Server, probe: ProbeServer
) -> None:
    fleet = make_fleet(own_postgres.url, own_redis.url)
    ledger = Ledger(fleet.database, fleet.journal)
    fleet.configure(fleet.target("victim", probe.port, {"quick": None}))
    _, beat = fleet.crew("control", "beat")
    first = fleet.worker("polls", "first").ready()
    until(ledger.stored, "a slot was stored")

    own_postgres.kill()
    before = len(ledger.yielded())
    until(lambda: len(ledger.yielded()) >= before + 4, "polling goes on without the database")
    until(lambda: probe.seen.at_once["victim", "quick"] == 0, "no poll is under way")
    first.kill()
    assert beat.stop() == 0
    fleet.worker("polls", "neighbour").ready()
    own_postgres.start()

    stored = ledger.assert_nothing_lost_or_double()
    assert len(stored) >= before + 4
    workers = {slot.worker.rpartition(":")[2] for slot in ledger.slots() if slot.outcome == "ok"}
    assert str(first.pid) in workers
