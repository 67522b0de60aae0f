"""Our client of a Kibana that keeps state; every request and answer is held against Elastic's description."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from nms_workers.services.kibana.client import KibanaClient
from nms_workers.services.kibana.target import KibanaTarget
from tests.contract.vendor import Contract
from tests.stubs.kibana import API_KEY, KibanaStub, contract
from tests.transport.sites import Site

Connect = Callable[..., KibanaClient]
Start = Callable[..., KibanaStub]


@pytest.fixture(scope="session")
def elastic() -> Contract | None:
    """Elastic's description of Kibana; None where it is not at hand, which one test of the contract tells."""
    try:
        return contract()
    except pytest.skip.Exception:
        return None


@pytest.fixture
def start(elastic: Contract | None) -> Iterator[Start]:
    """`start(version, secured=...)`: a Kibana, stopped at the end; it fails then if something was not as described."""
    with ExitStack() as running:
        yield lambda *args, **more: running.enter_context(KibanaStub(elastic, *args, **more))


@pytest.fixture(params=["8.19.4", "9.4.1"])
def kibana(request: pytest.FixtureRequest, start: Start) -> KibanaStub:
    """A Kibana of each kind: with saved objects only, and with the API of dashboards."""
    return start(request.param)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """`connect(kibana, **settings)`: our client of it, closed at the end."""
    monkeypatch.setenv("TEST_KIBANA_KEY", API_KEY)
    clients: list[KibanaClient] = []

    def make(kibana: KibanaStub | Site, **settings: Any) -> KibanaClient:
        login = {} if "username" in settings else {"token": "env:TEST_KIBANA_KEY"}
        clients.append(KibanaClient(KibanaTarget.model_validate({"url": kibana.url} | login | settings)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(kibana: KibanaStub, connect: Connect) -> KibanaClient:
    """Our client of `kibana`."""
    return connect(kibana)
