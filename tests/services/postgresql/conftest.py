"""A client for a real server, and sessions of other people that are busy on it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any, TypeVar

import psycopg
import pytest

from nms_workers.records import Entity, Event, Record, Sample
from nms_workers.service import Poll
from nms_workers.services.postgresql.client import PostgresqlClient
from nms_workers.services.postgresql.connection import Target
from nms_workers.services.postgresql.service import Postgresql
from nms_workers.transport.secret import Secret
from tests.servers import POSTGRES, PostgresServer

T = TypeVar("T")
Connect = Callable[..., PostgresqlClient]


@pytest.fixture(params=POSTGRES)
def server(request: pytest.FixtureRequest, session_server: Callable[[str, str], PostgresServer]) -> PostgresServer:
    """Each version there is, shared by the tests of this folder."""
    return session_server(request.param, "postgresql")


@pytest.fixture
def newest(session_server: Callable[[str, str], PostgresServer]) -> PostgresServer:
    """One version, where all behave alike."""
    return session_server("postgresql-18", "postgresql")


@pytest.fixture
def connect() -> Iterator[Connect]:
    """`connect(server, **settings)`: a client, closed at the end."""
    clients = []

    def make(server: PostgresServer, **settings: Any) -> PostgresqlClient:
        clients.append(PostgresqlClient(target_of(server, **settings)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def schema(server: PostgresServer) -> Iterator[psycopg.Connection]:
    """A connection whose tables are made in the schema `shop`, which is dropped at the end."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("drop schema if exists shop cascade")
        connection.execute("create schema shop")
        connection.execute("set search_path = shop, public")
        yield connection
        connection.execute("drop schema shop cascade")


def target_of(server: PostgresServer, **settings: Any) -> Target:
    where = {"host": server.host, "port": server.port, "dbname": server.dbname}
    who = {"user": server.user, "password": Secret(f"file:{server.folder / 'password'}")}
    return Target(**(where | who | settings))


def polls() -> dict[str, Poll]:
    return Postgresql.polls()


def read(client: PostgresqlClient, poll: str) -> list[Record]:
    return list(polls()[poll].run(client))


def values(records: list[Record], metric: str, **labels: str) -> list[float]:
    """The values of the series of this metric that carry these labels."""
    wanted = labels.items()
    return [
        one.value
        for one in records
        if isinstance(one, Sample) and one.metric == f"postgresql_{metric}" and wanted <= one.labels.items()
    ]


def value(records: list[Record], metric: str, **labels: str) -> float:
    (only,) = values(records, metric, **labels)
    return only


def events(records: list[Record], kind: str) -> list[Event]:
    return [one for one in records if isinstance(one, Event) and one.kind == kind]


def entities(records: list[Record], kind: str) -> dict[str, Entity]:
    return {one.key: one for one in records if isinstance(one, Entity) and one.kind == kind}


def until(ask: Callable[[], T], seconds: float = 30.0) -> T:
    """What `ask` returns, as soon as that is true."""
    end = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < end, f"still {answer!r} after {seconds:g} s"
        time.sleep(0.02)
    return answer


@contextmanager
def busy(url: str, *statements: str) -> Iterator[int]:
    """Another session, by its process id, that runs these statements; what still runs at the end is cancelled."""
    with psycopg.connect(url, autocommit=True) as connection:

        def run() -> None:
            with suppress(psycopg.errors.QueryCanceled, psycopg.OperationalError):
                for statement in statements:
                    connection.execute(statement)

        thread = Thread(target=run)
        thread.start()
        try:
            yield connection.info.backend_pid
        finally:
            while thread.is_alive():
                connection.cancel_safe(timeout=5)
                thread.join(0.2)
