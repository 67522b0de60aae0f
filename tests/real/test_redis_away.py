"""Redis (broker, locks, inventory) goes away and comes back: everybody survives, and every slot is accounted for."""

import time

import pytest

from tests.real.conftest import POSTGRES, REDIS
from tests.real.fleet import Fleet, until
from tests.real.ledger import Ledger
from tests.real.probe_server import ProbeServer
from tests.servers import Server

pytestmark = pytest.mark.real(POSTGRES, REDIS)
AWAY_SECONDS = 6.0


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_fleet_goes_on(how: str, fleet: Fleet, ledger: Ledger, probe: ProbeServer, own_redis: Server) -> None:
    fleet.configure(
        fleet.target("a", probe.port, {"quick": None, "steady": None}),
        fleet.target("b", probe.port, {"together": None}),
    )
    members = fleet.crew("control", "polls", "beat")
    until(lambda: {"a", "b"} <= {run.target for run in ledger.stored()}, "both targets were polled")
    since = time.time()

    stop = own_redis.stop if how == "stop" else own_redis.kill
    stop()
    back = time.monotonic() + AWAY_SECONDS
    until(lambda: time.monotonic() > back, "the outage is over", 2 * AWAY_SECONDS)
    own_redis.start()

    returned = time.time()
    for member in members:
        until(lambda member=member: member.beats(returned), f"{member.name} goes on")
    reads = len(ledger.stored())
    until(lambda: len(ledger.stored()) >= reads + 10, "polling goes on")
    for target, poll, every in (("a", "quick", 1.0), ("a", "steady", 2.0), ("b", "together", 2.0)):
        slots = ledger.assert_complete(target, poll, every, since)
        assert slots[-1].outcome == "ok", (target, poll)
        assert probe.seen.most_at_once[target, poll] == 1
    ledger.assert_nothing_lost_or_double()
    assert all(member.running for member in members)
