"""What devices tell, through the profiles: vendors' tables by their MIB files, users' profiles, states that fire."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from nms_workers.errors import ConfigError
from nms_workers.records import Event, Record, SampleBlock
from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.profile import ALARMS, POLLS, Profile, ours, read
from nms_workers.services.snmp.service import Snmp
from nms_workers.services.snmp.target import SnmpTarget
from tests.services.snmp.faulty import Agent
from tests.services.snmp.vendors import VENDORS, oid, rows

Device = Callable[[str], SnmpClient]


def client(agent: Agent, **settings: Any) -> SnmpClient:
    given = {"host": "127.0.0.1", "port": agent.port, "community": "env:TEST_PUBLIC", "timeout": 3, **settings}
    return SnmpClient(SnmpTarget.model_validate(given))


def polled(of: SnmpClient, poll: str) -> list[Record]:
    return list(of.topology() if poll == "topology" else of.poll(poll))


def measured(records: Iterable[Record]) -> dict[tuple[str, str], float]:
    """(metric, value of its first label) to number."""
    found: dict[tuple[str, str], float] = {}
    for record in records:
        if isinstance(record, SampleBlock):
            for member, value in zip(record.layout.members, record.values, strict=True):
                found[member.metric, member.labels[0][1] if member.labels else ""] = float(value)
    return found


def events(records: Iterable[Record]) -> dict[str, str]:
    return {record.fingerprint: record.message for record in records if isinstance(record, Event)}


def vendor(name: str) -> Agent:
    object_id, told, _ = VENDORS[name]
    return _Vendor(rows(told), object_id)


class _Vendor(Agent):
    """An agent that tells whose it is."""

    def __init__(self, told: dict[tuple[int, ...], int | bytes], object_id: str) -> None:
        self._object_id = object_id
        super().__init__(told)

    def _value(self, one: tuple[int, ...]) -> Any:
        if one == oid("1.3.6.1.2.1.1.2.0"):
            from pysnmp.proto.rfc1902 import ObjectIdentifier  # noqa: PLC0415 - slow to import

            return ObjectIdentifier(self._object_id)
        return super()._value(one)


@pytest.mark.parametrize("name", sorted(VENDORS))
def test_a_vendor_by_its_mib(name: str) -> None:
    with vendor(name) as agent:
        found = measured(polled(client(agent), "health"))
    expected = VENDORS[name][2]
    assert {key: found.get(key) for key in expected} == {key: pytest.approx(value) for key, value in expected.items()}


def test_parts_that_are_not_well_fire_and_are_resolved_by_silence() -> None:
    with vendor("cisco") as agent:
        one = client(agent)
        key = "CISCO-ENTITY-FRU-CONTROL-MIB::cefcFRUPowerStatusEntry:PowerSupply-1"
        assert events(polled(one, "health")) == {key: "PowerSupply-1 is failed"}
        agent.rows[oid("1.3.6.1.4.1.9.9.117.1.1.2.1.2.22")] = 2  # type: ignore[index]
        assert events(polled(one, "health")) == {}
        assert ALARMS["health"] in Snmp.polls()["health"].enumerates


PEER = "1.3.6.1.2.1.15.3.1"


def peers(*states: tuple[str, int, int]) -> dict[tuple[int, ...], int | bytes]:
    told: dict[str, int | bytes] = {}
    for address, state, admin in states:
        told |= {f"{PEER}.2.{address}": state, f"{PEER}.3.{address}": admin, f"{PEER}.9.{address}": 65001}
        told |= {f"{PEER}.{column}.{address}": column for column in (10, 11, 12, 13, 15, 16, 24)}
    return rows(told)


def test_a_configured_bgp_peer_that_is_not_established_fires() -> None:
    with Agent(peers(("10.0.0.1", 6, 2), ("10.0.0.2", 3, 2), ("10.0.0.3", 1, 1))) as agent:
        records = polled(client(agent), "routing")
    assert events(records) == {
        "BGP4-MIB::bgpPeerEntry:10.0.0.2:65001": "BGP peer 10.0.0.2 (AS 65001) is active",
    }, "a peer that an administrator stopped is no fault"
    found = measured(records)
    assert found["snmp_bgp_peer_state", "10.0.0.1"] == 6
    assert found["snmp_bgp_peer_enabled", "10.0.0.3"] == 0
    assert found["snmp_bgp_peer_state_seconds", "10.0.0.1"] == 16


def test_a_device_that_numbers_its_ports_anew_keeps_its_series() -> None:
    def ports(numbers: dict[str, int], uptime: int) -> dict[tuple[int, ...], int | bytes]:
        told: dict[str, int | bytes] = {}
        for at, (name, index) in enumerate(numbers.items()):
            told |= {f"1.3.6.1.2.1.2.2.1.2.{index}": name.encode(), f"1.3.6.1.2.1.31.1.1.1.1.{index}": name.encode()}
            told |= {f"1.3.6.1.2.1.31.1.1.1.6.{index}": 100 + at}
        return rows(told) | {oid("1.3.6.1.2.1.1.3.0"): uptime}

    with Agent(ports({"Gi0/1": 1, "Gi0/2": 2, "Te1/1": 3}, 900_000)) as agent:
        one = client(agent)
        before = measured(polled(one, "interfaces"))
        fewer = ports({"Te1/1": 1, "Gi0/1": 10, "Gi0/2": 11}, 500)
        agent.rows = fewer
        agent._order = sorted(fewer)
        after = measured(polled(one, "interfaces"))
    assert before.keys() == after.keys()
    octets = "snmp_interface_in_octets_total"
    assert [before[octets, name] for name in ("Gi0/1", "Gi0/2", "Te1/1")] == [100, 101, 102]
    assert [after[octets, name] for name in ("Gi0/1", "Gi0/2", "Te1/1")] == [101, 102, 100]


def test_names_are_read_again_when_the_device_says_that_they_changed() -> None:
    """ifTableLastChange tells of rows that come and go; what it does not tell of waits for `static_every`."""
    last_change, name, octets = "1.3.6.1.2.1.31.1.5.0", "1.3.6.1.2.1.31.1.1.1.1.%s", "1.3.6.1.2.1.31.1.1.1.6.%s"
    told: dict[str, int | bytes] = {last_change: 500}
    for index in range(1, 61):  # so many that names are not read beside the counters
        told |= {name % index: b"Gi0/%d" % index, octets % index: index}
    with Agent(rows(told)) as agent:
        one = client(agent)
        metric = "snmp_interface_in_octets_total"
        polled(one, "interfaces")
        told[name % 7] = b"Te1/7"
        agent.rows = rows(told)
        assert (metric, "Te1/7") not in measured(polled(one, "interfaces"))
        told[last_change] = 900
        agent.rows = rows(told)
        found = measured(polled(one, "interfaces"))
    assert (metric, "Gi0/7") not in found
    assert found[metric, "Te1/7"] == 7


def test_a_device_is_asked_only_for_what_it_has() -> None:
    with vendor("poe") as agent:
        one = client(agent)
        first = measured(polled(one, "health"))
        planned, agent.requests = agent.requests, 0
        assert measured(polled(one, "health")) == first
    assert agent.requests <= 4 < planned, "one for the uptime, the others for its two tables"


OWN = """
name = "own"
summary = "Of our own"
source = "OWN-MIB"
poll = "health"

[[table]]
object = "OWN-MIB::ownEntry"
oid = "1.3.6.1.4.1.99999.1.1"
labels = { sensor = ["ownName", "index"] }
alarm = { object = "ownState", good = [1], message = "$sensor is $state" }
column = [
    { object = "ownName", sub = "2", role = "attribute", as = "name" },
    { object = "ownValue", sub = "3", metric = "snmp_sensor_celsius", scale = 0.1 },
    { object = "ownState", sub = "4", metric = "snmp_sensor_status", enum = { 1 = "well", 2 = "ill" } },
]
"""
OWN_ROWS: dict[str, int | bytes] = {
    "1.3.6.1.4.1.99999.1.1.2.1": b"oven",
    "1.3.6.1.4.1.99999.1.1.3.1": 1805,
    "1.3.6.1.4.1.99999.1.1.4.1": 2,
}


def own(folder: Path, text: str = OWN) -> Path:
    path = folder / "own.toml"
    path.write_text(text)
    return path


def test_a_profile_of_the_user(tmp_path: Path) -> None:
    with Agent(rows(OWN_ROWS)) as agent:
        records = polled(client(agent, profiles=[own(tmp_path)]), "health")
    assert measured(records)["snmp_sensor_celsius", "oven"] == pytest.approx(180.5)
    assert events(records) == {"OWN-MIB::ownEntry:oven": "oven is ill"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('poll = "health"', 'poll = "helth"', "belongs to the poll 'helth'"),
        ('oid = "1.3.6.1.4.1.99999.1.1"', 'oid = "ownTable"', "OWN-MIB::ownEntry: 'ownTable' is no object identifier"),
        ('sub = "3"', 'sub = "three"', "ownValue: sub is 'three'"),
        ('"ownName", "index"', '"ownLabel", "index"', "the label sensor comes from ownLabel, which is no column"),
        ('object = "ownState", good', 'object = "ownStatus", good', "the alarm looks at ownStatus"),
        ("$sensor is", "$name is", "message has $name"),
        ("scale = 0.1", 'scale = "tenth"', "scale"),
        ("scale = 0.1", 'times = ["ownUnit"]', "it needs ownUnit, which is no column"),
        ("scale = 0.1", "factor = 0.1", "factor"),
    ],
    ids=["poll", "oid", "sub", "label", "alarm", "message", "type", "times", "unknown key"],
)
def test_a_profile_at_fault_is_told_with_its_place(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in OWN
    with pytest.raises(ConfigError) as caught:
        read(own(tmp_path, OWN.replace(old, new)))
    assert "own.toml" in str(caught.value)
    assert words in str(caught.value)


OWN_MIB = """OWN-MIB DEFINITIONS ::= BEGIN
enterprises OBJECT IDENTIFIER ::= { iso org(3) dod(6) internet(1) private(4) 1 }
own OBJECT IDENTIFIER ::= { enterprises 99999 }
ownTable OBJECT IDENTIFIER ::= { own 1 }
ownEntry OBJECT IDENTIFIER ::= { ownTable 1 }
ownName OBJECT IDENTIFIER ::= { ownEntry 2 }
ownValue OBJECT IDENTIFIER ::= { ownEntry 3 }
ownState OBJECT IDENTIFIER ::= { ownEntry 4 }
END
"""


def test_names_from_mib_files(tmp_path: Path) -> None:
    mibs = tmp_path / "mibs"
    mibs.mkdir()
    (mibs / "OWN-MIB.txt").write_text(OWN_MIB)
    text = OWN.replace('"1.3.6.1.4.1.99999.1.1"', '"OWN-MIB::ownEntry"').replace('sub = "3", ', 'sub = "", ')
    with Agent(rows(OWN_ROWS)) as agent:
        one = client(agent, profiles=[own(tmp_path, text)], mibs=[mibs])
        assert measured(polled(one, "health"))["snmp_sensor_celsius", "oven"] == pytest.approx(180.5)
        assert one.translate("1.3.6.1.4.1.99999.1.1.3.1") == "OWN-MIB::ownValue.1"
        assert one.translate("1.3.6.1.2.1.1.3.0") == "1.3.6.1.2.1.1.3.0"
    with pytest.raises(ConfigError, match="no MIB file has OTHER-MIB::x"):
        read(own(tmp_path, OWN.replace('"1.3.6.1.4.1.99999.1.1"', '"OTHER-MIB::x"')), (mibs,))
    (mibs / "BROKEN-MIB.txt").write_text("BROKEN-MIB DEFINITIONS ::= BEGIN nonsense")
    broken = tmp_path / "broken"
    mibs.rename(broken)
    with pytest.raises(ConfigError, match="BROKEN-MIB"):
        read(own(tmp_path), (broken,))


@pytest.mark.parametrize("profile", ours(), ids=lambda one: one.name)
def test_our_profiles_name_where_they_come_from(profile: Profile) -> None:
    assert profile.poll in POLLS
    assert profile.source
    objects = [table.object for table in profile.table]
    assert all("::" in one for one in objects)
