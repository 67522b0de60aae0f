"""A poll that takes longer than its interval is cut off, what it had read is kept, and it never runs twice at once."""

import time

import pytest

from tests.real.conftest import POSTGRES, REDIS
from tests.real.fleet import Fleet, until
from tests.real.ledger import Ledger
from tests.real.probe_server import Behaviour, ProbeServer

pytestmark = pytest.mark.real(POSTGRES, REDIS)


def test_the_deadline_is_kept_and_what_was_read_before_it_too(fleet: Fleet, ledger: Ledger, probe: ProbeServer) -> None:
    probe.behave("quick", Behaviour(pause=0.25))
    probe.behave("steady", Behaviour(stall_after=0))
    fleet.configure(fleet.target("slow", probe.port, {"quick": None, "steady": None}))
    fleet.crew("control", "polls", "beat")
    until(lambda: len(ledger.slots("slow", "quick")) > 5 and len(ledger.slots("slow", "steady")) > 3, "it was polled")
    since = time.time() - 4

    for slot in ledger.assert_complete("slow", "quick", 1.0, since):
        if slot.outcome == "partial":
            assert slot.detail.startswith("timeout")
            assert 1 < slot.samples <= 5
    partial = [run.values for run in ledger.assert_nothing_lost_or_double() if run.poll == "quick"]
    assert partial
    assert max(partial) <= 5
    took = [row[0] for row in ledger.rows("SELECT milliseconds FROM poll_runs WHERE outcome = 'partial'")]
    assert max(took) < 2000 * 0.8 + 500
    assert ledger.outcomes("slow", "steady")["partial"] > 0, "the number of the read was read"
    assert probe.seen.most_at_once["slow", "quick"] == 1
    assert probe.seen.most_at_once["slow", "steady"] == 1


def test_a_client_that_overruns_is_not_asked_again_meanwhile(fleet: Fleet, ledger: Ledger, probe: ProbeServer) -> None:
    probe.behave("stubborn", Behaviour(stall_after=2))
    fleet.configure(fleet.target("slow", probe.port, {"stubborn": None}))
    fleet.crew("control", "polls", "beat")
    until(lambda: probe.seen.stalled["stubborn"], "a poll is under way")
    since = time.time()
    until(lambda: ledger.outcomes("slow")["skipped"] >= 3, "the next ones are skipped, and counted")
    probe.release()
    until(lambda: ledger.outcomes("slow")["ok"] >= 3, "then it is polled again")

    slots = ledger.assert_complete("slow", "stubborn", 1.0, since)
    skipped = [slot for slot in slots if slot.outcome == "skipped"]
    assert all("the previous run still goes" in slot.detail for slot in skipped)
    assert probe.seen.most_at_once["slow", "stubborn"] == 1
    overran = [slot for slot in ledger.slots("slow") if slot.outcome == "partial"]
    assert [slot.samples for slot in overran] == [4]
    ledger.assert_nothing_lost_or_double()
