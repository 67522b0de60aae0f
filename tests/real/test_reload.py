"""A changed settings file under a running fleet changes the target that changed; a broken one changes nothing."""

import time
from collections import Counter

import pytest

from tests.real.conftest import POSTGRES, REDIS
from tests.real.fleet import Fleet, until
from tests.real.ledger import Ledger
from tests.real.probe_server import ProbeServer

pytestmark = pytest.mark.real(POSTGRES, REDIS)


def test_only_what_changed_changes(fleet: Fleet, ledger: Ledger, probe: ProbeServer) -> None:
    same = fleet.target("same", probe.port, {"quick": None})
    fleet.configure(
        same, fleet.target("changed", probe.port, {"quick": None}), fleet.target("leaves", probe.port, {"quick": None})
    )
    _, _, beat = fleet.crew("control", "polls", "beat")
    until(lambda: {run.target for run in ledger.stored()} == {"same", "changed", "leaves"}, "all are polled")
    since = time.time()
    ids, schedules = _ids(ledger), _schedules(ledger)
    assert probe.seen.connections == {"same": 1, "changed": 1, "leaves": 1}

    fleet.configure(
        same,
        fleet.target("changed", probe.port, {"quick": None}, note="new"),
        fleet.target("comes", probe.port, {"steady": None}),
    )
    until(lambda: ledger.outcomes("comes")["ok"] >= 2, "the new target is polled")
    until(lambda: probe.seen.connections["changed"] == 2, "the changed one is connected anew")
    until(lambda: probe.seen.open["leaves"] == 0, "the one that left is not connected any more")

    assert probe.seen.connections["same"] == 1
    assert +probe.seen.open == {"same": 1, "changed": 1, "comes": 1}
    assert _ids(ledger) | ids == _ids(ledger), "nobody got another id"
    now = _schedules(ledger)
    assert {key: now[key] for key in now if key in schedules} == {
        key: value for key, value in schedules.items() if key[0] != ids["leaves"]
    }
    ended = Counter(slot.outcome for slot in ledger.assert_complete("same", "quick", 1.0, since))
    assert ended["ok"] > ended.total() / 2, "it is polled all the time"
    assert ended.keys() <= {"ok", "expired"}, "late on a busy machine, and never twice or without a trace"
    assert ledger.rows("SELECT name FROM targets WHERE state = 'gone'") == [("leaves",)]

    reads = probe.seen.reads["same", "quick"]
    fleet.config.write_text(fleet.config.read_text().replace('alias = "comes"', 'alias = ["comes"]'))
    until(lambda: "are refused" in beat.words(), "the broken file is refused")
    until(lambda: probe.seen.reads["same", "quick"] > reads + 5, "the settings before it stay")
    assert beat.words().count("are refused") == 1, "told once, not at every look"
    line = fleet.config.read_text().splitlines().index('alias = ["comes"]') + 1
    assert f"{fleet.config}:{line}: targets.2.alias" in beat.words()
    assert ledger.rows("SELECT count(*) FROM targets WHERE state = 'active'") == [(3,)]
    ledger.assert_nothing_lost_or_double()


def _ids(ledger: Ledger) -> dict[str, int]:
    return dict(ledger.rows("SELECT name, id FROM targets"))


def _schedules(ledger: Ledger) -> dict[tuple[int, str], tuple[int, int]]:
    rows = ledger.rows("SELECT target_id, poll, every_ms, phase_ms FROM schedules")
    return {(target, poll): (every, phase) for target, poll, every, phase in rows}
