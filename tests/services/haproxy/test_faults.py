"""What goes wrong on the way to HAProxy, and how it is told."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import ValidationError

from nms_workers.errors import AuthError, NmsError, ParseError, Refused, Timeout, Unreachable
from nms_workers.services.haproxy import runtime, stats
from nms_workers.services.haproxy.answers import servers_state, stick_tables
from nms_workers.services.haproxy.client import HaproxyClient
from nms_workers.services.haproxy.target import HaproxyTarget
from nms_workers.transport.deadline import deadline
from tests.conftest import StartServer
from tests.servers import HaproxyServer
from tests.services.haproxy.conftest import Connect, settled
from tests.services.haproxy.support import events, read, state
from tests.services.records import await_true
from tests.transport.sites import Site

Peer = Callable[..., Path]
HEAD = b"# pxname,svname,status,type,scur,\n"


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    """`peer(answer, pause)`: a socket where each command gets this answer, byte by byte; then it hangs up."""
    with ExitStack() as stack:
        done = threading.Event()

        def serve(listener: socket.socket, answer: bytes, pause: float) -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # the listener was shut down: the test is over
                    return
                with connection:
                    connection.recv(4096)
                    _drip(connection, answer, pause, done)

        def start(answer: bytes, pause: float = 0.0) -> Path:
            path = tmp_path / f"peer{len(list(tmp_path.iterdir()))}.sock"
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            thread = threading.Thread(target=serve, args=(listener, answer, pause))
            thread.start()
            stack.callback(thread.join)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return path

        stack.callback(done.set)
        yield start
        done.set()


def _drip(connection: socket.socket, answer: bytes, pause: float, done: threading.Event) -> None:
    parts: Sequence[bytes] = [answer[at : at + 1] for at in range(len(answer))] if pause else [answer]
    for part in parts:
        if pause and done.wait(pause):
            return
        try:
            connection.sendall(part)
        except OSError:  # the client has hung up
            return
    if pause:
        done.wait()


def test_a_process_that_is_gone_and_back(server: HaproxyServer, connect: Connect) -> None:
    for way in ("socket", "tcp", "url"):
        client = connect(server, way, retry={"attempts": 1})
        assert read(client)
        server.kill()
        with pytest.raises(Unreachable) as error:
            read(client)
        assert "listens" in error.value.message
        server.start()
        settled(client)


def test_no_socket_and_no_permission(server: HaproxyServer, connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"there is no such socket \(is HAProxy running"):
        read(connect(socket=str(tmp_path / "none")))
    with pytest.raises(Unreachable):
        read(connect(socket=f"/{'x' * 200}"))
    with pytest.raises(Unreachable, match="there is no such host"):
        read(connect(socket="tcp://no-such-host.invalid:1"))


def test_credentials_that_are_not_accepted(
    server: HaproxyServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_WRONG", "not-the-password")
    for login in ({}, {"username": "admin", "password": "env:TEST_WRONG"}):
        client = HaproxyClient(HaproxyTarget.model_validate({"url": server.url, **login}))
        with pytest.raises(AuthError, match="check username and password") as error:
            read(client)
        client.close()
        assert "not-the-password" not in str(error.value)
    client = connect(server, "url")
    assert server.password not in f"{client.target!r} {client.target.model_dump_json()} {client!r}"


@pytest.mark.parametrize("way", ["socket", "tcp", "url"])
def test_a_process_that_stalls(server: HaproxyServer, connect: Connect, way: str) -> None:
    limits = {"socket_timeout": 0.5, "timeout": {"read": 0.5, "total": 0.5}, "retry": {"attempts": 1}}
    hasty, patient = connect(server, way, **limits), connect(server, way)
    os.kill(server.pid, signal.SIGSTOP)
    threads = list(Path(f"/proc/{server.pid}/task").iterdir())
    await_true(lambda: all("\nState:\tT" in (one / "status").read_text() for one in threads))
    try:
        began = time.monotonic()
        with pytest.raises(Timeout):
            read(hasty)
        with deadline(0.5), pytest.raises(Timeout):
            read(patient)
        assert time.monotonic() - began < 5
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert read(patient)


def test_the_page_at_another_path(server: HaproxyServer, connect: Connect) -> None:
    with pytest.raises(NmsError):
        read(connect(server, "url", url=f"http://127.0.0.1:{server.port}/elsewhere"))
    with Site({"*": lambda call: call.answer(body=b"pxname,svname\n1,2\n")}) as site:
        with pytest.raises(ParseError, match=r"does not look like HAProxy's statistics \(is it"):
            read(connect(url=site.url))
        with pytest.raises(ParseError):
            read(connect(url=site.url, stats_format="json"))


def test_something_else_at_the_socket(session_server: StartServer, connect: Connect) -> None:
    redis = session_server("redis-7.0")
    client = connect(socket=f"tcp://127.0.0.1:{redis.port}", socket_timeout=1)
    with pytest.raises((ParseError, Timeout)):
        read(client)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (b"", Unreachable, "without an answer"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ParseError, "does not look like"),
        (HEAD + b"be,s1,UP,2,5,", ParseError, "is cut off"),
        (HEAD + b"be,s1,UP\n", ParseError, "cut off in the row of be/s1"),
        (HEAD + b"be,s1,UP,9,5,\n", ParseError, "without a name or type"),
        (HEAD + b"be,s1,UP,x,5,\n", ParseError, "without a name or type"),
        (b"\xff\xfe\n", ParseError, "does not look like"),
        (b"Unknown command. Please enter one of\n", Refused, "does not have it"),
        (b"Permission denied\n", Refused, "level admin"),
    ],
    ids=range(9),
)
def test_answers_that_are_none(connect: Connect, peer: Peer, answer: bytes, error: type[NmsError], words: str) -> None:
    with pytest.raises(error, match=words):
        read(connect(socket=str(peer(answer))))


def test_an_answer_in_many_pieces(connect: Connect, peer: Peer) -> None:
    answer = HEAD + b"be,s1,UP 1/3,2,5,\n"
    path = peer(answer)
    (row,) = connect(socket=str(path)).get_stats()
    assert (row.state, row.fields["scur"]) == ("UP", 5)


def test_what_a_server_said_may_be_anything(connect: Connect, peer: Peer) -> None:
    said = b'be,s1,DOWN,2,"5",L7RSP,"a\x00\xff, \x0b""b""\nc",\n'
    head = b"# pxname,svname,status,type,scur,check_status,last_chk,\n"
    client = connect(socket=str(peer(head + said)))
    (event,) = events(read(client)).values()
    assert event.message == 'server be/s1 is DOWN: L7RSP a \ufffd,  "b" c'


def test_keys_that_are_cut_in_the_middle(connect: Connect, peer: Peer) -> None:
    line = "0x55dcfc2ef840: key=k\u00e4 use=0 exp=29897 shard=0 conn_cnt=3 http_req_rate(10000)=4\n".encode()
    client = connect(socket=str(peer(b"# table: t, type: string, size:9, used:9\n" + line * 3 + line[:20])))
    entries = client.get_table_entries("t", 2)
    assert [(one.key, one.data) for one in entries] == [("k\u00e4", {"conn_cnt": 3, "http_req_rate(10000)": 4})] * 2


def test_an_answer_that_drips_in_is_given_up(connect: Connect, peer: Peer) -> None:
    client = connect(socket=str(peer(HEAD * 100, pause=0.02)), socket_timeout=0.5)
    began = time.monotonic()
    with pytest.raises(Timeout, match="no whole answer in time"):
        read(client)
    assert 0.4 < time.monotonic() - began < 5


def test_an_endless_answer(connect: Connect, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "MAX_ANSWER", 1000)
    with pytest.raises(ParseError, match="more than 0 MiB"):
        read(connect(socket=str(peer(HEAD * 100))))


@pytest.mark.parametrize(
    "command", ["show info; show env", "show info\nshow env", "show\x00info", "add map <<", "show \\;", ""], ids=ascii
)
def test_a_command_is_one(server: HaproxyServer, command: str) -> None:
    with pytest.raises(Refused, match="cannot be said in one command"):
        runtime.RuntimeSocket(str(server.socket), 5).ask(command)


def test_names_that_haproxy_told_are_said_back_as_one_word() -> None:
    assert runtime.quoted("/etc/site one.pem") == "/etc/site\\ one.pem"
    for name in ("a;b", "a\nb", "a\\"):
        with pytest.raises(Refused, match="cannot be written in a command"):
            runtime.quoted(name)


def test_states_that_are_half_way() -> None:
    rows = stats.from_csv(
        "# pxname,svname,status,type,\n"
        "be,a,UP 1/3,2,\nbe,b,DOWN 1/2,2,\nbe,c,MAINT (via be/a),2,\nbe,d,NOLB 1/2,2,\n"
        "be,e,no check,2,\nbe,f,DOWN (agent),2,\nbe,g,DRAIN (agent),2,\nbe,h,MAINT (resolution),2,\n"
        "be,BACKEND,UP,1,\nfe,FRONTEND,PAUSED,0,\nfe,sock-1,FULL,3,\n"
    )
    assert [row.state for row in rows if row.kind == "server"] == [
        "UP", "DOWN", "MAINT", "NOLB", "no check", "DOWN", "DRAIN", "MAINT"
    ]  # fmt: skip
    assert [row.kind for row in rows[:3]] == ["frontend", "backend", "server"]


def test_a_slot_of_a_template_without_an_address_is_no_alarm(
    start: Callable[..., HaproxyServer], connect: Connect, free_port: Callable[[], int]
) -> None:
    resolvers = f"resolvers none\n  nameserver n1 127.0.0.1:{free_port()}\n"
    slots = "backend be_slots\n  server-template s 2 unknown.invalid:80 check resolvers none init-addr none\n"
    client = connect(start(sections=resolvers + slots))
    settled(client)
    assert state(client, "s1", "be_slots") == "MAINT"
    assert not [name for name in events(read(client)) if "be_slots/s" in name]


def test_answers_of_versions_we_do_not_know() -> None:
    with pytest.raises(ParseError, match="version 1"):
        servers_state("2\n# be_id be_name\n")
    with pytest.raises(ParseError, match="a line we do not know"):
        servers_state("1\n# be_id be_name srv_id\n3 be_app 1\n")
    with pytest.raises(ParseError, match="a line we do not know"):
        stick_tables("# something else")


@pytest.mark.parametrize(
    "settings",
    [
        {"socket": "admin.sock"},
        {"socket": "tcp://127.0.0.1"},
        {"socket": "tcp://user@127.0.0.1:1"},
        {"socket": "tcp://127.0.0.1:99999"},
        {"socket": "http://127.0.0.1:1"},
        {"socket": "/a\nb"},
        {"url": "http://user:secret@host/"},
        {"url": "http://host/", "username": "nms"},
        {"url": "http://host/", "stats_query": "a;b"},
        {"dataplane": {}},
        {"dataplane": {"url": "http://host", "password": "plain"}},
        {"socket": "/run/a", "max_objects": 0},
        {"nonsense": 1},
    ],
    ids=range(13),
)
def test_settings_that_cannot_be_used(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as error:
        HaproxyTarget.model_validate(settings)
    assert "secret" not in str(error.value).replace("secrets", "")
