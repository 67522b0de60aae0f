"""A migrated schema of its own for every test, on real PostgreSQL servers."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Row, text

from nms_workers.store.engine import make_engine
from nms_workers.store.migrations import upgrade
from nms_workers.store.spool import Spool
from tests.servers import Server


class Database:
    """A schema of one server, and what tests ask it."""

    def __init__(self, url: str, schema: str) -> None:
        self.url, self.schema = url, schema
        self.engine: Engine = make_engine(url, schema=schema)

    def target(self, name: str = "one", service: str = "redis") -> int:
        """Enter a target; its id."""
        with self.engine.begin() as connection:
            return connection.execute(
                text(
                    "INSERT INTO targets (service, name, source, state) VALUES (:service, :name, 'test', 'active') "
                    "RETURNING id"
                ),
                {"service": service, "name": name},
            ).scalar_one()

    def rows(self, statement: str, **values: object) -> list[Row[Any]]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(statement), values).all())

    def value(self, statement: str, **values: object) -> Any:
        return self.rows(statement, **values)[0][0]

    def run(self, statement: str, **values: object) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), values)


MakeDatabase = Callable[[Server], Database]


@pytest.fixture
def make_database() -> Iterator[MakeDatabase]:
    """`make_database(server)`: a migrated schema on this server, dropped at the end."""
    made: list[Database] = []

    def make(server: Server) -> Database:
        database = Database(server.url, f"test_{secrets.token_hex(4)}")
        database.run(f"CREATE SCHEMA {database.schema}")
        upgrade(database.url, schema=database.schema)
        made.append(database)
        return database

    yield make
    for database in made:
        database.run(f"DROP SCHEMA {database.schema} CASCADE")
        database.engine.dispose()


@pytest.fixture(params=["postgresql-15", "postgresql-18"])
def database(
    request: pytest.FixtureRequest, session_server: Callable[[str], Server], make_database: MakeDatabase
) -> Database:
    return make_database(session_server(request.param))


@pytest.fixture
def newest(session_server: Callable[[str], Server], make_database: MakeDatabase) -> Database:
    """For what does not depend on the server's version."""
    return make_database(session_server("postgresql-18"))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()
