"""The store behind PgBouncer, pooling by transaction: what was put is written once, over two connections."""

from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from nms_workers.errors import ConfigError
from nms_workers.store.engine import make_engine
from nms_workers.store.migrations import upgrade
from nms_workers.store.partitions import maintain
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from tests.conftest import StartServer
from tests.servers import Server
from tests.store.slots import LAYOUT, slot
from tests.store.waiting import until

pytestmark = pytest.mark.real("pgbouncer", "postgresql-18")

ROLE = "ALTER ROLE nms SET timezone = 'UTC'; ALTER ROLE nms SET statement_timeout = '30s'"


@pytest.fixture
def postgres(start_server: StartServer) -> Server:
    server = start_server("postgresql-18", conf={"timezone": "Asia/Tokyo"})
    upgrade(server.url)
    return server


@pytest.fixture
def pgbouncer(start_server: StartServer, postgres: Server) -> Server:
    with psycopg.connect(postgres.url) as connection:
        connection.execute(ROLE)
    return start_server("pgbouncer", to=postgres)


def test_many_writers_share_two_connections(postgres: Server, pgbouncer: Server, tmp_path: Path) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        ids = [
            connection.execute(
                "INSERT INTO targets (service, name, source, state) VALUES ('redis', %s, 'test', 'active') "
                "RETURNING id",
                [f"target {number}"],
            ).fetchone()
            for number in range(6)
        ]
    targets = [row[0] for row in ids if row]
    writers = [Writer(Spool(tmp_path / str(target), 10_000_000), pgbouncer.url) for target in targets]
    for writer in writers:
        writer.start()
    for number in range(60):
        for writer, target in zip(writers, targets, strict=True):
            writer.put(slot(target, number), [LAYOUT])
        if number % 10 == 9:  # many small batches: statements that psycopg would prepare after the fifth
            assert {writer.flush(20) for writer in writers} == {True}
    assert {writer.close(10) for writer in writers} == {True}
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        counts = connection.execute("SELECT target_id, count(*) FROM poll_runs GROUP BY 1 ORDER BY 1").fetchall()
        blocks = connection.execute('SELECT count(*), sum("values"[1]) FROM sample_blocks').fetchone()
        ask = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"

        def held() -> int:
            return int((connection.execute(ask).fetchone() or (0,))[0])

        # what the fixtures closed may take a moment to go; PgBouncer's stay
        until(lambda: 1 <= held() <= 2, "only PgBouncer's two connections are left")
    assert counts == [(target, 60) for target in sorted(targets)]
    assert blocks == (360, 6 * sum(range(60)))


def test_statements_are_never_prepared(pgbouncer: Server) -> None:
    """Each transaction may meet another connection, which has not seen what an earlier one prepared."""
    engine = make_engine(pgbouncer.url, pool_size=4)
    others = [engine.connect() for _ in range(2)]
    for number in range(30):
        with others[number % 2].begin():
            assert others[number % 2].execute(text("SELECT :n + 1"), {"n": number}).scalar_one() == number + 1
    with others[0].begin():
        assert others[0].execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one() == 0
        assert others[0].execute(text("SHOW timezone")).scalar_one() == "UTC"
        assert others[0].execute(text("SHOW statement_timeout")).scalar_one() == "30s"
    for connection in others:
        connection.close()
    engine.dispose()


def test_a_role_that_was_not_prepared_is_told_about(postgres: Server, start_server: StartServer) -> None:
    engine = make_engine(start_server("pgbouncer", to=postgres).url)
    with pytest.raises(ConfigError, match="time zone Asia/Tokyo, limit 0") as told:
        engine.connect()
    assert "ALTER ROLE" in str(told.value)
    assert postgres.password not in str(told.value)


@pytest.mark.parametrize("what", ["upgrade", "maintain"])
def test_what_holds_a_lock_of_the_session_is_refused(pgbouncer: Server, what: str) -> None:
    engine = make_engine(pgbouncer.url)
    with pytest.raises(ConfigError, match="through PgBouncer is not possible"):
        upgrade(pgbouncer.url) if what == "upgrade" else maintain(engine)
    with pytest.raises(ConfigError, match="schema"):
        make_engine(pgbouncer.url, schema="other")
