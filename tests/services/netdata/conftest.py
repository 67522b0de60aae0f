"""Clients of a real agent of 1.37, which knows API 1, and of a stub of 2.9, which knows API 3."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nms_workers.services.netdata.client import NetdataClient
from nms_workers.services.netdata.target import NetdataTarget
from tests.conftest import StartServer
from tests.contract.vendor import SPECS, Contract
from tests.servers import NetdataServer
from tests.services.netdata.support import contract, plain
from tests.services.records import await_true
from tests.stubs.netdata import NetdataStub

Connect = Callable[..., NetdataClient]


@pytest.fixture
def agent(session_server: StartServer) -> NetdataServer:
    """A real agent; its level is 0 at first, and its alarm has looked at that."""
    server = session_server("netdata", "netdata")
    assert isinstance(server, NetdataServer)
    server.level(0)
    await_true(
        lambda: [one["status"] for one in plain(server.url, "/api/v1/alarms?all")["alarms"].values()] == ["CLEAR"]
    )
    return server


@pytest.fixture(scope="session")
def _contract() -> Contract | None:
    return contract() if (SPECS / "netdata").exists() else None


@pytest.fixture
def stub(_contract: Contract | None) -> Iterator[NetdataStub]:
    """A parent of 2.9 with one child; at the end each request must have been as Netdata describes."""
    with NetdataStub(_contract) as one:
        yield one


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """`connect(url, key=..., **settings)`: our client, closed at the end."""
    clients: list[NetdataClient] = []

    def make(url: str, key: str = "", **settings: Any) -> NetdataClient:
        if key:
            monkeypatch.setenv("TEST_NETDATA_KEY", key)
            settings |= {"api_key": "env:TEST_NETDATA_KEY"}
        clients.append(NetdataClient(NetdataTarget(url=url, **settings)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(agent: NetdataServer, connect: Connect) -> NetdataClient:
    """Our client of the real agent."""
    return connect(agent.url, agent.api_key.read_text())
