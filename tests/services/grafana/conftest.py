"""A Grafana of each version, and our client of it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from nms_workers.services.grafana.client import GrafanaClient
from nms_workers.services.grafana.target import GrafanaTarget
from tests.contract.vendor import SPECS
from tests.services.grafana.described import DESCRIPTION, described
from tests.services.grafana.support import SECRET, fill
from tests.stubs.grafana import VERSIONS, GrafanaStub

Start = Callable[..., GrafanaStub]
Connect = Callable[..., GrafanaClient]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(major, ...)`: a Grafana that fails the test when a request or an answer is not as the vendor describes."""
    contract = described() if (SPECS / DESCRIPTION).exists() else None
    with ExitStack() as running:
        yield lambda *args, **options: running.enter_context(
            GrafanaStub(*args, **({"contract": None if options.get("path") else contract} | options))
        )


@pytest.fixture(params=VERSIONS)
def any_grafana(request: pytest.FixtureRequest, start: Start) -> GrafanaStub:
    """A Grafana of each version."""
    return start(request.param)


@pytest.fixture
def grafana(start: Start) -> GrafanaStub:
    """A Grafana of one version, where versions do not matter."""
    return start(12)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """`connect(stub, **settings)`: our client, by token unless told otherwise; closed at the end."""
    monkeypatch.setenv("TEST_GRAFANA_TOKEN", "glsa_abc")
    monkeypatch.setenv("TEST_GRAFANA_PASSWORD", "s3cret pass")
    clients: list[GrafanaClient] = []

    def make(stub: GrafanaStub, **settings: Any) -> GrafanaClient:
        login = {} if "username" in settings else {"token": "env:TEST_GRAFANA_TOKEN"}
        usual: dict[str, Any] = {"url": stub.url, "retry": {"attempts": 1}, "check_timeout": 60}
        clients.append(GrafanaClient(GrafanaTarget(**usual | login | settings)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def connect_admin(connect: Connect) -> Connect:
    """The same, as the server's administrator."""
    return lambda stub, **more: connect(stub, username="admin", password="env:TEST_GRAFANA_PASSWORD", **more)


@pytest.fixture(params=[9, 13])
def filled(request: pytest.FixtureRequest, start: Start) -> GrafanaStub:
    """The oldest Grafana and the newest, with something of everything."""
    stub = start(request.param)
    fill(stub)
    return stub


@pytest.fixture
def client(filled: GrafanaStub, connect: Connect) -> GrafanaClient:
    """Our client of `filled`."""
    return connect(filled)


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PROM_PASSWORD", SECRET)
