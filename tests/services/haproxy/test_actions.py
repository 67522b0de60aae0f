"""Changes of a real HAProxy by its socket: each seen from outside, safe to run twice, and taken back."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from nms_workers.errors import Refused
from nms_workers.services.haproxy.client import HaproxyClient
from nms_workers.services.haproxy.service import Haproxy
from tests.servers import HaproxyServer
from tests.services.haproxy.conftest import App, Connect, load, settled
from tests.services.haproxy.support import act, read, state, undo
from tests.services.records import await_true, value

APP1: dict[str, Any] = {"backend": "be_app", "server": "app1"}


def served(apps: list[App], server: HaproxyServer, count: int = 10) -> list[int]:
    """How many of so many requests each of the apps gets."""
    before = [len(pages(app)) for app in apps]
    load(server, count)
    return [len(pages(app)) - had for app, had in zip(apps, before, strict=True)]


def pages(app: App) -> list[str]:
    """What an app was asked for, beside its health."""
    return [one.path for one in app.site.seen if one.path != "/health"]


@contextmanager
def slow_requests(server: HaproxyServer, apps: list[App], count: int = 2) -> Iterator[None]:
    """So many requests that each of the apps holds one of, until the end or until it lets go."""
    url = f"http://127.0.0.1:{server.web_port}/slow"
    threads = [threading.Thread(target=requests.get, args=(url,), kwargs={"timeout": 30}) for _ in range(count)]
    for thread in threads:
        thread.start()
    await_true(lambda: all("/slow" in pages(app) for app in apps))
    try:
        yield
    finally:
        for app in apps:
            app.let_go.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(("wanted", "shown"), [("drain", "DRAIN"), ("maint", "MAINT")], ids=["drain", "maint"])
def test_a_server_is_taken_out_and_back(
    server: HaproxyServer, client: HaproxyClient, apps: list[App], wanted: str, shown: str
) -> None:
    change = act(client, "set_server_state", **APP1, state=wanted)
    assert (change.changed, change.before["state"], change.after["state"]) == (True, "ready", wanted)
    assert state(client, "app1") == shown
    assert served(apps, server) == [0, 10]
    again = act(client, "set_server_state", **APP1, state=wanted)
    assert not again.changed

    back = undo(client, "set_server_state", change, **APP1, state=wanted)
    assert back.changed
    await_true(lambda: state(client, "app1") == "UP")
    assert served(apps, server) == [5, 5]
    assert not undo(client, "set_server_state", change, **APP1, state=wanted).changed


def test_an_undo_brings_the_state_before_not_ready(client: HaproxyClient) -> None:
    act(client, "set_server_state", **APP1, state="drain")
    change = act(client, "set_server_state", **APP1, state="ready")
    undo(client, "set_server_state", change, **APP1)
    assert client.get_servers_state("be_app")[0].admin == "drain"


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("set_server_state", {"state": "drain"}),
        ("set_server_state", {"state": "maint"}),
        ("set_weight", {"weight": 0}),
        ("set_weight", {"weight": "0%"}),
        ("set_weight", {"weight": "9%"}),
        ("remove_server", {}),
    ],
    ids=["drain", "maint", "weight 0", "weight 0%", "weight 9% of 10", "remove"],
)
def test_the_last_server_is_left_alone(client: HaproxyClient, action: str, arguments: dict[str, Any]) -> None:
    act(client, "set_server_state", backend="be_app", server="app2", state="maint")
    with pytest.raises(Refused, match=r"app1 is the last server of be_app .* \(bring another one up first, or say"):
        act(client, action, **APP1, **arguments)
    assert state(client, "app1") == "UP"
    assert act(client, action, **APP1, **arguments, even_last=True).changed
    left = [row for row in client.get_servers("be_app") if row.state == "UP" and row.number("weight")]
    assert left == []


def test_one_that_is_down_already_is_not_the_last(client: HaproxyClient) -> None:
    assert act(client, "set_server_state", backend="be_dead", server="d1", state="maint").changed


@pytest.mark.parametrize(("weight", "number"), [(30, 30), ("50%", 5), ("0%", 0), (256, 256)], ids=str)
def test_weights(server: HaproxyServer, client: HaproxyClient, apps: list[App], weight: int | str, number: int) -> None:
    change = act(client, "set_weight", **APP1, weight=weight)
    assert (change.changed, change.before["weight"], change.after["weight"]) == (True, 10, number)
    assert server.ask("get weight be_app/app1").split() == [str(number), "(initial", "10)"]
    assert not act(client, "set_weight", **APP1, weight=weight).changed
    if weight == 30:
        assert served(apps, server, 40) == [30, 10]
    assert undo(client, "set_weight", change, **APP1, weight=weight).changed
    assert server.ask("get weight be_app/app1").startswith("10 ")


def test_a_weight_that_the_balance_does_not_take(start: Callable[..., HaproxyServer], connect: Connect) -> None:
    static = "backend be_static\n  balance static-rr\n  server s1 127.0.0.1:9 weight 10\n  server s2 127.0.0.1:9\n"
    client = connect(start(sections=static))
    with pytest.raises(Refused, match=r"static LB algorithm .* roundrobin and leastconn do"):
        act(client, "set_weight", backend="be_static", server="s1", weight=5)
    with pytest.raises(Refused, match=r"dynamic load balancing"):
        act(client, "add_server", backend="be_static", server="s3", address="127.0.0.1", port=9)


def test_a_server_moves(server: HaproxyServer, client: HaproxyClient, apps: list[App]) -> None:
    port = apps[1].site.port
    change = act(client, "set_addr", **APP1, address="127.0.0.1", port=port)
    assert change.changed
    assert (change.before["port"], change.after["port"]) == (apps[0].site.port, port)
    assert served(apps, server) == [0, 10]
    assert not act(client, "set_addr", **APP1, address="127.0.0.1").changed
    assert undo(client, "set_addr", change, **APP1).changed
    assert served(apps, server) == [5, 5]
    six = act(client, "set_addr", **APP1, address="2001:DB8::1")
    assert client.get_servers_state("be_app")[0].address == "2001:db8::1"
    assert undo(client, "set_addr", six, **APP1).changed
    assert client.get_servers_state("be_app")[0].address == "127.0.0.1"


def test_servers_without_a_port_or_an_address(
    start: Callable[..., HaproxyServer], connect: Connect, free_port: Callable[[], int]
) -> None:
    resolvers = f"resolvers none\n  nameserver n1 127.0.0.1:{free_port()}\n"
    servers = "  server any 127.0.0.1\n  server nowhere unknown.invalid:80 resolvers none init-addr none\n"
    client = connect(start(sections=f"{resolvers}backend be_odd\n{servers}"))
    change = act(client, "set_addr", backend="be_odd", server="any", address="127.0.0.2")
    assert (change.before["address"], change.before["port"]) == ("127.0.0.1", None)
    assert client.get_servers_state("be_odd")[0].address == "127.0.0.2"
    assert client.get_servers_state("be_odd")[0].port == 0  # that of the client's connection
    assert undo(client, "set_addr", change, backend="be_odd", server="any").changed
    assert client.get_servers_state("be_odd")[0].address == "127.0.0.1"
    with pytest.raises(Refused, match="only supported through configuration file"):
        act(client, "set_addr", backend="be_odd", server="nowhere", address="127.0.0.2", port=81)


def test_a_server_is_added_and_taken_away(server: HaproxyServer, client: HaproxyClient, apps: list[App]) -> None:
    port = apps[0].site.port
    wanted = {"backend": "be_app", "server": "new-1", "address": "127.0.0.1", "port": port, "weight": 20}
    change = act(client, "add_server", **wanted)
    assert (change.changed, change.before, change.after["checked"]) == (True, {"exists": False}, True)
    await_true(lambda: state(client, "new-1") == "UP")
    assert served(apps, server, 40) == [30, 10]
    apps[0].well = False
    await_true(
        lambda: state(client, "new-1") == "DOWN"
    )  # it is checked, which a server that was added is not by itself
    apps[0].well = True
    assert not act(client, "add_server", **wanted).changed
    with pytest.raises(Refused, match=r"new-1 is there already, at 127\.0\.0\.1 port"):
        act(client, "add_server", **(wanted | {"port": 9}))

    await_true(lambda: state(client, "new-1") == "UP")
    gone = undo(client, "add_server", change, **wanted)
    assert gone.changed
    assert state(client, "new-1") == ""
    assert not act(client, "remove_server", backend="be_app", server="new-1").changed


@pytest.fixture
def older(server: HaproxyServer, tmp_path: Path) -> Iterator[Path]:
    """The socket of `server` as HAProxy 2.4 has it, where servers that come and go are experimental."""
    path = tmp_path / "older.sock"

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            command = self.rfile.readline().decode().strip()
            if command.startswith(("add server", "del server")):
                self.wfile.write(b"This command is restricted to experimental mode only.\n\n")
            else:
                self.wfile.write(server.ask(command).encode())

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as front:
        thread = threading.Thread(target=front.serve_forever, args=(0.02,))
        thread.start()
        yield path
        front.shutdown()
        thread.join()


def test_a_version_where_servers_that_come_and_go_are_experimental(older: Path, connect: Connect) -> None:
    client = connect(socket=str(older))
    new = {"backend": "be_app", "server": "new", "address": "127.0.0.1", "port": 9}
    change = act(client, "add_server", **new, check=False)
    assert (change.changed, state(client, "new")) == (True, "no check")
    assert undo(client, "add_server", change, **new).changed
    assert state(client, "new") == ""


def test_an_addition_that_ended_half_way_is_finished(server: HaproxyServer, client: HaproxyClient) -> None:
    server.ask("add server be_app/new 127.0.0.1:9 weight 3 check")
    added = act(client, "add_server", backend="be_app", server="new", address="127.0.0.1", port=9, weight=3)
    assert added.changed
    assert (client.get_servers_state("be_app")[2].admin, client.get_servers_state("be_app")[2].checked) == (
        "ready",
        True,
    )


def test_a_server_with_ipv6_that_is_neither_checked_nor_ready(client: HaproxyClient) -> None:
    wanted = {"backend": "be_app", "server": "six", "address": "::1", "port": 80}
    change = act(client, "add_server", **wanted, check=False, ready=False)
    assert change.after == {
        "exists": True,
        "address": "::1",
        "port": 80,
        "state": "maint",
        "weight": 1,
        "checked": False,
    }


def test_a_server_is_removed_when_its_connections_have_ended(
    server: HaproxyServer, client: HaproxyClient, apps: list[App]
) -> None:
    with slow_requests(server, apps):
        with pytest.raises(Refused, match=r"app1 still has connections after 1 s \(drain it first"):
            act(client, "remove_server", **APP1, wait=1)
        await_true(lambda: state(client, "app1") == "UP")
        letting_go = threading.Timer(0.5, apps[0].let_go.set)
        letting_go.start()
        change = act(client, "remove_server", **APP1, wait=30)
        letting_go.join()
    assert change.changed
    assert state(client, "app1") == ""
    assert change.before["address"] == "127.0.0.1"

    assert undo(client, "remove_server", change, **APP1).changed
    await_true(lambda: state(client, "app1") == "UP")
    (back,) = [one for one in client.get_servers_state("be_app") if one.server == "app1"]
    assert (back.port, back.weight, back.checked) == (apps[0].site.port, 10, True)


def test_a_frontend_is_stopped_and_started(server: HaproxyServer, client: HaproxyClient, apps: list[App]) -> None:
    change = act(client, "disable_frontend", frontend="fe_web")
    assert change.changed
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{server.web_port}/", timeout=5)
    assert not act(client, "disable_frontend", frontend="fe_web").changed
    assert undo(client, "disable_frontend", change, frontend="fe_web").changed
    assert served(apps, server) == [5, 5]
    assert not act(client, "enable_frontend", frontend="fe_web").changed
    with pytest.raises(Refused, match=r"there is no frontend nope \(see get_stats"):
        act(client, "disable_frontend", frontend="nope")
    server.ask("shutdown frontend fe_web")
    with pytest.raises(Refused, match=r"fe_web was shut down \(only a reload"):
        act(client, "enable_frontend", frontend="fe_web")


@pytest.mark.parametrize("action", ["set_server_state", "set_weight", "set_addr"])
def test_what_is_not_there(client: HaproxyClient, action: str) -> None:
    arguments = {"set_server_state": {"state": "drain"}, "set_weight": {"weight": 1}, "set_addr": {"address": "::1"}}
    with pytest.raises(Refused, match=r"backend be_app has no server nope \(see get_servers"):
        act(client, action, backend="be_app", server="nope", **arguments[action])
    with pytest.raises(Refused, match=r"there is no backend nope \(see get_backends"):
        act(client, action, backend="nope", server="app1", **arguments[action])


@pytest.mark.parametrize(
    "name", ["a;b", "a b", "a\n", "a\nb", "a/b", "#1", "", "..", "a\x00", "a\\", "<<", "ä", "x" * 256], ids=ascii
)
@pytest.mark.parametrize("argument", ["backend", "server"])
def test_names_that_would_say_something_else(client: HaproxyClient, name: str, argument: str) -> None:
    with pytest.raises(Refused, match="cannot take these arguments"):
        act(client, "set_server_state", **(APP1 | {argument: name}), state="drain")


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("set_weight", {"weight": 257}),
        ("set_weight", {"weight": -1}),
        ("set_weight", {"weight": "101%"}),
        ("set_weight", {"weight": "5%; show info"}),
        ("set_weight", {"weight": "٣%"}),
        ("set_addr", {"address": "fe80::1%a;disable frontend fe_web"}),
        ("set_addr", {"address": "localhost"}),
        ("set_addr", {"address": "::1", "port": 0}),
        ("set_server_state", {"state": "down"}),
        ("remove_server", {"wait": float("nan")}),
    ],
    ids=range(10),
)
def test_arguments_that_are_none(client: HaproxyClient, action: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="cannot take these arguments"):
        act(client, action, **APP1, **arguments)
    assert value(read(client), "haproxy_frontend_status", proxy="fe_web", state="OPEN") == 1


def test_a_socket_that_may_only_read(start: Callable[..., HaproxyServer], connect: Connect, tmp_path: Path) -> None:
    sockets = [f"socket {tmp_path}/admin.sock level admin", f"socket {tmp_path}/user.sock level user"]
    client = connect(start(folder=tmp_path, conf={"stats": sockets}), socket=f"{tmp_path}/user.sock")
    settled(client)
    assert state(client, "app1") == "UP"
    with pytest.raises(Refused, match=r"Permission denied \(give the stats socket `level admin`"):
        act(client, "set_server_state", **APP1, state="drain")
    with pytest.raises(Refused, match="Permission denied"):
        act(client, "disable_frontend", frontend="fe_web")


def test_what_the_ways_that_are_set_cannot_do(server: HaproxyServer, client: HaproxyClient, connect: Connect) -> None:
    with pytest.raises(Refused, match=r"\(set dataplane in"):
        act(client, "set_weight", **APP1, weight=5, persist=True)
    page = connect(server, "url")
    with pytest.raises(Refused, match=r"\(set socket or dataplane"):
        act(page, "set_server_state", **APP1, state="drain")
    with pytest.raises(Refused, match=r"\(set socket in"):
        act(page, "disable_frontend", frontend="fe_web")
    assert client.get_servers_state("be_app")[0].admin == "ready"
    assert client.get_servers_state("be_app")[0].weight == 10


def test_changes_of_one_backend_wait_for_each_other() -> None:
    lanes = {name: one.serialize_by for name, one in Haproxy.actions().items()}
    frontends = {"disable_frontend", "enable_frontend"}
    assert {name for name, lane in lanes.items() if lane == "frontend"} == frontends
    assert {name for name, lane in lanes.items() if lane == "backend"} == lanes.keys() - frontends
