"""Clients of real servers, and peers on a socket that answer as no server here would."""

import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nms_workers.services.fail2ban.client import Fail2banClient
from nms_workers.services.fail2ban.target import Fail2banTarget
from tests.conftest import StartServer
from tests.servers import Fail2banServer

Connect = Callable[..., Fail2banClient]
Peer = Callable[..., Path]

END = b"<F2B_END_COMMAND>"


@pytest.fixture
def server(start_server: StartServer) -> Fail2banServer:
    """A server of this test's own, with the jails `nms` and `other`."""
    started = start_server("fail2ban", jails=["other"])
    assert isinstance(started, Fail2banServer)
    return started


@pytest.fixture
def connect() -> Connect:
    """`connect(server, **settings)`: our client of a server, or of what listens on `socket`."""

    def make(server: Fail2banServer | None = None, **settings: Any) -> Fail2banClient:
        if server is not None:
            settings = {"socket": server.socket, "config": server.config, "timezone": "UTC"} | settings
        return Fail2banClient(Fail2banTarget(**settings))

    return make


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    """`peer(answer)`: the path of a socket; `answer` makes bytes of a command, sent in two parts, then it hangs up.

    With `stay` the connection stays open after an answer.
    """
    with ExitStack() as stack:

        def start(answer: Callable[[list[Any]], bytes], *, stay: bool = True) -> Path:
            path = tmp_path / "peer.sock"
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            thread = threading.Thread(target=_serve, args=(listener, answer, stay))
            thread.start()
            stack.callback(thread.join)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return path

        yield start


def _serve(listener: socket.socket, answer: Callable[[list[Any]], bytes], stay: bool) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # the listener was shut down: the test is over
            return
        with connection:
            while (command := _command(connection)) is not None:
                said = answer(command)
                try:
                    connection.sendall(said[: len(said) // 2])
                    connection.sendall(said[len(said) // 2 :])
                except OSError:  # the client has hung up
                    break
                if not stay:
                    break


def _command(connection: socket.socket) -> list[Any] | None:
    """What our client asks; None when it has hung up."""
    data = b""
    while not data.endswith(END):
        try:
            chunk = connection.recv(65_536)
        except OSError:
            return None
        if not chunk:
            return None
        data += chunk
    command: list[Any] = pickle.loads(data[: -len(END)])  # noqa: S301 - our own
    return command


def said(value: Any, code: int = 0) -> bytes:
    """An answer as a server sends it."""
    return pickle.dumps((code, value), pickle.HIGHEST_PROTOCOL) + END
