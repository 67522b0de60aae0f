"""What is changed at a real server: done once, seen there, and taken back."""

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from nms_workers.arguments import AddressToCutOff
from nms_workers.errors import Refused, Timeout
from nms_workers.services.fail2ban.conversation import NoSuchJail
from nms_workers.services.fail2ban.service import Fail2ban
from tests.conftest import StartServer
from tests.servers import Fail2banServer
from tests.services.fail2ban.conftest import Connect
from tests.services.fail2ban.support import act, done
from tests.services.records import await_true


@pytest.mark.parametrize(
    ("given", "banned"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("198.51.100.0/24", "198.51.100.0/24"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("2001:db8:1::/48", "2001:db8:1::/48"),
        ("::ffff:192.0.2.8", "192.0.2.8"),
        ("203.0.113.9/32", "203.0.113.9"),
    ],
)
def test_ban_and_unban(server: Fail2banServer, connect: Connect, given: str, banned: str) -> None:
    client = connect(server)

    change = act(client, "ban_ip", jail="nms", address=given)
    assert (change.changed, change.before, change.after) == (True, {"banned": False}, {"banned": True, "seconds": 600})
    assert [ban.address for ban in client.get_banned("nms")] == [banned]
    assert not act(client, "ban_ip", jail="nms", address=given).changed
    assert done(server) == [f"nms ban {banned}"]

    change = act(client, "unban_ip", jail="nms", address=given)
    assert (change.changed, change.before, change.after) == (True, {"banned": True}, {"banned": False})
    assert not act(client, "unban_ip", jail="nms", address=given).changed
    assert client.get_banned() == ()
    assert done(server) == [f"nms ban {banned}", f"nms unban {banned}"]


def test_a_ban_takes_the_time_of_its_jail_or_is_to_be_lifted_earlier(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    change = act(client, "ban_ip", jail="nms", address="192.0.2.1", seconds=600)
    assert (change.after["seconds"], change.undo_after) == (600, None)
    change = act(client, "ban_ip", jail="nms", address="192.0.2.2", seconds=60)
    assert (change.after["seconds"], change.undo_after) == (60, 60)
    with pytest.raises(Refused, match="jail nms bans for 600 s, and fail2ban takes no longer time"):
        act(client, "ban_ip", jail="nms", address="192.0.2.3", seconds=6000)
    act(client, "set_jail", jail="nms", bantime=-1)
    assert act(client, "ban_ip", jail="nms", address="192.0.2.3").after["seconds"] is None
    change = act(client, "ban_ip", jail="nms", address="192.0.2.4", seconds=6000)
    assert (change.after["seconds"], change.undo_after) == (6000, 6000), "a jail that bans for ever bans long enough"
    again = act(client, "ban_ip", jail="nms", address="192.0.2.4", seconds=6000)
    assert (again.changed, again.undo_after) == (False, 6000), "an attempt after one whose answer was lost"
    assert {ban.address for ban in client.get_banned()} == {"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"}


def test_unbanning_a_network_lifts_no_bans_inside_it(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    act(client, "ban_ip", jail="nms", address="192.0.2.1")
    assert not act(client, "unban_ip", jail="nms", address="192.0.2.0/24").changed
    assert done(server) == ["nms ban 192.0.2.1"]


@pytest.mark.parametrize(
    "address",
    [
        "not-an-ip",
        "",
        "10.1.2.3/8",
        "10.0.0.0/33",
        "١٢٧.0.0.1",
        "192.0.2.1 192.0.2.2",
        "--all",
        "192.0.2.1\n",
        "::1%lo",
    ],
)
@pytest.mark.parametrize("action", ["ban_ip", "unban_ip", "add_ignore", "del_ignore"])
def test_what_is_no_address_never_reaches_the_server(
    session_server: StartServer, connect: Connect, action: str, address: str
) -> None:
    with pytest.raises(Refused, match="cannot take these arguments"):
        act(connect(session_server("fail2ban")), action, jail="nms", address=address)


@pytest.mark.parametrize("jail", ["--all", "-x", "", "nms other", "nms\n", "nms;id", "ñms", "a" * 65, "../nms"])
@pytest.mark.parametrize("action", ["ban_ip", "set_jail", "reload_jail", "start_jail", "stop_jail", "unban_all"])
def test_hostile_names_of_jails_never_reach_the_server(
    session_server: StartServer, connect: Connect, action: str, jail: str
) -> None:
    arguments = {"ban_ip": {"address": "192.0.2.1"}, "set_jail": {"bantime": 5}}.get(action, {})
    client = connect(session_server("fail2ban"))
    with pytest.raises(Refused, match="cannot take these arguments"):
        act(client, action, jail=jail, **arguments)
    for method in (client.get_jail, client.stop, client.load, client.is_running):
        with pytest.raises(Refused, match="is no name of a jail"):
            method(jail)
    assert client.is_running("nms")


@pytest.mark.parametrize("jail", ["loglevel", "dbfile"])
def test_a_setting_of_the_server_is_no_jail(session_server: StartServer, connect: Connect, jail: str) -> None:
    client = connect(session_server("fail2ban"))
    with pytest.raises(Refused, match="is no name of a jail"):
        act(client, "set_jail", jail=jail, maxretry=5)
    assert client.get_server()["loglevel"] == "INFO"


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("ban_ip", {"address": "192.0.2.1"}),
        ("unban_ip", {"address": "192.0.2.1"}),
        ("set_jail", {"bantime": 5}),
        ("add_ignore", {"address": "192.0.2.1"}),
        ("reload_jail", {}),
        ("unban_all", {}),
    ],
)
def test_a_jail_that_does_not_run(
    session_server: StartServer, connect: Connect, action: str, arguments: dict[str, object]
) -> None:
    with pytest.raises(NoSuchJail, match=r"no jail 'nope' runs \(those that do: .*nms"):
        act(connect(session_server("fail2ban")), action, jail="nope", **arguments)


def test_unban_all_of_one_jail_and_of_all(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    for jail, address in (("nms", "192.0.2.1"), ("nms", "192.0.2.2"), ("other", "192.0.2.1"), ("other", "192.0.2.3")):
        act(client, "ban_ip", jail=jail, address=address)

    change = act(client, "unban_all", jail="nms")
    assert (change.changed, change.before["banned"], change.after["banned"]) == (True, 2, 0)
    assert {ban.jail for ban in client.get_banned()} == {"other"}
    assert not act(client, "unban_all", jail="nms").changed

    assert act(client, "unban_all").before == {"banned": 2, "first": ["other/192.0.2.1", "other/192.0.2.3"]}
    assert client.get_banned() == ()
    assert not act(client, "unban_all").changed


def test_settings_are_set_and_restored(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    change = act(client, "set_jail", jail="nms", bantime=1200, maxretry=5)
    assert change.before == {"bantime": 600, "findtime": 60, "maxretry": 2}
    assert change.after == {"bantime": 1200, "findtime": 60, "maxretry": 5}
    assert not act(client, "set_jail", jail="nms", bantime=1200).changed

    undone = act(client, "restore_jail", jail="nms", before=change.before)
    assert (undone.changed, undone.after) == (True, change.before)
    assert not act(client, "restore_jail", jail="nms", before=change.before).changed
    assert client.get_settings("other").bantime == 600


@pytest.mark.parametrize(
    "wanted", [{}, {"bantime": 0}, {"bantime": -2}, {"findtime": 0}, {"maxretry": 0}, {"bantime": "1h; x"}]
)
def test_settings_that_make_no_sense(session_server: StartServer, connect: Connect, wanted: dict[str, object]) -> None:
    client = connect(session_server("fail2ban"))
    with pytest.raises(Refused):
        act(client, "set_jail", jail="nms", **wanted)
    with pytest.raises(Refused):
        act(client, "restore_jail", jail="nms", before={"bantime": 5})


@pytest.mark.parametrize("address", ["192.0.2.0/24", "192.0.2.7", "2001:db8::7", "2001:db8::/32"])
def test_ignored_addresses(server: Fail2banServer, connect: Connect, address: str) -> None:
    client = connect(server)
    change = act(client, "add_ignore", jail="nms", address=address)
    assert (change.changed, set(change.after["ignored"])) == (True, {"127.0.0.9", address})
    assert not act(client, "add_ignore", jail="nms", address=address).changed
    assert act(client, "del_ignore", jail="nms", address=address).after == {"ignored": ["127.0.0.9"]}
    assert not act(client, "del_ignore", jail="nms", address=address).changed
    assert client.get_ignored("nms") == ("127.0.0.9",)


def test_reload_takes_what_the_files_say_and_keeps_the_bans(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    act(client, "ban_ip", jail="nms", address="192.0.2.1")
    act(client, "add_ignore", jail="nms", address="192.0.2.2")
    (server.config / "jail.local").write_text("[nms]\nbantime = 2h\nmaxretry = 7\n")

    change = act(client, "reload_jail", jail="nms")
    assert change.changed
    assert change.message == "nms was loaded anew; changed: bantime, maxretry, ignored"
    assert (change.after["bantime"], change.after["maxretry"], change.after["ignored"]) == (7200, 7, ["127.0.0.9"])
    assert [ban.address for ban in client.get_banned("nms")] == ["192.0.2.1"]
    assert client.get_settings("other").bantime == 600
    assert not act(client, "reload_jail", jail="nms").changed


def _no_log(server: Fail2banServer) -> None:
    server.jail_log.unlink()


def _no_filter(server: Fail2banServer) -> None:
    (server.config / "jail.local").write_text("[nms]\nfilter = nowhere\n")


def _disabled(server: Fail2banServer) -> None:
    (server.config / "jail.local").write_text("[nms]\nenabled = false\n")


def _no_file(server: Fail2banServer) -> None:
    (server.config / "jail.conf").unlink()


@pytest.mark.parametrize("break_it", [_no_log, _no_filter, _disabled, _no_file])
def test_a_faulty_configuration_leaves_the_jail_as_it_is(
    server: Fail2banServer, connect: Connect, break_it: Callable[[Fail2banServer], None]
) -> None:
    client = connect(server)
    act(client, "ban_ip", jail="nms", address="192.0.2.1")
    before = client.get_jail("nms")
    break_it(server)
    with pytest.raises(Refused, match="configuration"):
        act(client, "reload_jail", jail="nms")
    assert client.get_jail("nms") == before


def test_the_program_that_reads_the_configuration_is_not_there(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server, server_program="/no/such/fail2ban-server")
    with pytest.raises(Refused, match="cannot be run: No such file") as refused:
        act(client, "reload_jail", jail="nms")
    assert "beside the server" in refused.value.hint
    assert client.is_running("nms")


def test_stop_and_start(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    act(client, "ban_ip", jail="nms", address="192.0.2.1")
    assert not act(client, "start_jail", jail="nms").changed
    started = client.get_jail("nms")
    # the server notes a ban in its database a moment after it was made: without that it would not come back
    database = client.get_server()["dbfile"]
    await_true(lambda: _noted(database, "192.0.2.1"))

    change = act(client, "stop_jail", jail="nms")
    assert (change.changed, change.before["first"], change.after) == (True, ["nms/192.0.2.1"], {"running": False})
    assert not client.is_running("nms")
    assert done(server) == ["nms ban 192.0.2.1", "nms unban 192.0.2.1"]
    assert not act(client, "stop_jail", jail="nms").changed

    assert act(client, "start_jail", jail="nms").changed
    await_true(lambda: done(server)[2:] == ["nms ban 192.0.2.1"])
    assert client.get_jail("nms").settings == started.settings
    assert [ban.address for ban in client.get_banned("nms")] == ["192.0.2.1"]
    with pytest.raises(Refused, match="no enabled jail 'nope'"):
        act(client, "start_jail", jail="nope")


def _noted(database: str, address: str) -> bool:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute("select 1 from bips where ip = ?", (address,)).fetchone() is not None


def test_a_ban_that_takes_too_long_may_be_asked_for_again(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server, change_timeout=0.5)
    slow = server.config / "action.d" / "note.local"
    slow.write_text(f"[Definition]\nactionban = sleep 2; echo <name> ban <ip> >> {server.action_log}\n")
    assert not act(client, "reload_jail", jail="nms").changed, "what an action does is not among what is compared"
    with pytest.raises(Timeout, match="gave no answer in time to 'set nms banip'"):
        act(client, "ban_ip", jail="nms", address="192.0.2.1")
    await_true(lambda: done(server) == ["nms ban 192.0.2.1"])
    assert not act(client, "ban_ip", jail="nms", address="192.0.2.1").changed
    assert done(server) == ["nms ban 192.0.2.1"]


def test_what_actions_declare() -> None:
    actions = Fail2ban.actions()
    assert all(one.runs_at == "edge" for one in actions.values())
    assert {name: one.undo for name, one in actions.items() if one.undo} == {
        "ban_ip": "unban_ip",
        "unban_ip": "ban_ip",
        "set_jail": "restore_jail",
        "add_ignore": "del_ignore",
        "del_ignore": "add_ignore",
        "start_jail": "stop_jail",
        "stop_jail": "start_jail",
    }
    assert {name for name, one in actions.items() if one.confirm} == {"unban_all", "stop_jail"}
    marked = {
        name
        for name, one in actions.items()
        for field in one.arguments.model_fields.values()
        if any(mark in field.metadata for mark in AddressToCutOff.__metadata__[1:])
    }
    assert marked == {"ban_ip"}
