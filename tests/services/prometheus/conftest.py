"""Clients of a real Prometheus, and plain requests that tell what is true."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from nms_workers.services.prometheus.client import PrometheusClient
from nms_workers.services.prometheus.target import PrometheusTarget
from tests.conftest import StartServer
from tests.servers import PROMETHEUS, PrometheusServer, Server
from tests.services.prometheus.support import Plain
from tests.services.records import await_true

Connect = Callable[..., PrometheusClient]
StartPrometheus = Callable[..., PrometheusServer]


def scraped(server: Server) -> None:
    """Wait until it has scraped and evaluated everything: it hands its targets over 5 seconds after its start."""
    plain = Plain(server)
    await_true(lambda: (plain.value("count(job:up:sum)") or 0) >= 2)
    await_true(lambda: plain.value('count(ALERTS{alertstate="firing"})'))


@pytest.fixture(params=PROMETHEUS)
def server(request: pytest.FixtureRequest, session_server: StartServer) -> Server:
    """A server of each version with data, which tests leave as it is."""
    one = session_server(request.param, "prometheus")
    scraped(one)
    return one


@pytest.fixture(params=PROMETHEUS)
def changed_server(request: pytest.FixtureRequest, session_server: StartServer) -> Iterator[PrometheusServer]:
    """The same for tests that change data and configuration; the configuration is put back."""
    one = session_server(request.param, "prometheus, changed")
    assert isinstance(one, PrometheusServer)
    scraped(one)
    yield one
    one.conf = {}
    one.prepare()
    assert requests.post(f"{one.url}/-/reload", timeout=30).ok


@pytest.fixture
def start_prometheus(start_server: StartServer) -> StartPrometheus:
    """`start_prometheus(**options)`: a server of this test's own, with data."""

    def start(**options: Any) -> PrometheusServer:
        one = start_server("prometheus", **options)
        assert isinstance(one, PrometheusServer)
        scraped(one)
        return one

    return start


@pytest.fixture
def connect() -> Iterator[Connect]:
    """`connect(url, **settings)`: our client, closed at the end."""
    clients: list[PrometheusClient] = []

    def make(url: str, **settings: Any) -> PrometheusClient:
        clients.append(PrometheusClient(PrometheusTarget.model_validate({"url": url} | settings)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(server: Server, connect: Connect) -> PrometheusClient:
    """Our client of `server`."""
    return connect(server.url)


@pytest.fixture
def plain(server: Server) -> Plain:
    """What `server` says without our code."""
    return Plain(server)
