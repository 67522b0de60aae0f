"""Redis dies under an action that is acknowledged late: Celery 5.7.0 workers exit then, and we hold Celery below it."""

import time

import pytest

from tests.real.conftest import POSTGRES, REDIS
from tests.real.fleet import Fleet, until
from tests.real.jobs import act, ended
from tests.real.ledger import Ledger
from tests.real.probe_server import ProbeServer
from tests.servers import Server

pytestmark = pytest.mark.real(POSTGRES, REDIS)


def test_a_worker_survives_the_broker_s_death_under_an_action(
    fleet: Fleet, ledger: Ledger, probe: ProbeServer, own_redis: Server
) -> None:
    fleet.configure(fleet.target("it", probe.port, {}))
    members = fleet.crew("control", "beat", "actions")
    probe.hold_effects = True
    first = act(fleet, "apply", "ban")
    until(lambda: probe.seen.stalled["ban"], "the action is in the middle")

    own_redis.kill()
    killed = time.monotonic()
    until(lambda: "Connection refused" in members[2].words(), "the worker misses the broker")
    until(lambda: time.monotonic() > killed + 2, "some time without a broker")
    own_redis.start()
    probe.release()

    row = ended(ledger, first)
    assert (row["state"], row["attempts"]) == ("succeeded", 1)
    returned = time.time()
    for member in members:
        until(lambda member=member: member.beats(returned), f"{member.name} goes on")
    second = ended(ledger, act(fleet, "apply", "unban"))
    assert (second["state"], second["attempts"]) == ("succeeded", 1)
    assert probe.seen.effects == {"ban": 1, "unban": 1}
    assert [member.process.poll() for member in members] == [None, None, None]
    assert "Unrecoverable error" not in members[2].words()
