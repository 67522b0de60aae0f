"""What goes wrong on the way to a server, and how it is told."""

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from nms_workers.errors import ParseError, Refused, Timeout, Unreachable
from nms_workers.records import Record
from nms_workers.services.redis import connection
from nms_workers.services.redis.service import Redis
from nms_workers.transport.deadline import deadline
from tests.conftest import StartServer
from tests.services.redis.conftest import Connect, Plain
from tests.services.redis.support import await_true, read, value

Peer = Callable[[bytes, float], int]


@pytest.fixture
def peer() -> Iterator[Peer]:
    """`peer(answer, pause)`: the port of a listener that sends its answer byte by byte, and then nothing."""
    with ExitStack() as stack:
        done = threading.Event()

        def serve(listener: socket.socket, answer: bytes, pause: float) -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # the listener was closed: the test is over
                    return
                with connection:
                    for byte in answer:
                        if done.wait(pause):
                            return
                        try:
                            connection.sendall(bytes([byte]))
                        except OSError:  # the client has hung up
                            break
                    else:
                        connection.settimeout(0.1)
                        while not done.is_set() and _still_open(connection):
                            pass

        def start(answer: bytes = b"", pause: float = 0.0) -> int:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=serve, args=(listener, answer, pause))
            thread.start()
            stack.callback(thread.join)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return listener.getsockname()[1]

        stack.callback(done.set)
        yield start
        done.set()


def _still_open(connection: socket.socket) -> bool:
    try:
        return connection.recv(4096) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def test_nobody_listens(connect: Connect, free_port: Callable[[], int]) -> None:
    with pytest.raises(Unreachable, match=r"could not be reached.*refused") as error:
        read(connect(port=free_port()), "server")
    assert error.value.hint


def test_no_such_host(connect: Connect) -> None:
    with pytest.raises(Unreachable, match="could not be reached"):
        read(connect(host="no-such-host.invalid"), "server")


def test_a_peer_that_never_answers(connect: Connect, peer: Peer) -> None:
    start = time.monotonic()
    with pytest.raises(Timeout, match="no answer in time"):
        read(connect(port=peer(b"", 0), timeout=0.4), "server")
    assert 0.3 < time.monotonic() - start < 2


def test_an_answer_that_drips_in_is_cut_off(connect: Connect, peer: Peer) -> None:
    start = time.monotonic()
    with pytest.raises(Timeout):
        read(connect(port=peer(b"$100000\r\n" + b"x" * 1000, 0.05), timeout=0.5), "server")
    assert 0.4 < time.monotonic() - start < 2


def test_the_deadline_of_the_run_is_kept(connect: Connect, peer: Peer) -> None:
    client = connect(port=peer(b"", 0), timeout=30)
    start = time.monotonic()
    with deadline(0.3), pytest.raises(Timeout):
        read(client, "server")
    assert 0.2 < time.monotonic() - start < 2


def test_a_slow_command_does_not_hold_the_run(start_server: StartServer, connect: Connect, plain: Plain) -> None:
    server = start_server("redis-7.0")
    client = connect(server, timeout=0.5)
    read(client, "server")
    sleeper = threading.Thread(target=plain(server).execute_command, args=("DEBUG", "SLEEP", "2"))
    sleeper.start()
    try:
        with pytest.raises(Timeout):
            await_true(lambda: not read(client, "latency"))  # until the sleep has begun
    finally:
        sleeper.join()
    assert value(read(client, "server"), "redis_max_clients") == 10_000


class _Page(http.server.BaseHTTPRequestHandler):
    default_request_version = "HTTP/1.1"  # what it takes a request for that it does not understand

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_an_http_server_on_the_port(connect: Connect) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.05,))
        thread.start()
        try:
            with pytest.raises(ParseError, match="does not speak the Redis protocol"):
                read(connect(port=site.server_port, timeout=2), "server")
        finally:
            site.shutdown()
            thread.join()


def test_an_endless_answer(connect: Connect, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_MAX_ANSWER", 1000)
    with pytest.raises(ParseError, match="longer than"):
        read(connect(port=peer(b"$1000000\r\n" + b"x" * 5000, 0), timeout=5), "server")


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"$5\r\nhello\r\n", b"*2\r\n:1\r\n:2\r\n", b":7\r\n", b"$-1\r\n"]
)
def test_another_product_that_speaks_the_protocol(connect: Connect, peer: Peer, answer: bytes) -> None:
    with pytest.raises(ParseError):
        read(connect(port=peer(answer, 0), timeout=2), "server")


def test_what_was_read_before_the_server_died_is_kept(start_server: StartServer, connect: Connect) -> None:
    server = start_server("redis-7.0", conf={"slowlog-log-slower-than": "0"})
    client = connect(server)
    kept: list[Record] = []

    def run() -> None:
        for record in Redis.polls()["slowlog"].run(client):
            if not kept:
                server.kill()
            kept.append(record)

    with pytest.raises(Unreachable):
        run()
    assert value(kept, "redis_slowlog_entries") >= 0


def test_a_server_that_loads_its_data(start_server: StartServer, connect: Connect, plain: Plain) -> None:
    slow = {"key-load-delay": "1000", "loading-process-events-interval-bytes": "1024"}
    server = start_server("redis-7.0", conf={"appendonly": "no"})
    other, client = plain(server), connect(server)
    other.mset({f"k{i}": "x" * 100 for i in range(2000)})
    for setting, number in slow.items():
        other.config_set(setting, number)
    loader = threading.Thread(target=plain(server).execute_command, args=("DEBUG", "RELOAD"))
    loader.start()
    try:
        with pytest.raises(Refused, match="is loading its data"):
            await_true(lambda: not client.analyze_memory_usage(sample=1))  # until the load has begun
        assert value(read(client, "server"), "redis_loading") == 1  # INFO is answered all the while
    finally:
        loader.join()


@pytest.mark.parametrize("password", ["correct horse", ""])
def test_a_full_server(start_server: StartServer, connect: Connect, plain: Plain, password: str) -> None:
    server = start_server("redis-7.0", password=password)
    plain(server).config_set("maxclients", 1)
    with pytest.raises(Refused, match="takes no more clients"):
        read(connect(server), "server")
