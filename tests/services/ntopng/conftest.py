"""Our client of an ntopng that keeps state; every request is held against ntop's description."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nms_workers.services.ntopng.client import NtopngClient
from nms_workers.services.ntopng.target import NtopngTarget
from tests.contract.vendor import Contract
from tests.stubs.ntopng import TOKEN, NtopngStub, contract
from tests.transport.sites import Site

Connect = Callable[..., NtopngClient]


@pytest.fixture(scope="session")
def ntop() -> Contract | None:
    """ntop's description of its REST API; None where it is not at hand, which one test of the contract tells."""
    try:
        return contract()
    except pytest.skip.Exception:
        return None


@pytest.fixture
def ntopng(ntop: Contract | None) -> Iterator[NtopngStub]:
    """An ntopng, stopped at the end; it fails then if something was not as described."""
    with NtopngStub(ntop) as one:
        yield one


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """`connect(ntopng, **settings)`: our client of it, closed at the end."""
    monkeypatch.setenv("TEST_NTOPNG_TOKEN", TOKEN)
    clients: list[NtopngClient] = []

    def make(ntopng: NtopngStub | Site, **settings: Any) -> NtopngClient:
        login = {} if "username" in settings else {"token": "env:TEST_NTOPNG_TOKEN"}
        clients.append(NtopngClient(NtopngTarget.model_validate({"url": ntopng.url} | login | settings)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(ntopng: NtopngStub, connect: Connect) -> NtopngClient:
    """Our client of `ntopng`."""
    return connect(ntopng)
