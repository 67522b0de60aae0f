"""A migrated database and an empty Redis for each test, and the tests' own service in the real registry."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql
from sqlalchemy import Engine, make_url, text

import nms_workers.services
from nms_workers.service import services
from nms_workers.store.engine import make_engine
from nms_workers.store.migrations import upgrade
from tests.servers import Server

_numbers = count()
_templates: set[str] = set()


def fresh_database(server: Server) -> str:
    """The URL of a new database with the schema: a copy of one that is migrated once."""
    template, name = "nms_template", f"nms_test_{next(_numbers)}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        if server.url not in _templates:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(template)))
            upgrade(_in(server.url, template))
            _templates.add(server.url)
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    return _in(server.url, name)


def drop_database(server: Server, url: str) -> None:
    """Drop what `fresh_database` made."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        name = sql.Identifier(make_url(url).database or "")
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _in(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)


@pytest.fixture
def postgres_name() -> str:
    """Which PostgreSQL; a test parametrizes it to name others."""
    return "postgresql-18"


@pytest.fixture
def database_url(session_server: Callable[[str], Server], postgres_name: str) -> Iterator[str]:
    """A migrated database of this test's own."""
    server = session_server(postgres_name)
    url = fresh_database(server)
    yield url
    drop_database(server, url)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connections to it."""
    made = make_engine(database_url, pool_size=4)
    yield made
    made.dispose()


@pytest.fixture
def redis_server(session_server: Callable[[str], Server]) -> Server:
    """Redis, empty."""
    server = session_server("valkey-9")
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server


@pytest.fixture
def red(redis_server: Server) -> Iterator["redis.Redis"]:
    """A connection to it; answers are bytes."""
    client = redis.Redis.from_url(redis_server.url, socket_timeout=5)
    yield client
    client.close()


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The service `shelf`, found by the registry as any other: by its folder on the path of the package."""
    here = str(Path(__file__).parent / "services")
    monkeypatch.setattr(nms_workers.services, "__path__", [*nms_workers.services.__path__, here])
    services.cache_clear()
    yield
    monkeypatch.undo()
    services.cache_clear()


def rows(engine: Engine, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """What a query finds, as plain tuples."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), parameters)]


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Return as soon as the condition holds; fail when it does not in time."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it never became true"
        time.sleep(0.01)


def milliseconds(moment: datetime) -> int:
    """Since the epoch, as the fleet names slots."""
    return round(moment.timestamp() * 1000)
