"""Clients of real GNS3 servers of both versions, and plain requests that tell what is true."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nms_workers.services.gns3.client import Gns3Client
from nms_workers.services.gns3.target import Gns3Target
from tests.conftest import StartServer
from tests.servers import GNS3, Gns3Server, Server
from tests.services.gns3.support import Plain

Connect = Callable[..., Gns3Client]


@pytest.fixture(params=GNS3)
def server(request: pytest.FixtureRequest, session_server: StartServer) -> Iterator[Server]:
    """A server of each version, without any project before and after the test."""
    one = session_server(request.param, "gns3")
    Plain(one).clear()
    yield one
    Plain(one).clear()


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """`connect(server, **settings)`: our client of a server, closed at the end."""
    clients: list[Gns3Client] = []

    def make(server: Server | None = None, **settings: Any) -> Gns3Client:
        if server is not None:
            monkeypatch.setenv("TEST_GNS3_PASSWORD", server.password)
            login = {"username": server.user, "password": "env:TEST_GNS3_PASSWORD"}
            settings = {"url": server.url} | ({} if "token" in settings else login) | settings
        clients.append(Gns3Client(Gns3Target(**settings)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(server: Server, connect: Connect) -> Gns3Client:
    """Our client of `server`."""
    return connect(server)


@pytest.fixture
def plain(server: Gns3Server) -> Plain:
    """What `server` says without our code."""
    return Plain(server)
