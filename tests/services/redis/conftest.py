"""Clients of real servers, and plain redis-py connections that tell what is true."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from nms_workers.services.redis.client import RedisClient
from nms_workers.services.redis.target import RedisTarget
from tests.servers import Server

Connect = Callable[..., RedisClient]
Plain = Callable[..., "redis.Redis[str]"]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """`connect(server, **settings)`: our client of a server, closed at the end."""
    clients: list[RedisClient] = []

    def make(server: Server | None = None, **settings: Any) -> RedisClient:
        if server is not None:
            settings = {"host": server.host, "port": server.port} | settings
            if server.password and "password" not in settings:
                monkeypatch.setenv("TEST_REDIS_PASSWORD", server.password)
                settings["password"] = "env:TEST_REDIS_PASSWORD"
        clients.append(RedisClient(RedisTarget(**settings)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def plain() -> Iterator[Plain]:
    """`plain(server)`: redis-py itself, closed at the end."""
    clients: list[Any] = []

    def make(server: Server, **options: Any) -> Any:
        options = {"password": server.password or None} | options
        clients.append(redis.Redis(host=server.host, port=server.port, decode_responses=True, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
