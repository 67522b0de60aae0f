"""Alerts: those that last fire until they are named no more, those that are over are told once, by their row."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from nms_workers.errors import ParseError, Refused
from nms_workers.records import Event, Record
from nms_workers.services.ntopng import alerts
from nms_workers.services.ntopng.client import NtopngClient
from nms_workers.services.ntopng.service import Ntopng
from tests.services.ntopng.conftest import Connect
from tests.services.ntopng.support import read, values
from tests.services.records import events
from tests.stubs.ntopng import NtopngStub

NOW = int(time.time())


def told(client: NtopngClient, poll: str) -> dict[str, Event]:
    """Events by fingerprint; none comes twice."""
    found = events(read(client, poll))
    by_name = {one.fingerprint: one for one in found}
    assert len(by_name) == len(found)
    return by_name


def test_an_engaged_alert_fires_while_it_lasts(ntopng: NtopngStub, client: NtopngClient) -> None:
    ntopng.add_alert("host", at=NOW - 90_000, engaged=True)  # long before any window
    ntopng.add_alert("interface", at=NOW - 60, engaged=True)["severity"]["value"] = 8
    ntopng.add_alert("system", ifid=-1, at=NOW - 60, engaged=True)["severity"]["value"] = 2
    ntopng.add_alert("host", at=NOW - 60, row="5")  # over
    records = read(client, "engaged_alerts")
    found = {one.fingerprint: one for one in events(records)}
    assert set(found) == {
        f"host:eth0:9:192.0.2.7:{NOW - 90_000}", f"interface:eth0:9:eth0:{NOW - 60}", f"system:system:9::{NOW - 60}",
    }  # fmt: skip
    assert {one.state for one in found.values()} == {"firing"}
    assert [one.severity for one in found.values()] == ["error", "critical", "info"]
    host = found[f"host:eth0:9:192.0.2.7:{NOW - 90_000}"]
    assert host.message == "Flood on 192.0.2.7: Too much from <there>"  # without the markup of ntopng's own pages
    assert (host.attributes["score"], host.attributes["interface"]) == (120, "eth0")
    assert values(records, "ntopng_engaged_alerts", "interface", "family")["eth0/host"] == 1
    assert "alert" in Ntopng.polls()["engaged_alerts"].enumerates  # so the fleet resolves what is not named
    assert told(client, "engaged_alerts").keys() == found.keys()  # the same thing has the same name
    ntopng.alerts.clear()
    assert told(client, "engaged_alerts") == {}


def test_flows_have_no_engaged_alerts_and_are_not_asked_for(ntopng: NtopngStub, client: NtopngClient) -> None:
    read(client, "engaged_alerts")
    assert [one.path for one in ntopng.seen if "/flow/" in one.path] == []
    read(client, "past_alerts")
    assert len([one.path for one in ntopng.seen if "/flow/alert/" in one.path]) == 2  # each interface
    assert [one.args["ifid"] for one in ntopng.seen if "/system/alert/" in one.path] == ["-1", "-1"]  # once a poll


def test_more_engaged_alerts_than_are_taken_resolve_none(ntopng: NtopngStub, connect: Connect) -> None:
    for number in range(5):
        ntopng.add_alert("host", at=NOW - number, engaged=True)
    client = connect(ntopng, max_alerts=3)
    records: list[Record] = []
    with pytest.raises(Refused, match="2 engaged alerts are over max_alerts"):
        records.extend(Ntopng.polls()["engaged_alerts"].run(client))  # not complete: the fleet takes nothing for gone
    assert len(events(records)) == 3


@pytest.mark.parametrize("poll", ["engaged_alerts", "past_alerts"])
def test_a_family_that_this_ntopng_has_not_does_not_cost_the_others(
    ntopng: NtopngStub, client: NtopngClient, poll: str
) -> None:
    ntopng.errors["mac/alert/list.lua"] = "NOT_FOUND"
    ntopng.add_alert("user", at=NOW - 60, row="1", engaged=poll == "engaged_alerts")
    records: list[Record] = []
    with pytest.raises(Refused, match="mac/alert/list"):
        records.extend(Ntopng.polls()[poll].run(client))
    assert [one.attributes["family"] for one in events(records)] == ["user"]


def test_a_past_alert_is_told_once_by_its_row(ntopng: NtopngStub, client: NtopngClient) -> None:
    ntopng.add_alert("host", at=NOW - 600, row="7")
    ntopng.add_alert("flow", at=NOW - 500, row="7")
    ntopng.add_alert("host", at=NOW - 900_000, row="3")  # before the first look goes back
    ntopng.add_alert("user", ifid=4, at=NOW - 10, row="1")
    first = told(client, "past_alerts")
    assert set(first) == {"host:eth0:7", "flow:eth0:7", "user:view:all:1"}
    assert first["host:eth0:7"].ts == datetime.fromtimestamp(NOW - 600, UTC)
    assert first["flow:eth0:7"].message.startswith("Flood on 192.0.2.7 50000 198.51.100.3 443")
    assert {(one.state, one.kind) for one in first.values()} == {("occurred", "past_alert")}
    assert told(client, "past_alerts") == {}
    ntopng.add_alert("host", at=NOW - 800_000, row="8")  # it began long ago, and is over just now
    assert set(told(client, "past_alerts")) == {"host:eth0:8"}


def test_a_new_worker_tells_the_same_events_which_the_store_knows_already(
    ntopng: NtopngStub, client: NtopngClient, connect: Connect
) -> None:
    ntopng.add_alert("host", at=NOW - 600, row="7")
    first, again = told(client, "past_alerts"), told(connect(ntopng), "past_alerts")
    assert first == again  # equal in time, name and words: written twice is written once


def test_many_past_alerts_come_in_order_over_several_looks(ntopng: NtopngStub, connect: Connect) -> None:
    client = connect(ntopng, max_alerts=3, alert_families=["host"], interfaces=["eth0"])
    ntopng.add_alert("host", at=NOW - 600, row="1")
    assert set(told(client, "past_alerts")) == {"host:eth0:1"}
    for row in range(2, 10):
        ntopng.add_alert("host", at=NOW - row, row=str(row))
    looks = [read(client, "past_alerts") for _ in range(4)]
    rows = [sorted(one.fingerprint for one in events(look)) for look in looks]
    assert rows == [[f"host:eth0:{row}" for row in taken] for taken in ((2, 3, 4), (5, 6, 7), (8, 9), ())]
    assert [values(look, "ntopng_past_alerts_waiting", "family")["host"] for look in looks] == [5, 2, 0, 0]


def test_what_the_first_look_leaves_out_is_counted(ntopng: NtopngStub, connect: Connect) -> None:
    for row in range(1, 10):
        ntopng.add_alert("host", at=NOW - 100 + row, row=str(row))
    client = connect(ntopng, max_alerts=4, alert_families=["host"], interfaces=["eth0"])
    records = read(client, "past_alerts")
    assert sorted(one.fingerprint for one in events(records)) == [f"host:eth0:{row}" for row in (6, 7, 8, 9)]
    assert values(records, "ntopng_left_out", "what") == {"past host alert": 5}


def test_rows_without_an_order_are_looked_for_by_time(ntopng: NtopngStub, client: NtopngClient) -> None:
    ntopng.add_alert("host", at=NOW - 60, row="c56a4180-65aa-42ec-a945-5fd21dec0538")  # as in ClickHouse
    first = told(client, "past_alerts")
    assert set(first) == {"host:eth0:c56a4180-65aa-42ec-a945-5fd21dec0538"}
    assert told(client, "past_alerts") == first  # which the store knows by time and name


@pytest.mark.parametrize(
    ("record", "subject"),
    [
        ({"ip": {"value": "192.0.2.7"}, "vlan_id": 12}, "192.0.2.7 12"),
        ({"ip": "192.0.2.7", "vlan_id": ""}, "192.0.2.7"),
        ({}, ""),
        ({"ip": ["x"]}, ""),
    ],
    ids=["in a VLAN", "as text", "nobody", "nonsense"],
)
def test_whom_an_alert_is_about(record: dict[str, Any], subject: str) -> None:
    whole = {"alert_id": 3, "tstamp": NOW, "msg": "x"} | record
    one = alerts.of_record("host", whole)
    assert (one.subject, one.alert_id, one.name) == (subject, "3", "3")


@pytest.mark.parametrize(
    "record",
    [{}, {"alert_id": 3}, {"alert_id": 3, "tstamp": "soon"}, {"alert_id": 3, "tstamp": 1e300}, {"tstamp": NOW}],
    ids=["empty", "no time", "no number", "no time there is", "no kind"],
)
def test_what_is_no_alert(record: dict[str, Any]) -> None:
    with pytest.raises(ParseError, match="does not say what it is and when"):
        alerts.of_record("host", record)
