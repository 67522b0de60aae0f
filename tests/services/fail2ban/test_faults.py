"""What goes wrong on the way to a server, and how it is told."""

import os
import pickle
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from nms_workers.errors import AuthError, NmsError, ParseError, Refused, Timeout, Unreachable
from nms_workers.services.fail2ban import wire
from nms_workers.services.fail2ban.target import Fail2banTarget
from nms_workers.transport.deadline import deadline
from tests.servers import Fail2banServer
from tests.services.fail2ban.conftest import END, Connect, Peer, said
from tests.services.fail2ban.support import act, read
from tests.services.records import value


def test_no_socket(connect: Connect, tmp_path: Path) -> None:
    client = connect(socket=tmp_path / "none.sock")
    for poll in ("server", "jails", "bans"):
        with pytest.raises(Unreachable, match="is not there") as error:
            read(client, poll)
        assert "mount the folder" in error.value.hint
    assert client.failures == {"connect": 3, "request": 0}


def test_a_server_that_was_killed_leaves_its_socket(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    assert client.get_version() == "1.0.2"
    server.kill()
    assert server.socket.exists()
    with pytest.raises(Unreachable, match="has nobody listening"):
        client.get_version()


def test_a_folder_made_anew_under_us(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    act(client, "ban_ip", jail="nms", address="192.0.2.1")
    server.stop()
    shutil.rmtree(server.socket.parent)
    with pytest.raises(Unreachable):
        client.get_version()
    server.start()
    assert client.is_running("nms")
    assert value(read(client, "server"), "fail2ban_client_errors_total", stage="connect") == 1


def test_no_permission(server: Fail2banServer, connect: Connect) -> None:
    with tempfile.TemporaryDirectory() as folder:  # one that everybody may enter, which pytest's are not
        Path(folder).chmod(0o755)
        shared = Path(folder) / "fail2ban.sock"
        os.link(server.socket, shared)
        client = connect(socket=shared)
        if os.geteuid() == 0:
            assert client.get_version() == "1.0.2"
        with _as_somebody_else(shared), pytest.raises(AuthError, match="does not let us in") as error:
            client.get_version()
    assert "the socket is root's" in error.value.hint


@contextmanager
def _as_somebody_else(path: Path) -> Iterator[None]:
    if os.geteuid():
        path.chmod(0)
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def _stopped(server: Fail2banServer) -> Iterator[None]:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_a_stalled_server(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server, timeout=0.4)
    start = time.monotonic()
    with _stopped(server), pytest.raises(Timeout, match="gave no answer in time to 'version'"):
        client.get_version()
    assert 0.3 < time.monotonic() - start < 3
    assert client.failures == {"connect": 0, "request": 1}
    assert client.get_version() == "1.0.2"


def test_a_stalled_server_whose_queue_is_full(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server, timeout=0.4)
    with _stopped(server):
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(8)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(str(server.socket))
        start = time.monotonic()
        with pytest.raises(Timeout, match="takes no connection"):
            client.get_version()
        assert 0.3 < time.monotonic() - start < 3
        for one in waiting:
            one.close()
    assert client.get_version() == "1.0.2"


def test_the_deadline_of_the_run_is_kept(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server, timeout=30)
    start = time.monotonic()
    with _stopped(server), deadline(0.3), pytest.raises(Timeout):
        client.get_version()
    assert 0.2 < time.monotonic() - start < 3


def test_many_at_once(server: Fail2banServer, connect: Connect) -> None:
    """The server's queue is short: who comes at the same time waits for a place in it."""
    client = connect(server, timeout=20)
    found: list[object] = []

    def ask() -> None:
        try:
            found.append(client.get_version())
        except NmsError as exc:
            found.append(exc)

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["1.0.2"] * 40


@pytest.mark.parametrize("at", [1, 5, -len(END) - 1, -1])
def test_an_answer_that_is_cut_off(connect: Connect, peer: Peer, at: int) -> None:
    path = peer(lambda _: said("1.0.2")[:at], stay=False)
    with pytest.raises(ParseError, match=r"to 'version' was cut off"):
        connect(socket=path).get_version()


def test_a_peer_that_hangs_up_without_a_word(connect: Connect, peer: Peer) -> None:
    with pytest.raises(Unreachable, match="closed the connection"):
        connect(socket=peer(lambda _: b"", stay=False)).get_version()


@pytest.mark.parametrize(
    "other", [b'{"return":"OK"}\n', b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown command\r\n", b"\x00" * 100]
)
def test_another_product_on_the_socket(connect: Connect, peer: Peer, other: bytes) -> None:
    with pytest.raises(ParseError, match="does not answer as fail2ban does"):
        connect(socket=peer(lambda _: other), timeout=2).get_version()


@pytest.mark.parametrize(
    "answer", [None, (0,), (2, "x"), ("0", "x"), ["x"], (1, "text"), {"a": 1}, (0, "0,3,1"), (0, 7)]
)
def test_answers_of_another_shape(connect: Connect, peer: Peer, answer: object) -> None:

    with pytest.raises(ParseError):
        connect(socket=peer(lambda _: pickle.dumps(answer) + END)).get_version()


@pytest.mark.parametrize(
    "status",
    [
        None,
        "nms",
        [("Number of jail", 1)],
        [("Jail list", 5)],
        [("Jail list", "nms", 3)],
        [["Jail list", "nms"]],
        [("Filter", None), ("Actions", None), ("Jail list", "nms")],
        [("Filter", [("Currently failed", "many")]), ("Actions", []), ("Jail list", "nms")],
        [("Filter", [("Currently failed", True)]), ("Actions", []), ("Jail list", "nms")],
    ],
)
def test_a_status_of_another_shape(connect: Connect, peer: Peer, status: object) -> None:
    path = peer(lambda command: said("1.0.2" if command == ["version"] else status))
    with pytest.raises(ParseError):
        connect(socket=path).get_jails()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "192.0.2.1",
        "192.0.2.1 \t2026-13-01 00:00:00 + 600 = 2026-01-01 00:00:00",
        "192.0.2.1 \t2026-01-01 00:00:00 + 999999999999 = 9999-01-01 00:00:00",
        "192.0.2.1 \t2026-01-01 00:00:00 + ٦٠٠ = 2026-01-01 00:00:00",
        "x" * 2000 + " \t2026-01-01 00:00:00 + 600 = 2026-01-01 00:00:00",
    ],
)
def test_bans_of_another_shape(connect: Connect, peer: Peer, line: str) -> None:
    path = peer(lambda command: said([("Jail list", "nms")] if command == ["status"] else [line]))
    with pytest.raises(ParseError, match="a ban of nms"):
        connect(socket=path).get_banned()


def test_an_answer_that_drips_in(connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "slow.sock"
    done = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while not done.wait(0.05):
                try:
                    connection.sendall(b"\x80")
                except OSError:  # the client has hung up
                    return

    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        start = time.monotonic()
        try:
            with pytest.raises(Timeout):
                connect(socket=path, timeout=0.5).get_version()
            assert 0.4 < time.monotonic() - start < 3
        finally:
            done.set()
            thread.join()


def test_an_endless_answer(connect: Connect, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_ANSWER", 100_000)
    with pytest.raises(ParseError, match="is longer than"):
        connect(socket=peer(lambda _: b"\x80" * 1_000_000)).get_version()


def test_what_the_server_refuses_is_told_in_its_words(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    with client.talk() as plain:
        with pytest.raises(Refused, match="fail2ban refused 'no such command': Invalid command"):
            plain.ask("no such command")
        with pytest.raises(Refused, match="no jail 'nope' runs"):
            plain.ask("status", "nope")
        assert plain.ask("ping") == "pong", "the conversation goes on"
    assert client.failures == {"connect": 0, "request": 0}


def test_a_request_that_the_server_could_not_read(connect: Connect, peer: Peer) -> None:
    path = peer(lambda _: pickle.dumps("ERROR: pickle data was truncated") + END)
    with pytest.raises(Refused, match="could not take 'version': ERROR: pickle data was truncated"):
        connect(socket=path).get_version()


@pytest.mark.parametrize(
    "settings",
    [
        {"socket": "run/fail2ban.sock"},
        {"socket": "/" + "x" * 107},
        {"timezone": "Mars/Olympus"},
        {"timezone": "../../etc/passwd"},
        {"timezone": "Europe"},
        {"timeout": 0},
        {"config": "--etc"},
        {"server_program": "fail2ban-server"},
        {"host": "x"},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Fail2banTarget.model_validate(settings)


def test_a_plain_file_and_a_datagram_socket(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unreachable):
        connect(socket=tmp_path / "file").get_version()
    with pytest.raises(Unreachable, match="is not there"):
        connect(socket=tmp_path / "file" / "below").get_version()
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as datagrams:
        datagrams.bind(str(tmp_path / "datagrams"))
        with pytest.raises(ParseError, match="no stream socket"):
            connect(socket=tmp_path / "datagrams").get_version()
