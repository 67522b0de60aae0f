"""Stubs of clusters of both versions, held against the vendor's description where it is there, and our clients."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nms_workers.services.elasticsearch.client import ElasticsearchClient
from nms_workers.services.elasticsearch.target import ElasticsearchTarget
from tests.contract.elasticsearch import Vendor
from tests.contract.vendor import SPECS
from tests.stubs.elasticsearch import ElasticsearchStub

VERSIONS = ("8.17.4", "9.1.2")
Connect = Callable[..., ElasticsearchClient]
StartStub = Callable[..., ElasticsearchStub]


@pytest.fixture(scope="session")
def vendor() -> Vendor | None:
    """What the vendor says of its API; None where the description is not at hand."""
    return Vendor() if (SPECS / "elasticsearch").exists() else None


@pytest.fixture
def start_stub(vendor: Vendor | None) -> Iterator[StartStub]:
    """`start_stub(version, **options)`: a cluster; closing it fails on what was not as the vendor describes."""
    stubs: list[ElasticsearchStub] = []

    def start(version: str = VERSIONS[0], **options: Any) -> ElasticsearchStub:
        stubs.append(ElasticsearchStub(version, vendor, **options))
        return stubs[-1]

    yield start
    for one in stubs:
        one.close()


@pytest.fixture(params=VERSIONS)
def stub(request: pytest.FixtureRequest, start_stub: StartStub) -> ElasticsearchStub:
    """A cluster of each version."""
    return start_stub(request.param)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """`connect(url, **settings)`: our client, closed at the end."""
    clients: list[ElasticsearchClient] = []

    def make(url: str, **settings: Any) -> ElasticsearchClient:
        clients.append(ElasticsearchClient(ElasticsearchTarget(url=url, retry={"attempts": 1}, **settings)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(stub: ElasticsearchStub, connect: Connect) -> ElasticsearchClient:
    """Our client of `stub`."""
    return connect(stub.url)
