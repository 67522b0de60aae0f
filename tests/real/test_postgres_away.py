"""PostgreSQL goes away under load: polling goes on, what was read waits on disk, and all of it arrives, in order."""

import os
import time
from itertools import pairwise

import pytest

from nms_workers.store.spool import Spool
from tests.real.conftest import POSTGRES, REDIS, MakeFleet
from tests.real.fleet import until
from tests.real.ledger import Ledger
from tests.real.probe_server import VALUES, ProbeServer
from tests.servers import Server

pytestmark = pytest.mark.real(POSTGRES, REDIS)
AWAY_SECONDS = float(os.environ.get("NMS_TEST_OUTAGE_SECONDS", "20"))
TARGETS = 24


@pytest.mark.timeout(180 + AWAY_SECONDS)
def test_nothing_that_was_read_is_lost(
    make_fleet: MakeFleet, own_postgres: Server, own_redis: Server, probe: ProbeServer
) -> None:
    fleet = make_fleet(own_postgres.url, own_redis.url)
    ledger = Ledger(fleet.database, fleet.journal)
    names = [f"t{number}" for number in range(TARGETS)]
    fleet.configure(*(fleet.target(name, probe.port, {"quick": None, "together": None}) for name in names))
    members = fleet.crew("control", "polls", "beat")
    until(lambda: {run.target for run in ledger.stored()} == set(names), "every target was polled")
    since = time.time()
    spool = Spool(fleet.folder / "data" / "spool")

    own_postgres.kill()
    gone, reads, waiting = time.monotonic(), len(ledger.yielded()), spool.backlog().rows
    until(lambda: time.monotonic() > gone + AWAY_SECONDS / 2, "half of the outage", AWAY_SECONDS)
    halfway = spool.backlog()
    until(lambda: time.monotonic() > gone + AWAY_SECONDS, "the outage", AWAY_SECONDS)
    assert waiting < halfway.rows < spool.backlog().rows, "what was read waits"
    assert halfway.oldest_seconds > AWAY_SECONDS / 4
    assert len(ledger.yielded()) > reads + TARGETS * AWAY_SECONDS * 0.7, "polling went on as before"
    own_postgres.start()
    until(lambda: spool.backlog().rows < TARGETS, "the spool is drained")
    spool.close()

    end = time.time()
    for name in names:
        ok = [slot for slot in ledger.assert_complete(name, "quick", 1.0, since, end) if slot.outcome == "ok"]
        assert {slot.samples for slot in ok} == {VALUES + 1}
    for member in reversed(members):
        assert member.stop() == 0
    stored = ledger.assert_nothing_lost_or_double()
    yielded = ledger.yielded()
    counted = ledger.rows("SELECT count(*), sum(value) FROM samples WHERE metric <> 'target_healthy'")
    assert counted == [(sum(run.values for run in yielded), sum(run.total for run in yielded))]
    assert len(stored) == len(yielded)
    # a transaction is a batch; PostgreSQL numbers them in the order of their beginnings
    inserted = ledger.rows(
        "SELECT target_id, poll, xmin::text::bigint, min(due), max(due) FROM poll_runs "
        "WHERE outcome = 'ok' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    for earlier, later in pairwise(inserted):
        assert earlier[:2] != later[:2] or earlier[4] < later[3], "rows came in the order in which they were read"
