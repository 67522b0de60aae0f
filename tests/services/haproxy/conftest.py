"""A real HAProxy before two real servers, a stub of the Data Plane API, and our clients of them."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from nms_workers.services.haproxy.client import HaproxyClient
from nms_workers.services.haproxy.target import HaproxyTarget
from tests.conftest import StartServer
from tests.servers import HAPROXY, HaproxyServer
from tests.services.haproxy.support import state
from tests.services.records import await_true
from tests.stubs import dataplane
from tests.transport.sites import Call, Site

Connect = Callable[..., HaproxyClient]


class App:
    """A server behind HAProxy: well or not, and holding the requests for `/slow` until it lets them go."""

    def __init__(self) -> None:
        self.well, self.let_go = True, threading.Event()
        self.site = Site({"/health": self._health, "/slow": self._slow, "*": lambda call: call.answer(body=b"hello")})

    def _health(self, call: Call) -> None:
        call.answer(200 if self.well else 503)

    def _slow(self, call: Call) -> None:
        self.let_go.wait(30)
        call.answer(body=b"at last", Connection="close")


@pytest.fixture
def apps() -> Iterator[list[App]]:
    """Two servers."""
    both = [App(), App()]
    with both[0].site, both[1].site:
        yield both
        for app in both:
            app.let_go.set()


@pytest.fixture(params=HAPROXY)
def start(request: pytest.FixtureRequest, start_server: StartServer, apps: list[App]) -> Callable[..., HaproxyServer]:
    """`start(**options)`: a HAProxy of each version, of this test's own, before `apps`."""

    def make(**options: Any) -> HaproxyServer:
        one = start_server(request.param, ports=[app.site.port for app in apps], **options)
        assert isinstance(one, HaproxyServer)
        return one

    return make


@pytest.fixture
def server(start: Callable[..., HaproxyServer], connect: Connect) -> HaproxyServer:
    """A HAProxy of this test's own, that found both servers up and d1 down."""
    one = start()
    settled(connect(socket=str(one.socket)))
    return one


def settled(client: HaproxyClient) -> None:
    """Wait until the first checks are over."""
    await_true(lambda: [state(client, name) for name in ("app1", "app2")] == ["UP", "UP"])
    await_true(lambda: state(client, "d1", "be_dead") == "DOWN")


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """`connect(server, **settings)`: our client, closed at the end; `way` is socket, tcp, url or json."""
    clients: list[HaproxyClient] = []

    def make(server: HaproxyServer | None = None, way: str = "socket", **settings: Any) -> HaproxyClient:
        if server is not None:
            monkeypatch.setenv("TEST_HAPROXY_PASSWORD", server.password)
            page = {"url": server.url, "username": server.user, "password": "env:TEST_HAPROXY_PASSWORD"}
            ways = {
                "socket": {"socket": str(server.socket)},
                "tcp": {"socket": server.tcp},
                "url": page,
                "json": {**page, "stats_format": "json"},
            }
            settings = ways[way] | settings
        clients.append(HaproxyClient(HaproxyTarget.model_validate(settings)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(server: HaproxyServer, connect: Connect) -> HaproxyClient:
    """Our client of `server` by its socket."""
    return connect(server)


@pytest.fixture(params=[2, 3], ids=["v2", "v3"])
def stub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[dataplane.DataPlaneStub]:
    """The Data Plane API of each version; fails the test when a request or an answer is not as described."""
    monkeypatch.setenv("TEST_DATAPLANE_PASSWORD", dataplane.PASSWORD)
    with dataplane.DataPlaneStub(request.param) as one:
        yield one


@pytest.fixture
def api(stub: dataplane.DataPlaneStub, connect: Connect) -> HaproxyClient:
    """Our client of `stub` alone."""
    login = {"username": dataplane.USER, "password": "env:TEST_DATAPLANE_PASSWORD"}
    return connect(dataplane={"url": stub.url, **login})


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate with its key, in a file whose name has a space."""
    path = tmp_path / "site one.pem"
    trustme.CA().issue_cert("lb.example").private_key_and_cert_chain_pem.write_to_path(path)
    return path


def load(server: HaproxyServer, count: int = 20) -> None:
    """So many requests through HAProxy, each answered by one of the servers."""
    with requests.Session() as session:
        for _ in range(count):
            assert session.get(f"http://127.0.0.1:{server.web_port}/page", timeout=10).text == "hello"
