"""Changes of agents: a real Net-SNMP agent, and our own where it cannot be changed."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from nms_workers.change import Change
from nms_workers.errors import ConfigError, Refused
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.service import Snmp
from nms_workers.services.snmp.target import SnmpTarget
from tests.services.snmp.conftest import Connect
from tests.services.snmp.faulty import Agent, Behaviour, Oid

SYSTEM = {"contact": "1.3.6.1.2.1.1.4.0", "name": "1.3.6.1.2.1.1.5.0", "location": "1.3.6.1.2.1.1.6.0"}
STATUS = (1, 3, 6, 1, 2, 1, 2, 2, 1, 7)


def act(client: SnmpClient, name: str, /, **arguments: Any) -> Change:
    """Run an action as a job does: with validated arguments."""
    declared = Snmp.actions()[name]
    return declared.run(client, **declared.validate(arguments))


def undo(client: SnmpClient, name: str, change: Change, /, **arguments: Any) -> Change:
    """Undo it as a job does: with the arguments that the undo takes, and with what was there before."""
    back = Snmp.actions()[Snmp.actions()[name].undo or ""]
    takes = {key: value for key, value in arguments.items() if key in back.arguments.model_fields}
    return back.run(client, **back.validate(takes | {"before": change.before}))


@pytest.fixture
def writer(connect: Connect) -> Iterator[SnmpClient]:
    """A client that may write the system group of the real agent, which is left as it was."""
    client = connect(write_community="env:TEST_PRIVATE")
    kept = {oid: client.get(oid) for oid in SYSTEM.values() if oid != SYSTEM["location"]}
    yield client
    client.set({oid: ("hex", bytes(value).hex()) for oid, value in kept.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("action", "arguments", "oid"),
    [
        ("set_contact", {"text": "ops <ops@example.net>"}, SYSTEM["contact"]),
        ("set_contact", {"text": ""}, SYSTEM["contact"]),
        ("set_name", {"name": "edge-7"}, SYSTEM["name"]),
    ],
    ids=["contact", "empty", "name"],
)
def test_a_text_is_set_once_and_taken_back(
    writer: SnmpClient, action: str, arguments: dict[str, str], oid: str
) -> None:
    writer.set({oid: ("text", "before the test")})
    before, (wanted,) = writer.get(oid), arguments.values()
    dry = Snmp.actions()[action]
    assert dry.run(writer, **dry.validate(arguments), dry_run=True).changed
    assert writer.get(oid) == before, "a dry run changes nothing"
    change = act(writer, action, **arguments)
    assert (change.changed, writer.get(oid)) == (True, wanted.encode())
    assert not act(writer, action, **arguments).changed
    assert undo(writer, action, change, **arguments).changed
    assert writer.get(oid) == before


def test_what_the_agent_does_not_let_us_write_is_told(writer: SnmpClient) -> None:
    with pytest.raises(Refused, match="cannot be written"):  # sysLocation stands in the agent's own file
        act(writer, "set_location", text="elsewhere")


def test_reading_needs_no_community_that_may_write(connect: Connect) -> None:
    client = connect()
    with pytest.raises(Refused, match="may not do that"):
        act(client, "set_contact", text="x")
    unset = connect(write_community="env:TEST_NOT_SET")
    assert unset.get(SYSTEM["location"]) == b"a rack of the tests"
    with pytest.raises(ConfigError, match="TEST_NOT_SET is not set"):
        act(unset, "set_contact", text="x")


@pytest.mark.parametrize("writable", [[], ["1.3.6.1.2.1.1.5"], ["1.3.6.1.2.1.1.40"]], ids=["none", "other", "alike"])
def test_only_what_the_settings_name_is_set(connect: Connect, writable: list[str]) -> None:
    client = connect(write_community="env:TEST_PRIVATE", writable=writable)
    before = client.get(SYSTEM["contact"])
    with pytest.raises(Refused, match="`writable`"):
        act(client, "set_value", oid=SYSTEM["contact"], kind="text", value="x")
    values = {"values": [{"oid": "1.3.6.1.2.1.1.9.1.3.1", "kind": "text", "value": "x"}]}
    with pytest.raises(Refused, match="`writable`"):
        act(client, "restore_values", before=values)
    assert client.get(SYSTEM["contact"]) == before


def test_a_value_is_set_and_taken_back(connect: Connect, writer: SnmpClient) -> None:
    client = connect(write_community="env:TEST_PRIVATE", writable=["1.3.6.1.2.1.1.4"])
    octets = "caf\u00e9\x01".encode()
    client.set({SYSTEM["contact"]: ("hex", octets.hex())})
    wanted = {"oid": SYSTEM["contact"], "kind": "text", "value": "Zo\u00eb"}
    change = act(client, "set_value", **wanted)
    assert client.get(SYSTEM["contact"]) == "Zo\u00eb".encode()
    assert not act(client, "set_value", **wanted).changed
    undo(client, "set_value", change, **wanted)
    assert client.get(SYSTEM["contact"]) == octets


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("set_value", {"oid": "1.3.6.1.2.1.1.4.0", "kind": "integer", "value": 5}, "another kind"),
        ("set_value", {"oid": "1.3.6.1.2.1.1.4.0", "kind": "hex", "value": "xy"}, "is no hex"),
        ("set_value", {"oid": "1.3.6.1.2.1.1.4.7", "kind": "text", "value": "x"}, "has no 1.3.6.1.2.1.1.4.7"),
        ("set_value", {"oid": "1.3.6.1.2.1.1.4.0;", "kind": "text", "value": "x"}, "no object identifier"),
        ("set_value", {"oid": "1.3.6.1.2.1.1.4.0", "kind": "sql", "value": "x"}, "kind"),
        ("set_contact", {"text": "two\nlines"}, "text"),
        ("set_name", {"name": ""}, "name"),
        ("set_interface_admin_state", {"interface": "lo", "state": "testing"}, "state"),
        ("set_interface_admin_state", {"interface": "no-such", "state": "up"}, "has no interface 'no-such'"),
        ("restore_values", {"before": {"values": [{"oid": "1.3"}]}}, "not what was there before"),
        ("restore_interface_admin_state", {"interface": "lo", "before": {"state": "testing"}}, "cannot be set"),
    ],
)
def test_what_makes_no_sense_is_refused(
    writer: SnmpClient, connect: Connect, name: str, arguments: dict[str, Any], why: str
) -> None:
    client = connect(write_community="env:TEST_PRIVATE", writable=["1.3.6.1.2.1.1.4"])
    with pytest.raises(Refused, match=why):
        act(client, name, **arguments)


@pytest.mark.parametrize("bad", ["a\nb", "", "\u00fcber", "x" * 256], ids=["newline", "empty", "wide", "long"])
def test_a_community_is_checked_before_it_is_sent(connect: Connect, monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    monkeypatch.setenv("TEST_BAD", bad)
    client = connect(community="env:TEST_BAD")
    calls: list[Callable[[], object]] = [
        lambda: client.get(SYSTEM["name"]),
        lambda: client.set({SYSTEM["name"]: ("text", "x")}),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="printable ASCII") as caught:
            call()
        assert not bad or bad not in str(caught.value)


# Interfaces, at an agent of our own: Net-SNMP changes those of the machine it runs on.


def switch(addresses: Mapping[str, int]) -> dict[Oid, int | bytes]:
    """Three ports, of which two are up, and the addresses they hold."""
    rows: dict[Oid, int | bytes] = {}
    for index, (name, status) in enumerate([("ge-0/0/1", 1), ("ge-0/0/2", 1), ("ge-0/0/3", 2)], start=11):
        rows[1, 3, 6, 1, 2, 1, 2, 2, 1, 2, index] = b"Ethernet"
        rows[*STATUS, index] = status
        rows[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 1, index] = name.encode()
    for address, index in addresses.items():
        rows[(*map(int, f"1.3.6.1.2.1.4.20.1.2.{address}".split(".")),)] = index
    return rows


def client_of(agent: Agent) -> SnmpClient:
    return SnmpClient(
        SnmpTarget.model_validate({"host": "127.0.0.1", "port": agent.port, "community": "env:TEST_PUBLIC"})
    )


WRITABLE = frozenset((*STATUS, index) for index in (11, 12, 13))


def test_an_interface_goes_down_and_comes_back() -> None:
    with Agent(switch({"127.0.0.1": 12}), writable=WRITABLE) as agent:
        client, wanted = client_of(agent), {"interface": "ge-0/0/1", "state": "down"}
        change = act(client, "set_interface_admin_state", **wanted)
        assert (change.before, change.after) == ({"interface": "ge-0/0/1", "state": "up"}, wanted)
        assert not act(client, "set_interface_admin_state", **wanted).changed
        undo(client, "set_interface_admin_state", change, **wanted)
        act(client, "set_interface_admin_state", interface="ge-0/0/3", state="up")
        assert agent.was_set == [((*STATUS, 11), 2), ((*STATUS, 11), 1), ((*STATUS, 13), 1)]


@pytest.mark.parametrize("newer", [False, True], ids=["ipAddrTable", "ipAddressTable"])
def test_the_interface_we_come_by_stays_up(newer: bool) -> None:
    rows = switch({} if newer else {"127.0.0.1": 12})
    if newer:
        rows[1, 3, 6, 1, 2, 1, 4, 34, 1, 3, 1, 4, 127, 0, 0, 1] = 12
    with Agent(rows, writable=WRITABLE) as agent:
        with pytest.raises(Refused, match="through which the device is managed"):
            act(client_of(agent), "set_interface_admin_state", interface="ge-0/0/2", state="down")
        assert agent.was_set == []


def test_an_agent_that_says_yes_and_does_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nms_workers.services.snmp.actions._TAKES", 0.3)
    with (
        Agent(switch({}), Behaviour(forgets=True), writable=WRITABLE) as agent,
        pytest.raises(Refused, match="did not go down"),
    ):
        act(client_of(agent), "set_interface_admin_state", interface="ge-0/0/1", state="down")


# Neighbours


def test_neighbours_by_lldp_and_cdp() -> None:
    rows = switch({})
    lldp, local = (1, 0, 8802, 1, 1, 2, 1, 4), (1, 0, 8802, 1, 1, 2, 1, 3, 7, 1)
    cdp = (1, 3, 6, 1, 4, 1, 9, 9, 23, 1, 2, 1, 1)
    mac = bytes.fromhex("0200c0ffee01")
    remote: dict[int, int | bytes] = {4: 4, 5: mac, 6: 5, 7: b"Ethernet1", 8: b"uplink", 9: b"spine-1", 10: b"a switch"}
    cache: dict[int, int | bytes] = {3: 1, 4: bytes([10, 0, 0, 8]), 5: b"IOS", 6: b"core", 7: b"Gi0/1", 8: b"C9300"}
    for column, value in remote.items():
        rows[*lldp, 1, 1, column, 0, 502, 3] = value
    rows[*lldp, 2, 1, 3, 0, 502, 3, 1, 4, 10, 0, 0, 9] = 1
    rows[*lldp, 2, 1, 4, 0, 502, 3, 1, 4, 10, 0, 0, 9] = 7
    rows[*local, 2, 502], rows[*local, 3, 502] = 5, b"ge-0/0/2"
    for column, value in cache.items():
        rows[*cdp, column, 13, 1] = value
    with Agent(rows) as agent:
        by_lldp, by_cdp = client_of(agent).discover_neighbors()
    assert (by_lldp.protocol, by_lldp.interface, by_lldp.chassis, by_lldp.port, by_lldp.name, by_lldp.addresses) == (
        "lldp",
        "ge-0/0/2",
        "02:00:c0:ff:ee:01",
        "Ethernet1",
        "spine-1",
        ("10.0.0.9",),
    )
    assert (by_cdp.interface, by_cdp.name, by_cdp.port, by_cdp.platform, by_cdp.addresses) == (
        "ge-0/0/3",
        "core",
        "Gi0/1",
        "C9300",
        ("10.0.0.8",),
    )
