"""Fixtures: a probe server, a database of the test's own, and a fleet around them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from nms_workers.store.migrations import upgrade
from tests.conftest import StartServer
from tests.real.fleet import Fleet
from tests.real.ledger import Ledger
from tests.real.probe_server import ProbeServer
from tests.servers import Server

MakeFleet = Callable[..., Fleet]

# Unprivileged builds of both come with the project's own dependencies, so these tests run everywhere.
POSTGRES = "postgresql-18"
REDIS = "valkey-9"


@pytest.fixture
def probe() -> Iterator[ProbeServer]:
    """A server to poll."""
    with ProbeServer() as server:
        yield server


@pytest.fixture
def database(session_server: StartServer) -> Iterator[str]:
    """The URL of a database with our schema, on the PostgreSQL of the whole run."""
    server = session_server(POSTGRES)
    name = f"fleet_{uuid4().hex[:12]}"
    url = server.url.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        upgrade(url)
        yield url
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def own_postgres(start_server: StartServer) -> Server:
    """A PostgreSQL with our schema that a test may stop."""
    server = start_server(POSTGRES)
    upgrade(server.url)
    return server


@pytest.fixture
def own_redis(start_server: StartServer) -> Server:
    """A Redis that a test may stop."""
    return start_server(REDIS)


@pytest.fixture
def make_fleet(tmp_path: Path, start_server: StartServer) -> Iterator[MakeFleet]:
    """`make_fleet(database, redis, broker)`: a fleet that is ended with the test, before the servers it stands on."""
    fleets: list[Fleet] = []

    def make(database: str, redis: str, broker: str = "") -> Fleet:
        fleets.append(Fleet(tmp_path / f"fleet{len(fleets)}", database, redis, broker))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.close()


@pytest.fixture
def fleet(make_fleet: MakeFleet, database: str, own_redis: Server) -> Fleet:
    """A fleet with a Redis of its own, nothing started yet."""
    return make_fleet(database, own_redis.url)


@pytest.fixture
def ledger(fleet: Fleet) -> Ledger:
    """What `fleet` left in its database and its journal."""
    return Ledger(fleet.database, fleet.journal)
