"""The action `discover` as a job: what it finds becomes targets in the transaction in which it ends."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import redis
from sqlalchemy import Engine

from nms_workers.fleet.clients import Clients
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.targets import sync
from nms_workers.jobs.audit import history
from nms_workers.jobs.desk import Desk
from nms_workers.jobs.run import run
from nms_workers.jobs.submit import submit
from nms_workers.jobs.wish import Wish
from nms_workers.settings import Settings, TargetConfig
from tests.fleet.stores import rows
from tests.servers import Server


def test_what_is_found_becomes_targets_once(
    desk: Desk,
    engine: Engine,
    red: "redis.Redis",
    start_server: Callable[..., Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_PUBLIC", "public")
    known = start_server("snmpd", addresses=("127.79.1.2",), lines="sysName known\n")
    start_server("snmpd", addresses=("127.79.1.3", "127.79.1.4"), at_port=known.port, lines="sysName new\n")
    discovery = {"networks": ["127.79.1.0/29"], "approve": ["1.3.6.1.4.1.8072"]}
    settings = {"host": "127.79.1.2", "port": known.port, "community": "env:TEST_PUBLIC", "discovery": discovery}
    target = TargetConfig.model_validate({"service": "snmp", "name": "seed", **settings})
    inventory, clients = Inventory(red), Clients()
    sync(engine, inventory, Settings(targets=[target]), datetime.now(UTC))
    (seed,) = inventory.all().values()
    for known_already, changed in (("1", [("new", "active")]), ("2", [("new", "active")])):
        job = submit(desk, Wish("snmp", "discover", "seed", {}, requested_by="me"))
        ended = run(desk, job, "here:1", lambda _: clients.get(seed))
        assert (ended.state, ended.error) == ("succeeded", None)
        told = next(event.why for event in history(engine, job.id) if event.event == "proposed")
        assert told.endswith(f"known already: {known_already}")
        assert rows(engine, "SELECT name, state FROM targets WHERE source = 'discovery'") == changed
    sync(engine, inventory, Settings(targets=[target]), datetime.now(UTC))
    new = next(one for one in inventory.all().values() if one.name == "new")
    assert new.settings == {"host": "127.79.1.3", "port": known.port, "community": "env:TEST_PUBLIC"}
