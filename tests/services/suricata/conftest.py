"""Clients of a real Suricata, and traffic for it to see."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nms_workers.services.suricata.client import SuricataClient
from nms_workers.services.suricata.target import SuricataTarget
from tests.conftest import StartServer
from tests.servers import SURICATA, SuricataServer

Connect = Callable[..., SuricataClient]

_TRAFFIC = Path(__file__).with_name("traffic.py")


def send(server: SuricataServer, *wishes: list[str]) -> None:
    """Send what `traffic.py` understands."""
    server.inside(sys.executable, str(_TRAFFIC), stdin=json.dumps(wishes))


@pytest.fixture(params=SURICATA)
def suricata(request: pytest.FixtureRequest, start_server: StartServer) -> SuricataServer:
    """A Suricata of this test's own, of each version."""
    server = start_server(request.param)
    assert isinstance(server, SuricataServer)
    return server


@pytest.fixture
def connect() -> Iterator[Connect]:
    """`connect(server, **settings)`: our client of a server, closed at the end."""
    clients: list[SuricataClient] = []

    def make(server: SuricataServer | None = None, **settings: Any) -> SuricataClient:
        if server is not None:
            own: dict[str, Any] = {"socket": server.socket, "config": server.config, "program": server.program}
            if not settings.keys() & {"eve_socket", "eve_list"}:
                own["eve_file"] = server.eve
            settings = own | settings
        clients.append(SuricataClient(SuricataTarget(**settings)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(suricata: SuricataServer, connect: Connect) -> SuricataClient:
    """Our client of a Suricata of this test's own."""
    return connect(suricata)


@pytest.fixture
def untouched(session_server: StartServer) -> SuricataServer:
    """A Suricata that no test changes."""
    server = session_server("suricata")
    assert isinstance(server, SuricataServer)
    return server
