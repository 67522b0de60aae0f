"""Notifications of every version and kind of key, sent by Net-SNMP's own commands."""

import socket
from contextlib import suppress
from pathlib import Path

import pytest

from nms_workers.errors import ParseError
from nms_workers.settings import Traps
from nms_workers.traps.usm import Usm
from tests.conftest import StartServer
from tests.servers.server import PASSWORD
from tests.traps.conftest import (
    COLD_START,
    DESCRIPTION,
    ENGINE_ID,
    INDEX_7,
    KEYS,
    LINK_DOWN,
    LINK_UP,
    V1,
    V2C,
    Receive,
    Send,
    users,
    v3_options,
)

pytestmark = pytest.mark.real("snmpd")


def test_a_trap_of_version_2c_becomes_an_event_with_names(receive: Receive, send: Send) -> None:
    receiving = receive()
    status = ("1.3.6.1.2.1.2.2.1.8.7", "i", "2")

    send(receiving.port, V2C, "12345", LINK_DOWN, *INDEX_7, *status, DESCRIPTION, "s", "a router")

    receiving.wait(told=1)
    receiving.stop()
    (event,) = receiving.events()
    assert event == {
        "target": "router",
        "kind": "linkDown",
        "state": "firing",
        "severity": "warning",
        "fingerprint": "linkDown 7",
        "message": "linkDown: ifIndex.7=7 ifOperStatus.7=down sysDescr=a router",
        "attributes": {
            "trap": LINK_DOWN,
            "version": "2c",
            "source": "127.0.0.1",
            "uptime_seconds": 123.45,
            "variables": {"ifIndex.7": 7, "ifOperStatus.7": "down", "sysDescr": "a router"},
        },
    }


def test_a_link_that_comes_back_is_resolved_and_another_one_is_not(receive: Receive, send: Send) -> None:
    receiving = receive()

    send(receiving.port, V2C, "", LINK_DOWN, *INDEX_7)
    send(receiving.port, V2C, "", LINK_DOWN, "1.3.6.1.2.1.2.2.1.1.8", "i", "8")
    send(receiving.port, V2C, "", LINK_UP, *INDEX_7)

    receiving.wait(told=3)
    receiving.stop()
    assert [(one["fingerprint"], one["state"]) for one in receiving.events()] == [
        ("linkDown 7", "firing"),
        ("linkDown 8", "firing"),
        ("linkDown 7", "resolved"),
    ]
    assert receiving.firing() == ["linkDown 8"]


def test_traps_of_version_1_are_translated(receive: Receive, send: Send) -> None:
    receiving = receive()

    send(receiving.port, V1, "1.3.6.1.4.1.8072", "127.0.0.1", "2", "0", "500", *INDEX_7)  # generic 2 is linkDown
    send(receiving.port, V1, "1.3.6.1.4.1.318", "127.0.0.1", "6", "5", "500")
    send(
        receiving.port, V1, "1.3.6.1.2.1.33.2", "127.0.0.1", "6", "1", "500"
    )  # upsTrapOnBattery has no zero in its OID
    send(receiving.port, V1, "1.3.6.1.4.1.99999", "127.0.0.1", "6", "42", "500")

    receiving.wait(told=4)
    receiving.stop()
    told = [(one["kind"], one["attributes"]["trap"]) for one in receiving.events()]
    assert told == [
        ("linkDown", LINK_DOWN),
        ("upsOnBattery", "1.3.6.1.4.1.318.0.5"),
        ("upsTrapOnBattery", "1.3.6.1.2.1.33.2.0.1"),
        ("1.3.6.1.4.1.99999.0.42", "1.3.6.1.4.1.99999.0.42"),
    ]


def test_a_trap_is_of_the_agent_it_names_and_else_of_its_sender(receive: Receive, send: Send) -> None:
    receiving = receive(
        {"proxy": "127.0.0.1", "far": "192.0.2.7", "alias": "192.0.2.9"}, sources={"192.0.2.8": "alias"}
    )
    address = "1.3.6.1.6.3.18.1.3.0"

    send(receiving.port, V1, "1.3.6.1.4.1.1", "192.0.2.7", "0", "0", "1")
    send(receiving.port, V2C, "", COLD_START, address, "a", "192.0.2.8")
    send(receiving.port, V2C, "", COLD_START, address, "a", "198.51.100.1")

    receiving.wait(told=3)
    receiving.stop()
    assert [one["target"] for one in receiving.events()] == ["far", "alias", "proxy"]


def test_an_inform_is_acknowledged_once_it_is_kept(receive: Receive, send: Send) -> None:
    receiving = receive()

    done = send(receiving.port, V2C, "", COLD_START, DESCRIPTION, "s", "kept", command="snmpinform")

    assert done.returncode == 0  # snmpinform fails when nobody answers
    assert receiving.writer.flush(20)
    assert [one["kind"] for one in receiving.events()] == ["coldStart"]


@pytest.mark.parametrize("user", KEYS)
def test_traps_of_version_3(receive: Receive, send: Send, user: str) -> None:
    receiving = receive(users=users(user))

    send(receiving.port, [*v3_options(user), "-e", f"0x{ENGINE_ID}"], "", COLD_START, DESCRIPTION, "s", user)

    receiving.wait(told=1)
    receiving.stop()
    (event,) = receiving.events()
    assert (event["kind"], event["attributes"]["version"]) == ("coldStart", "3")
    assert event["attributes"]["variables"] == {"sysDescr": user}


@pytest.mark.parametrize("user", KEYS)
def test_informs_of_version_3_are_acknowledged(receive: Receive, send: Send, user: str) -> None:
    receiving = receive(users=users(user, engine_ids=()))

    send(receiving.port, v3_options(user), "", COLD_START, DESCRIPTION, "s", user, command="snmpinform")

    assert [one["attributes"]["variables"] for one in receiving.events()] == [{"sysDescr": user}]
    assert receiving.receiver.tallies["answered"] >= 1  # it asked for our engine first


def test_our_engine_keeps_its_id_and_counts_its_starts(receive: Receive, send: Send) -> None:
    first = receive(users=users("sha1aes"))
    send(first.port, v3_options("sha1aes"), "", COLD_START, command="snmpinform")
    first.stop()
    second = receive(users=users("sha1aes"))

    send(second.port, v3_options("sha1aes"), "", COLD_START, command="snmpinform")

    assert second.receiver.engine_id == first.receiver.engine_id != ""
    assert len(second.events()) == 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        pytest.param(
            v3_options("sha1aes", password="another pass phrase"),
            "wrong keys, or it cannot be decrypted",
            id="wrong-key",
        ),
        pytest.param(
            ["-v3", "-u", "sha1aes", "-l", "noAuthNoPriv"],
            "another level of security than its user has",
            id="no-authentication",
        ),
        pytest.param(
            ["-v3", "-u", "sha1aes", "-l", "authNoPriv", *v3_options("sha1aes")[5:9]],
            "another level of security than its user has",
            id="no-encryption",
        ),
        pytest.param(
            ["-v3", "-u", "nobody", "-l", "noAuthNoPriv"], "a user who is not in the settings", id="unknown-user"
        ),
    ],
)
def test_what_version_3_does_not_prove_is_refused(
    receive: Receive, send: Send, caplog: pytest.LogCaptureFixture, options: list[str], why: str
) -> None:
    receiving = receive(users=users("sha1aes"))

    send(receiving.port, [*options, "-e", f"0x{ENGINE_ID}"], "", COLD_START)

    receiving.wait(refused=1)
    receiving.stop()
    assert receiving.events() == []
    assert f"from 127.0.0.1: version 3: {why}" in caplog.text


def test_an_engine_that_is_not_named_is_refused(receive: Receive, send: Send) -> None:
    receiving = receive(users=users("sha1aes", engine_ids=("8000000009090909",)))

    send(receiving.port, [*v3_options("sha1aes"), "-e", f"0x{ENGINE_ID}"], "", COLD_START)

    receiving.wait(refused=1)
    assert receiving.events() == []


def test_a_message_sent_again_is_refused(receive: Receive, send: Send) -> None:
    receiving = receive(users=users("sha1aes"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.bind(("127.0.0.1", 0))
        wire.settimeout(20)
        options = [*v3_options("sha1aes"), "-e", f"0x{ENGINE_ID}"]
        captured = []
        for boots_and_time in ("5,1000", "5,1200", "4,9999"):
            send(wire.getsockname()[1], [*options, "-Z", boots_and_time], "", COLD_START)
            captured.append(wire.recv(65_535))
        young, later, before_restart = captured
        to = ("127.0.0.1", receiving.port)

        wire.sendto(young, to)
        receiving.wait(told=1)
        wire.sendto(young, to)  # the very same
        receiving.wait(refused=1)
        wire.sendto(later, to)
        receiving.wait(told=1, counted=1)
        wire.sendto(before_restart, to)  # of before the agent's last start
        receiving.wait(refused=2)

        assert receiving.receiver.tallies["refused"] == 2


def test_snmpd_tells_of_a_wrong_community_by_itself(receive: Receive, start_server: StartServer, send: Send) -> None:
    receiving = receive()
    lines = f"authtrapenable 1\ntrap2sink 127.0.0.1:{receiving.port} secret-community"
    agent = start_server("snmpd", lines=lines)

    asked = send(
        agent.port, ["-v2c", "-c", "wrong", "-t", "0.2", "-r", "0"], DESCRIPTION, command="snmpget", check=False
    )

    assert asked.returncode != 0
    receiving.wait(told=2)
    assert {one["kind"] for one in receiving.events()} >= {"coldStart", "authenticationFailure"}


def test_no_byte_of_a_message_of_version_3_may_be_changed(
    send: Send, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PASS", PASSWORD)
    usm = Usm(Traps.model_validate({"users": users("sha1aes")}).users, tmp_path / "engine-of-ours")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.bind(("127.0.0.1", 0))
        wire.settimeout(20)
        options = [*v3_options("sha1aes"), "-e", f"0x{ENGINE_ID}"]
        send(wire.getsockname()[1], options, "", COLD_START)
        data = wire.recv(65_535)

    taken = []
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 0x01]) + data[place + 1 :]
        with suppress(ParseError):
            if usm.check(changed).message is not None:
                taken.append(place)

    assert taken == []
    assert usm.check(data).message is not None
