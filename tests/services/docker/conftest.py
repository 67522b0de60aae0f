"""Clients of a real engine, and the vendor's own client that tells what is true."""

from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest

from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.target import DockerTarget
from tests.conftest import StartServer
from tests.servers import DockerServer

Connect = Callable[..., DockerClient]


@pytest.fixture
def engine(session_server: StartServer) -> Iterator[DockerServer]:
    """An engine without containers, networks and volumes before and after the test."""
    one = session_server("docker", "docker")
    assert isinstance(one, DockerServer)
    one.clear()
    yield one
    one.clear()


@pytest.fixture
def plain(engine: DockerServer) -> Iterator[docker.APIClient]:
    """What the engine says without our code."""
    with engine.plain() as api:
        yield api


@pytest.fixture
def connect() -> Iterator[Connect]:
    """`connect(**settings)`: our client of an engine, closed at the end."""
    clients: list[DockerClient] = []

    def make(**settings: Any) -> DockerClient:
        clients.append(DockerClient(DockerTarget(**settings)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(engine: DockerServer, connect: Connect) -> DockerClient:
    """Our client of `engine`."""
    return connect(url=engine.url)
