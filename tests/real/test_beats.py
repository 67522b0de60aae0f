"""Two beats at once, the death of the one that leads, and a stop of the whole fleet."""

import time

import pytest

from nms_workers.scheduler import LEASE_SECONDS
from tests.real.conftest import POSTGRES, REDIS
from tests.real.fleet import Fleet, until
from tests.real.ledger import Ledger
from tests.real.probe_server import ProbeServer

pytestmark = pytest.mark.real(POSTGRES, REDIS)
PAUSE_SECONDS = 20.0


def test_two_beats_dispatch_once_and_one_takes_over_from_the_dead(
    fleet: Fleet, ledger: Ledger, probe: ProbeServer
) -> None:
    fleet.configure(fleet.target("a", probe.port, {"quick": None, "steady": None}))
    fleet.crew("control", "polls")
    beats = [fleet.beat("one").ready(), fleet.beat("two").ready()]
    until(lambda: len(ledger.stored()) > 5, "polling goes on")
    since = time.time()
    until(lambda: ledger.outcomes("a", "quick")["ok"] > 8, "some seconds with two beats")
    leads = [beat for beat in beats if "leads" in beat.words()]
    assert len(leads) == 1

    killed_at = time.time()
    leads[0].kill()
    (other,) = (beat for beat in beats if beat.running)
    until(lambda: "leads" in other.words(), "the other one leads", LEASE_SECONDS + 15)
    led_at = time.time()
    for poll in ("quick", "steady"):
        until(lambda poll=poll: ledger.last_ok("a", poll) > led_at, f"{poll} goes on")

    assert led_at - killed_at < LEASE_SECONDS + 5
    for poll, every in (("quick", 1.0), ("steady", 2.0)):
        slots = ledger.assert_complete("a", poll, every, since)
        assert {slot.outcome for slot in slots} <= {"ok", "expired"}
    stored = ledger.assert_nothing_lost_or_double()
    assert sum(probe.seen.reads.values()) - len(stored) <= 2, "each slot was read once"
    assert not [slot for slot in ledger.slots() if slot.outcome == "skipped"], "none was dispatched twice"


def test_a_fleet_that_was_stopped_misses_nothing_and_catches_up_on_nothing(
    fleet: Fleet, ledger: Ledger, probe: ProbeServer
) -> None:
    fleet.configure(fleet.target("a", probe.port, {"quick": None, "steady": None}))
    members = fleet.crew("control", "polls", "beat")
    until(lambda: len(ledger.stored()) > 5, "polling goes on")
    assert [member.stop() for member in reversed(members)] == [0, 0, 0]
    stopped = time.time()
    until(lambda: time.time() > stopped + PAUSE_SECONDS, "the pause", 2 * PAUSE_SECONDS)
    asked, started = sum(probe.seen.reads.values()), time.time()

    fleet.crew("control", "polls", "beat")
    until(lambda: sum(probe.seen.reads.values()) > asked + 8, "polling goes on")
    first = min(slot.due for slot in ledger.slots() if slot.due > started * 1000)
    ledger.assert_complete("a", "quick", 1.0, first / 1000)
    ledger.assert_complete("a", "steady", 2.0, first / 1000)

    between = [slot for slot in ledger.slots() if stopped * 1000 < slot.due < started * 1000]
    assert between == [], "no slot was due while nobody was there"
    ledger.assert_nothing_lost_or_double()
