"""What goes wrong on the way to an engine, and how it is told."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import ValidationError

from nms_workers.errors import ParseError, Refused, Timeout, Unreachable
from nms_workers.services.suricata import command
from nms_workers.services.suricata.target import SuricataTarget
from nms_workers.transport.deadline import deadline
from tests.servers import SuricataServer
from tests.services.suricata.conftest import Connect
from tests.services.suricata.support import await_true, read, value

Peer = Callable[..., Path]
OK = b'{"return":"OK"}\n'


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    """`peer(answers, pause)`: a socket where each request gets the next answer, byte by byte; then it hangs up."""
    with ExitStack() as stack:
        done = threading.Event()

        def serve(listener: socket.socket, answers: Sequence[bytes], pause: float) -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # the listener was closed: the test is over
                    return
                with connection, connection.makefile("rb") as requests:
                    for answer in answers:
                        if not requests.readline() or not _drip(connection, answer, pause, done):
                            break
                    else:
                        if pause:  # answers no more, and does not hang up
                            done.wait()

        def start(*answers: bytes, pause: float = 0.0) -> Path:
            path = tmp_path / f"peer{len(list(tmp_path.iterdir()))}.socket"
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            thread = threading.Thread(target=serve, args=(listener, answers, pause))
            thread.start()
            stack.callback(thread.join)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return path

        stack.callback(done.set)
        yield start
        done.set()


def _drip(connection: socket.socket, answer: bytes, pause: float, done: threading.Event) -> bool:
    for byte in answer:
        if pause and done.wait(pause):
            return False
        try:
            connection.sendall(bytes([byte]))
        except OSError:  # the client has hung up
            return False
    return True


def test_an_engine_that_is_gone_and_back(suricata: SuricataServer, connect: Connect) -> None:
    client = connect(suricata)
    read(client, "memcaps")
    suricata.stop()
    with pytest.raises(Unreachable) as error:
        read(client, "memcaps")
    assert "is Suricata running" in error.value.hint
    suricata.kill()
    suricata.start()
    assert value(read(client, "memcaps"), "suricata_memcap_bytes", part="flow") == 16 << 20


def test_a_killed_engine_leaves_a_socket_nobody_listens_at(suricata: SuricataServer, connect: Connect) -> None:
    client = connect(suricata)
    suricata.kill()
    with pytest.raises(Unreachable, match="nobody listens there"):
        read(client, "memcaps")


def test_commands_that_the_engine_refuses(untouched: SuricataServer, connect: Connect) -> None:
    client = connect(untouched)
    with pytest.raises(Refused, match="Unknown command") as error:
        client.ask("make-coffee")
    assert "does not have it" in error.value.hint
    with pytest.raises(Refused, match="Iface does not exist"):
        client.ask("iface-stat", iface="none0")
    with pytest.raises(Unreachable, match="closed the connection on iface-stat"):
        client.ask("iface-stat")  # without its argument
    assert client.ask("version", str)
    with pytest.raises(ParseError, match="in a shape we do not know"):
        client.ask("version", int)


def test_an_answer_in_many_pieces(connect: Connect, peer: Peer) -> None:
    answer = b'{"message":{"text":"a}\\n{","deep":{"n":1}},"return":"OK"}\n'
    client = connect(socket=peer(OK, answer, pause=0.001))
    assert client.ask("dump-counters") == {"text": "a}\n{", "deep": {"n": 1}}


def test_a_handshake_without_newline(connect: Connect, peer: Peer) -> None:
    client = connect(socket=peer(b'{"return": "OK"}', b'{"message":"7","return":"OK"}\n'))
    assert client.ask("version", str) == "7"


def test_a_kept_connection_that_was_closed_is_opened_anew(connect: Connect, peer: Peer) -> None:
    client = connect(socket=peer(OK, b'{"message":"7","return":"OK"}\n'))
    assert [client.ask("version") for _ in range(3)] == ["7"] * 3


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([], Unreachable),
        ([b'{"return":"NOK","message":"no"}\n'], ParseError),
        ([b"HTTP/1.1 400 Bad Request\r\n"], ParseError),
        ([OK], Unreachable),
        ([OK, b'{"message":"cut'], Unreachable),
        ([OK, b"[1,2]\n"], ParseError),
        ([OK, b'{"message":"no","return":"NOK"}\n'], Refused),
    ],
)
def test_a_peer_that_is_no_engine(connect: Connect, peer: Peer, answers: list[bytes], error: type[Exception]) -> None:
    with pytest.raises(error):
        connect(socket=peer(*answers)).ask("version")


def test_an_answer_that_drips_in_is_cut_off(connect: Connect, peer: Peer) -> None:
    client = connect(socket=peer(OK, b'{"message":"' + b"x" * 1000, pause=0.02), timeout=1.0)
    start = time.monotonic()
    with pytest.raises(Timeout):
        client.ask("version")
    assert 0.8 < time.monotonic() - start < 3


def test_the_deadline_of_the_run_is_kept(connect: Connect, peer: Peer) -> None:
    client = connect(socket=peer(OK, pause=0.001), timeout=30)
    start = time.monotonic()
    with deadline(0.4), pytest.raises(Timeout):
        client.ask("version")
    assert time.monotonic() - start < 3


def test_an_endless_answer(connect: Connect, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_MAX_ANSWER", 1000)
    with pytest.raises(ParseError, match="longer than"):
        connect(socket=peer(OK, b'{"message":"' + b"x" * 5000)).ask("version")


def test_what_waits_for_another_command_ends_in_time(connect: Connect, peer: Peer) -> None:
    client = connect(socket=peer(OK, pause=0.001), timeout=2.0)
    first = threading.Thread(target=lambda: _fails(lambda: client.ask("version")))
    first.start()
    with deadline(0.5), pytest.raises(Timeout):
        await_true(lambda: client.ask("uptime"))
    first.join()


def _fails(do: Callable[[], object]) -> None:
    with pytest.raises(Timeout):
        do()


def test_no_socket_and_no_permission(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="there is no such socket"):
        connect(socket=tmp_path / "none").ask("version")
    path = tmp_path / ("long" * 40)
    with pytest.raises(Unreachable):
        connect(socket=path).ask("version")


@pytest.mark.parametrize(
    "settings",
    [
        {"eve_file": "/a", "eve_socket": "/b"},
        {"eve_file": "eve.json"},
        {"socket": "x"},
        {"eve_list": {}, "position": "/p"},
        {"eve_list": {"password": "plain text"}},
        {"timeout": 0},
        {"nonsense": 1},
    ],
)
def test_settings_that_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as error:
        SuricataTarget(**settings)
    assert "plain text" not in str(error.value)


def test_a_note_that_is_none(connect: Connect, tmp_path: Path) -> None:
    log = tmp_path / "eve.json"
    log.write_bytes(b"")
    log.with_name("eve.json.position").write_text("{}")
    with pytest.raises(ParseError, match="is no note of where we were") as error:
        read(connect(eve_file=log))
    assert error.value.hint.startswith("remove it")
