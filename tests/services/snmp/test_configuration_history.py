"""What a real PostgreSQL keeps of configurations: versions with their time in force, each change once."""

from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine

from nms_workers.change import Proposal
from nms_workers.errors import Outcome
from nms_workers.fleet.proposals import propose
from nms_workers.records import Entity, Event
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.service import Snmp
from nms_workers.services.snmp.target import SnmpTarget
from nms_workers.store.history import History
from nms_workers.store.slot import SlotResult
from tests.fleet.stores import database_url, engine, postgres_name, rows
from tests.servers import PASSWORD
from tests.services.snmp.ios import Router

__all__ = ["database_url", "engine", "postgres_name"]

LINES = ["hostname edge-7", "snmp-server community hunter2 RO", "ip routing", "end"]


def test_versions_have_their_time_and_a_change_is_told_once(engine: Engine, tmp_path: Path) -> None:
    with Router(LINES, PASSWORD) as router:
        access = {
            "driver": "cisco_ios",
            "username": "nms",
            "password": "env:TEST_PASS",
            "port": router.port,
            "archive": str(tmp_path),
            "any_host_key": True,
        }
        settings = {"host": "127.0.0.1", "community": "env:TEST_PUBLIC", "configuration": access}
        with engine.begin() as connection:
            propose(connection, "snmp", "discovery", [Proposal("edge-7", settings, approved=True)])
        ((target_id,),) = rows(engine, "SELECT id FROM targets")
        history = History(engine, lambda _: None)
        for community in ("hunter2", "hunter3", "hunter3"):
            router.lines[1] = f"snmp-server community {community} RO"
            history.write([_run(target_id, SnmpClient(SnmpTarget.model_validate(settings)))])

    old, new = rows(engine, "SELECT key, gone_at, attributes->>'text' FROM entities ORDER BY key")
    assert old[1] is not None
    assert new[1] is None
    assert old[2] == new[2], "only the community changed, which neither shows"
    ((kind, before, after, diff),) = rows(
        engine,
        "SELECT kind, attributes->>'before', attributes->>'after', attributes->>'diff' FROM events",
    )
    assert (kind, before, after) == ("configuration_changed", old[0], new[0])
    assert "-snmp-server community <masked> RO\n+snmp-server community <masked> RO" in diff
    assert "hunter" not in repr(rows(engine, "SELECT e::text, t::text FROM events e, targets t"))
    kept = {path.read_text().count("hunter") for path in tmp_path.glob("*/*.cfg")}
    assert kept == {1}, "the archive has them whole"


def _run(target_id: int, client: SnmpClient) -> SlotResult:
    started = datetime.now(UTC)
    records = list(Snmp.polls()["configuration"].run(client))
    return SlotResult(
        target_id=target_id,
        service="snmp",
        target="edge-7",
        poll="configuration",
        due=started,
        started=started,
        finished=datetime.now(UTC),
        outcome=Outcome.OK,
        events=tuple(one for one in records if isinstance(one, Event)),
        entities=tuple(one for one in records if isinstance(one, Entity)),
        enumerated=tuple(Snmp.polls()["configuration"].enumerates),
        complete=True,
    )
