"""Targets that were found wait, are approved, and are not proposed twice."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

from nms_workers.change import Proposal
from nms_workers.errors import ConfigError, Refused
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.proposals import Proposed, approve, propose, waiting
from nms_workers.fleet.targets import sync
from nms_workers.settings import Settings, TargetConfig
from tests.fleet.stores import rows

NOW = datetime(2026, 6, 1, tzinfo=UTC)
Enter = Callable[..., Proposed]


def found(name: str, host: str, *others: str, identity: str = "", **more: Any) -> Proposal:
    settings = {"host": host, "community": "env:SNMP_COMMUNITY", **more.pop("settings", {})}
    return Proposal(name, settings, (host, *others), identity, about={"name": name}, **more)


@pytest.fixture
def enter(engine: Engine) -> Enter:
    def make(*proposals: Proposal) -> Proposed:
        with engine.begin() as connection:
            return propose(connection, "snmp", "discovery", proposals)

    return make


def states(engine: Engine) -> list[tuple[Any, ...]]:
    return rows(engine, "SELECT name, source, state, settings FROM targets ORDER BY id")


def test_a_proposal_waits_and_is_not_polled_until_it_is_approved(
    engine: Engine, red: "redis.Redis", enter: Enter
) -> None:
    inventory = Inventory(red)
    assert enter(found("core", "192.0.2.1")) == Proposed(waiting=["core"])
    settings = {"host": "192.0.2.1", "community": "env:SNMP_COMMUNITY"}
    assert states(engine) == [("core", "discovery", "proposed", settings)]
    sync(engine, inventory, Settings(), NOW)
    assert inventory.all() == {}
    with engine.begin() as connection:
        assert waiting(connection) == 1
        assert approve(connection, None, ["core"], NOW) == ["snmp/core"]
        assert approve(connection, "snmp", ["core"], NOW) == []
    assert inventory.known()
    inventory.outdate()
    assert not inventory.known(), "beat, which looks for this, makes a sync"
    sync(engine, inventory, Settings(), NOW)
    assert inventory.known()
    (target,) = inventory.all().values()
    assert (target.name, target.settings) == ("core", settings)


@pytest.mark.parametrize(
    "again",
    [
        found("other", "192.0.2.1"),
        found("other", "192.0.2.9", "192.0.2.2"),
        found("other", "192.0.2.9", identity="8000abcd"),
    ],
    ids=["address", "second address", "identity"],
)
@pytest.mark.parametrize("state", ["proposed", "active", "paused", "gone"])
def test_a_device_that_is_known_is_left_out(engine: Engine, enter: Enter, again: Proposal, state: str) -> None:
    enter(found("core", "192.0.2.1", "192.0.2.2", identity="8000abcd"))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE targets SET state = '{state}'")
    before = states(engine)
    assert enter(again) == Proposed(known=1)
    assert states(engine) == before


def test_targets_of_the_file_are_known_by_address_and_by_name(engine: Engine, red: "redis.Redis", enter: Enter) -> None:
    both = [("a", "192.0.2.1"), ("b", "Edge-7.example.net")]
    configured = [
        TargetConfig.model_validate({"service": "snmp", "name": name, "host": host, "community": "env:X"})
        for name, host in both
    ]
    sync(engine, Inventory(red), Settings(targets=configured), NOW)
    entered = enter(found("x", "192.0.2.1"), found("edge-7.example.net", "192.0.2.7"), found("new", "192.0.2.8"))
    assert (entered.waiting, entered.known) == (["new"], 2)
    other_port = enter(found("y", "192.0.2.1", settings={"port": 1161}))
    assert other_port.waiting == ["y"], "another agent of the same machine"


def test_two_devices_of_one_name_are_two_targets(engine: Engine, enter: Enter) -> None:
    entered = enter(
        found("Switch", "192.0.2.1", identity="01", settings={"port": 161}),
        found("Switch", "192.0.2.2", identity="02", settings={"port": 162}),
    )
    assert entered.waiting == ["Switch", "Switch-192.0.2.2"]


def test_a_rule_approves_at_once(engine: Engine, enter: Enter) -> None:
    entered = enter(found("a", "192.0.2.1", approved=True), found("b", "192.0.2.2"))
    assert entered == Proposed(waiting=["b"], active=["a"])
    assert str(entered) == "waiting: b; active: a; known already: 0"


def test_settings_that_do_not_fit_are_refused_whole(engine: Engine, enter: Enter) -> None:
    with pytest.raises(ConfigError, match="the settings of bad do not fit snmp: community") as caught:
        enter(found("good", "192.0.2.1"), found("bad", "192.0.2.2", settings={"community": "public"}))
    assert "public" not in str(caught.value)
    assert states(engine) == []


def test_what_cannot_be_approved_is_told(engine: Engine, enter: Enter) -> None:
    enter(found("core", "192.0.2.1"))
    with engine.begin() as connection, pytest.raises(Refused, match="no target 'nobody' waits"):
        approve(connection, None, ["core", "nobody"], NOW)
    with engine.begin() as connection, pytest.raises(Refused, match="no target 'core' waits"):
        approve(connection, "redis", ["core"], NOW)
