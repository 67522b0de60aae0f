"""From an alert of a real engine to the ban that fail2ban is asked for."""

from pathlib import Path
from typing import Any

import pytest

from nms_workers.arguments import CutsOff
from nms_workers.change import Change, FollowUp
from nms_workers.errors import Refused
from nms_workers.jobs.marked import marked
from nms_workers.records import Event
from nms_workers.service import service
from nms_workers.services.suricata.client import SuricataClient
from nms_workers.services.suricata.service import Suricata
from tests.conftest import StartServer
from tests.servers import Fail2banServer, SuricataServer
from tests.services.suricata.conftest import Connect, send
from tests.services.suricata.support import act, await_true, collect, events, signatures

ATTACK = 1000001
WHERE: dict[str, Any] = {"fail2ban": "fw1", "jail": "ids"}


def _told(client: SuricataClient, count: int) -> list[Event]:
    return events(collect(client, lambda records: len(signatures(records)) >= count), "alert")


def test_the_source_of_an_alert_is_asked_to_be_banned(suricata: SuricataServer, client: SuricataClient) -> None:
    send(suricata, ["http", "/attack/one?token=hunter2", "127.0.0.66"], ["http", "/attack/two", "127.0.0.77"])
    first, second = _told(client, 2)
    change = act(client, "block_alert_source", **WHERE, sid=ATTACK, source="127.0.0.66", seconds=600)
    (wanted,) = change.follow_ups
    assert wanted == FollowUp(
        service="fail2ban",
        action="ban_ip",
        target="fw1",
        arguments={"jail": "ids", "address": "127.0.0.66", "seconds": 600},
        evidence=wanted.evidence,
    )
    assert wanted.evidence["alert"]["signature_id"] == ATTACK
    assert wanted.evidence["http"]["url"] == "/attack/one"
    assert wanted.evidence["fingerprint"] == first.fingerprint  # leads to the event in the store
    assert "hunter2" not in repr(change)
    assert change.changed
    assert "127.0.0.66" in change.message

    by_flow = act(client, "block_alert_source", **WHERE, flow_id=second.attributes["flow_id"])
    assert by_flow.follow_ups[0].arguments == {"jail": "ids", "address": "127.0.0.77"}
    assert by_flow.follow_ups[0].evidence["fingerprint"] == second.fingerprint


@pytest.mark.parametrize("source", ["127.0.0.66", "::1"])
def test_fail2ban_bans_whom_it_is_asked_to(
    suricata: SuricataServer, client: SuricataClient, start_server: StartServer, source: str
) -> None:
    server = start_server("fail2ban")
    assert isinstance(server, Fail2banServer)
    send(suricata, ["http", "/attack", source])
    await_true(client.get_alerts)
    (wanted,) = act(client, "block_alert_source", fail2ban="fw1", jail="nms", sid=ATTACK, source=source).follow_ups
    done = done_by(server, wanted)
    assert done.changed
    assert await_true(lambda: f"nms ban {source}" in server.action_log.read_text())
    assert not done_by(server, wanted).changed


def done_by(server: Fail2banServer, wanted: FollowUp) -> Change:
    """What becomes of a follow-up when its job runs."""
    asked = service(wanted.service)
    target = {"socket": server.socket, "config": server.config, "timezone": "UTC"}
    action, client = asked.actions()[wanted.action], asked.client(asked.Target.model_validate(target))
    try:
        return action.run(client, **action.validate(wanted.arguments))
    finally:
        client.close()


def test_the_newest_alert_of_a_network_counts(suricata: SuricataServer, client: SuricataClient) -> None:
    send(suricata, ["http", "/attack", "127.0.0.66"], ["http", "/attack", "127.0.0.77"])
    _told(client, 2)
    change = act(client, "block_alert_source", **WHERE, sid=ATTACK, source="127.0.0.64/26")
    assert change.follow_ups[0].arguments["address"] == "127.0.0.77"
    change = act(client, "block_alert_source", **WHERE, sid=ATTACK, source="127.0.0.64/29")
    assert change.follow_ups[0].arguments["address"] == "127.0.0.66"
    action = Suricata.actions()["block_alert_source"]
    typed = action.validate({**WHERE, "sid": ATTACK, "source": "127.0.0.64/26"})
    change = action.run(client, **typed, dry_run=True)
    assert action.previews
    assert change.follow_ups[0].arguments["address"] == "127.0.0.77"
    assert "would be asked" in change.message


def test_no_such_alert(suricata: SuricataServer, client: SuricataClient) -> None:
    send(suricata, ["http", "/attack", "127.0.0.66"])
    (alert,) = _told(client, 1)
    flow = alert.attributes["flow_id"]
    for other in (
        {"sid": ATTACK, "source": "127.0.0.67"},
        {"sid": 77, "source": "127.0.0.66"},
        {"sid": ATTACK, "source": "::1"},
        {"flow_id": flow + 1},
        {"flow_id": flow, "sid": 77},
    ):
        with pytest.raises(Refused, match="no alert of the last 3600 s fits") as error:
            act(client, "block_alert_source", **WHERE, **other)
        assert "get_alerts" in error.value.hint


def test_an_alert_that_is_too_old_or_names_nobody(connect: Connect, tmp_path: Path) -> None:
    log = tmp_path / "eve.json"
    client = connect(eve_file=log)
    old = '{"timestamp":"2020-01-01T00:00:00+0000","event_type":"alert","flow_id":7,"alert":{"signature_id":5}}\n'
    log.write_text(old)
    with pytest.raises(Refused, match="no alert of the last 60 s fits"):
        act(client, "block_alert_source", **WHERE, flow_id=7, within=60)
    log.write_text(old.replace("2020", "2099"))
    with pytest.raises(Refused, match="names no source address"):
        act(client, "block_alert_source", **WHERE, flow_id=7)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "not said which alert"),
        ({"sid": 5}, "not said which alert"),
        ({"source": "192.0.2.1"}, "not said which alert"),
        ({"flow_id": 1, "jail": "--all"}, "jail"),
        ({"flow_id": 1, "jail": "ids\n"}, "jail"),
        ({"flow_id": 1, "fail2ban": "-fw"}, "fail2ban"),
        ({"flow_id": 1, "seconds": 0}, "seconds"),
        ({"flow_id": 1, "within": 10**9}, "within"),
        ({"flow_id": 0}, "flow_id"),
        ({"sid": 5, "source": "not-an-ip"}, "source"),
        ({"sid": 5, "source": "192.0.2.7/24"}, "source"),
    ],
)
def test_what_cannot_be_asked(connect: Connect, tmp_path: Path, arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why):
        act(connect(eve_file=tmp_path / "eve.json"), "block_alert_source", **WHERE | arguments)


def test_guards_look_at_the_source() -> None:
    action = Suricata.actions()["block_alert_source"]
    typed = action.validate({**WHERE, "sid": 5, "source": "::ffff:192.0.2.7"})
    assert [str(one) for one in marked(action.arguments, typed, CutsOff)] == ["192.0.2.7/32"]
