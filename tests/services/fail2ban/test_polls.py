"""What is read of a real server, and what is told of bans that come and go."""

import math
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nms_workers.records import Event
from nms_workers.services.fail2ban.results import JailSettings, JailStatus
from tests.conftest import StartServer
from tests.servers import Fail2banServer
from tests.services.fail2ban.conftest import Connect, Peer, said
from tests.services.fail2ban.support import act, ended, fail_to_log_in, read
from tests.services.records import await_true, entities, events, value


def test_the_server(server: Fail2banServer, connect: Connect) -> None:
    records = read(connect(server), "server")
    assert value(records, "fail2ban_up") == 1
    assert value(records, "fail2ban_server_info", version="1.0.2") == 1
    assert 0 < value(records, "fail2ban_answer_seconds") < 5
    about = entities(records, "server")["fail2ban"]
    assert (about["version"], about["loglevel"], about["logtarget"]) == ("1.0.2", "INFO", "STDERR")


def test_the_jails(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    fail_to_log_in(server, "192.0.2.1", times=2)
    fail_to_log_in(server, "192.0.2.2", times=1)
    await_true(lambda: client.get_jail("nms").status.failures == 3 and client.get_jail("nms").status.banned == 1)
    act(client, "set_jail", jail="other", bantime=-1)

    records = read(client, "jails")
    assert value(records, "fail2ban_jails") == 2
    expected = {
        "failing_addresses": 1,
        "failures_total": 3,
        "banned_addresses": 1,
        "bans_total": 1,
        "ban_time_seconds": 600,
        "find_time_seconds": 60,
        "max_retries": 2,
        "log_sources": 1,
        "ignored_networks": 1,
    }
    assert {name: value(records, f"fail2ban_jail_{name}", jail="nms") for name in expected} == expected
    assert value(records, "fail2ban_jail_ban_time_seconds", jail="other") == math.inf
    jails = entities(records, "jail")
    assert set(jails) == {"nms", "other"}
    assert jails["nms"]["sources"] == [str(server.jail_log)]
    assert (jails["nms"]["actions"], jails["nms"]["ignored"]) == (["note"], ["127.0.0.9"])


def test_a_stopped_jail_is_not_named_any_more(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    act(client, "stop_jail", jail="other")
    records = read(client, "jails")
    assert value(records, "fail2ban_jails") == 1
    assert set(entities(records, "jail")) == {"nms"}


def test_the_methods_agree(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    act(client, "ban_ip", jail="nms", address="192.0.2.1")
    nms = JailStatus("nms", failing=0, failures=0, banned=1, bans=1, sources=(str(server.jail_log),))
    assert client.get_jails_status()[0] == nms
    assert client.get_jail("nms").status == nms
    assert client.get_jails()[0] == client.get_jail("nms")
    assert client.get_jail("nms").settings == client.get_settings("nms") == JailSettings(600, 60, 2)
    assert client.get_banned() == client.get_banned("nms")
    assert client.get_banned("other") == ()
    assert client.get_version() == "1.0.2"


def test_a_ban_of_the_filter_and_its_lifting(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    assert not events(read(client, "bans"), "ban")
    fail_to_log_in(server, "192.0.2.1")
    await_true(lambda: client.get_banned("nms"))

    records = read(client, "bans")
    (told,) = events(records, "ban")
    assert told.message == "nms banned 192.0.2.1 for 600 s"
    assert told.ts is not None
    assert abs((datetime.now(UTC) - told.ts).total_seconds()) < 30
    assert (told.fingerprint, told.state) == ("ban:nms:192.0.2.1", "firing")
    ban = entities(records, "ban")["nms/192.0.2.1"]
    assert ban["ends_at"] == (told.ts + timedelta(seconds=600)).isoformat()
    assert 500 < ban["remaining"] <= 600
    assert value(records, "fail2ban_jail_next_unban_seconds", jail="nms") == ban["remaining"]
    assert value(records, "fail2ban_jail_permanent_bans", jail="nms") == 0
    assert events(read(client, "bans"), "ban") == [told], "as long as it lasts"

    act(client, "unban_ip", jail="nms", address="192.0.2.1")
    (lifted,) = ended(read(client, "bans"))
    assert lifted.message == "the ban of 192.0.2.1 by nms was lifted"
    assert lifted.fingerprint == told.fingerprint
    assert not ended(read(client, "bans"))


def test_a_ban_that_ends_by_itself_says_when(start_server: StartServer, connect: Connect) -> None:
    server = start_server("fail2ban", conf={"bantime": "2"})
    client = connect(server)
    act(client, "ban_ip", jail="nms", address="192.0.2.1")
    (told,) = events(read(client, "bans"), "ban")
    (over,) = await_true(lambda: ended(read(client, "bans")))
    assert over.message == "the ban of 192.0.2.1 by nms ended in time"
    assert told.ts is not None
    assert over.ts == told.ts + timedelta(seconds=2)


def test_a_ban_that_comes_again_between_two_reads_is_another_one(start_server: StartServer, connect: Connect) -> None:
    server = start_server("fail2ban", conf={"bantime": "2"})
    client = connect(server)
    act(client, "ban_ip", jail="nms", address="192.0.2.1")
    (first,) = events(read(client, "bans"), "ban")
    await_true(lambda: not client.get_banned("nms"))
    act(client, "ban_ip", jail="nms", address="192.0.2.1")
    end, second = events(read(client, "bans"), "ban")
    assert (end.state, second.state) == ("resolved", "firing")
    assert first.ts is not None
    assert end.ts == first.ts + timedelta(seconds=2)


def test_every_process_tells_the_same(server: Fail2banServer, connect: Connect) -> None:
    """Events are stored by time, fingerprint and message: what two processes tell is kept once."""
    first, second = connect(server), connect(server)
    act(first, "ban_ip", jail="nms", address="192.0.2.1")
    act(first, "ban_ip", jail="other", address="192.0.2.1")
    one, other = (events(read(client, "bans"), "ban") for client in (first, second))
    assert len(one) == 2
    assert one == other
    assert all(event.ts for event in one)


def test_bans_that_a_restarted_server_brings_back_are_not_told_again(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    act(client, "ban_ip", jail="nms", address="192.0.2.1")
    (told,) = events(read(client, "bans"), "ban")
    server.restart()
    await_true(lambda: client.get_banned("nms"))
    records = read(client, "bans")
    (still,) = events(records, "ban")
    assert (still.state, still.fingerprint) == ("firing", told.fingerprint)


def test_a_ban_for_ever(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    act(client, "set_jail", jail="nms", bantime=-1)
    act(client, "ban_ip", jail="nms", address="2001:db8::/64")
    records = read(client, "bans")
    (told,) = events(records, "ban")
    assert told.message == "nms banned 2001:db8::/64 for ever"
    ban = entities(records, "ban")["nms/2001:db8::/64"]
    assert (ban["seconds"], ban["ends_at"], ban["remaining"]) == (None, None, None)
    assert value(records, "fail2ban_jail_permanent_bans", jail="nms") == 1
    assert value(records, "fail2ban_jail_next_unban_seconds", jail="nms") == math.inf


def test_what_others_banned_that_is_no_address_is_fit_to_be_shown(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    odd = "evil\n2026 [nms] Ban 192.0.2.1 \t2026-01-01 00:00:00 + 1 = 2026-01-01 00:00:01"
    with client.talk() as plain:
        assert plain.ask("set", "nms", "banip", "not-an-ip", odd) == 2
    records = read(client, "bans")
    assert {ban.address for ban in client.get_banned("nms")} == {"not-an-ip", odd}
    assert set(entities(records, "ban")) == {"nms/not-an-ip", f"nms/{odd!a}"}
    assert all("\n" not in event.message for event in events(records, "ban"))
    act(client, "unban_all", jail="nms")
    assert client.get_banned() == ()


# What fail2ban 1.1.2 answers where 1.0.2 has another answer or none; this version is in no package here.
def _jail_1_1() -> list[Any]:
    return [
        ("Filter", [("Currently failed", 1), ("Total failed", 4), ("File list", ["/var/log/auth.log"])]),
        ("Actions", [("Currently banned", 2), ("Total banned", 9)]),
    ]


_ANSWERS_1_1: dict[tuple[str, ...], Any] = {
    ("version",): "1.1.2.dev1",
    ("status", "--all", "short"): [("Number of jail", 2), ("Jail list", "a, b"), {"b": _jail_1_1(), "a": _jail_1_1()}],
}


def test_all_jails_in_one_answer_since_1_1(connect: Connect, peer: Peer) -> None:
    path = peer(lambda command: said(_ANSWERS_1_1[tuple(command)]))
    status = JailStatus("a", failing=1, failures=4, banned=2, bans=9, sources=("/var/log/auth.log",))
    assert connect(socket=path).get_jails_status() == (status, JailStatus("b", 1, 4, 2, 9, ("/var/log/auth.log",)))


@pytest.mark.parametrize(
    ("zone", "local", "utc"),
    [
        ("UTC", "2025-07-01 12:00:00", "2025-07-01T12:00:00+00:00"),
        ("Europe/Berlin", "2025-07-01 12:00:00", "2025-07-01T10:00:00+00:00"),
        ("Europe/Berlin", "2025-01-01 12:00:00", "2025-01-01T11:00:00+00:00"),
        ("Europe/Berlin", "2025-10-26 02:30:00", "2025-10-26T01:30:00+00:00"),  # comes twice: the later one
        ("Asia/Kathmandu", "2025-01-01 12:00:00", "2025-01-01T06:15:00+00:00"),
    ],
)
def test_times_are_those_of_the_servers_zone(connect: Connect, peer: Peer, zone: str, local: str, utc: str) -> None:
    answers: dict[str, Any] = {
        "status": [("Number of jail", 1), ("Jail list", "a")],
        "get": [f"192.0.2.1 \t{local} + 600 = 2025-01-01 00:00:00"],
    }
    (ban,) = connect(socket=peer(lambda command: said(answers[command[0]])), timezone=zone).get_banned()
    assert ban.banned_at.isoformat() == utc
    assert ban.ends_at == ban.banned_at + timedelta(seconds=600)
    assert ban.remaining(ban.banned_at + timedelta(seconds=100)) == 500
    assert ban.remaining(ban.banned_at + timedelta(seconds=1000)) == 0


def test_a_jail_that_is_stopped_between_two_questions_is_left_out(connect: Connect, peer: Peer) -> None:
    gone = b"\x80\x04K\x01\x8c\x13fail2ban.exceptions\x8c\x14UnknownJailException\x93\x8c\x01b\x85R\x86."

    def answer(command: list[Any]) -> bytes:
        if "b" in command:
            return gone + b"<F2B_END_COMMAND>"
        if command[0] == "version":
            return said("1.0.2")
        return said([("Number of jail", 2), ("Jail list", "a, b")] if command == ["status"] else _jail_1_1())

    assert [one.name for one in connect(socket=peer(answer)).get_jails_status()] == ["a"]


def test_a_server_that_is_ending_is_not_up(connect: Connect, peer: Peer) -> None:
    path = peer(lambda _: pickle.dumps(["SHUTDOWN"]) + b"<F2B_END_COMMAND>")
    records = read(connect(socket=path), "server")
    assert value(records, "fail2ban_up") == 0
    assert not any(isinstance(one, Event) for one in records)
