"""The client's typed answers, against real servers."""

import psycopg
import pytest

from nms_workers.errors import Refused
from nms_workers.services.postgresql.client import DatabaseStats
from tests.servers import PostgresServer
from tests.services.postgresql.conftest import Connect, busy, until


@pytest.fixture
def tables(schema: psycopg.Connection) -> psycopg.Connection:
    schema.execute("create table small (id int primary key, note text)")
    schema.execute("insert into small select n, 'x' from generate_series(1, 10) n")
    schema.execute("create table big (id int primary key, note text)")
    schema.execute("insert into big select n, repeat('x', 200) from generate_series(1, 5000) n")
    schema.execute("analyze")
    return schema


def test_the_server_at_a_glance(server: PostgresServer, schema: psycopg.Connection, connect: Connect) -> None:
    with busy(server.url, "select pg_sleep(60)"):
        client = connect(server)
        stats = until(lambda: s if (s := client.get_stats()).longest_transaction > 0.05 else None)
    started, size, limit = schema.execute(
        "select pg_postmaster_start_time(), (select sum(pg_database_size(oid)) from pg_database), "
        "current_setting('max_connections')::int"
    ).fetchone()
    assert stats.version.startswith(server.name.removeprefix("postgresql-"))
    assert stats.started == started
    assert not stats.in_recovery
    assert stats.active >= 2
    assert stats.connections_max == limit
    assert stats.size == pytest.approx(int(size), rel=0.05)
    assert 0 < stats.cache_hit_ratio <= 1
    assert stats.commits > 0


def test_databases(server: PostgresServer, tables: psycopg.Connection, connect: Connect) -> None:
    client = connect(server)

    tables.execute("select pg_stat_force_next_flush()")

    def counted() -> dict[str, DatabaseStats]:
        found = {one.name: one for one in client.get_database_stats()}
        return found if found["nms"].rows_inserted >= 5010 else {}

    found = until(counted)
    assert set(found) == {"nms", "postgres"}
    (age,) = tables.execute("select age(datfrozenxid) from pg_database where datname = 'nms'").fetchone()
    assert 0 < found["nms"].transaction_id_age <= age
    assert found["nms"].size > 1_000_000


def test_the_largest_tables_come_first(server: PostgresServer, tables: psycopg.Connection, connect: Connect) -> None:
    client = connect(server)
    sizes = [one for one in client.get_table_sizes() if one.schema == "shop"]
    assert [one.name for one in sizes] == ["big", "small"]
    told = tables.execute("select pg_total_relation_size('big'), pg_indexes_size('big')").fetchone()
    assert (sizes[0].total_bytes, sizes[0].index_bytes) == told
    assert sizes[0].total_bytes == sizes[0].table_bytes + sizes[0].index_bytes + sizes[0].toast_bytes
    assert sizes[0].rows == 5000
    assert len(client.get_table_sizes(limit=1)) == 1
    assert client.get_table_sizes("postgres") == []


def test_active_connections_say_who_blocks_whom(
    server: PostgresServer, tables: psycopg.Connection, connect: Connect
) -> None:
    client = connect(server)
    with (
        busy(server.url, "begin", "lock table shop.small", "select pg_sleep(60)") as holder,
        busy(server.url, "select 'me', count(*) from shop.small") as waiter,
    ):

        def blocked() -> bool:
            sessions = {one.pid: one for one in client.get_active_connections()}
            return waiter in sessions and sessions[waiter].blocked_by == [holder]

        until(blocked)
        sessions = {one.pid: one for one in client.get_active_connections()}
    assert sessions[waiter].wait_type == "Lock"
    assert sessions[waiter].query == "select 'me', count(*) from shop.small"
    assert (sessions[holder].database, sessions[holder].user) == ("nms", "nms")
    assert 0 <= sessions[waiter].in_transaction <= sessions[waiter].connected
    assert tables.info.backend_pid not in sessions
    assert tables.info.backend_pid in {one.pid for one in client.get_active_connections(idle=True)}


def test_slow_queries(server: PostgresServer, schema: psycopg.Connection, connect: Connect) -> None:
    client = connect(server)
    if not server.has_statements:
        with pytest.raises(Refused, match="CREATE EXTENSION pg_stat_statements"):
            client.analyze_slow_queries()
        return
    schema.execute("create extension if not exists pg_stat_statements schema public")
    schema.execute("select pg_stat_statements_reset()")
    schema.execute("select pg_sleep(0.2) as slow")
    for _ in range(5):
        schema.execute("select 1 as often")
    slowest = client.analyze_slow_queries(limit=1)[0]
    assert slowest.query == "select pg_sleep($1) as slow"
    assert (slowest.calls, slowest.database, slowest.user) == (1, "nms", "nms")
    assert 0.2 <= slowest.mean == slowest.max == slowest.total < 5
    assert 0.5 < slowest.share <= 1
    often = {one.query: one.calls for one in client.analyze_slow_queries(order="calls")}
    assert often["select $1 as often"] == 5
    schema.execute("drop extension pg_stat_statements")


def test_a_plan_is_explained_without_being_run(
    server: PostgresServer, tables: psycopg.Connection, connect: Connect
) -> None:
    client = connect(server)
    plan = client.analyze_query_performance("-- which\nselect * from shop.big where note like '%y%' order by id")
    assert plan.sequential_scans == ["big"]
    assert plan.total_cost > 100
    assert (plan.execution, plan.actual_rows) == (None, None)
    by_key = client.analyze_query_performance("with one as (select 7 as id) select * from shop.big join one using (id)")
    assert by_key.sequential_scans == []
    assert client.analyze_query_performance("select pg_sleep(60)").execution is None


def test_a_plan_that_is_run_is_timed_and_changes_nothing(
    server: PostgresServer, tables: psycopg.Connection, connect: Connect
) -> None:
    client = connect(server)
    plan = client.analyze_query_performance("select * from shop.big where id > 4000", run=True)
    assert plan.actual_rows == 1000
    assert 0 < plan.execution < 10
    deleting = "with gone as (delete from shop.big returning id) select count(*) from gone"
    with pytest.raises(Refused, match="read-only"):
        client.analyze_query_performance(deleting, run=True)
    assert tables.execute("select count(*) from big").fetchone() == (5000,)


@pytest.mark.parametrize("run", [False, True])
@pytest.mark.parametrize(
    "sql",
    [
        "delete from shop.big",
        "explain analyze delete from shop.big",
        "/* select */ update shop.big set note = ''",
        "select 1; drop table shop.big",
        "select 1; commit; drop table shop.big",
        "select 1) select 2; commit; drop table shop.big; --",
        "",
    ],
)
def test_only_one_statement_that_reads_is_explained(
    newest: PostgresServer, connect: Connect, sql: str, *, run: bool
) -> None:
    with psycopg.connect(newest.url, autocommit=True) as admin:
        admin.execute("create schema shop")
        admin.execute("create table shop.big as select generate_series(1, 5) as n")
        try:
            with pytest.raises(Refused):
                connect(newest).analyze_query_performance(sql, run=run)
            assert admin.execute("select count(*) from shop.big").fetchone() == (5,)
        finally:
            admin.execute("drop schema shop cascade")


def test_unknown_values_can_be_explained(newest: PostgresServer, connect: Connect) -> None:
    client = connect(newest)
    assert client.analyze_query_performance("select * from pg_class where oid = $1").sequential_scans == []
    everything = client.analyze_query_performance("select * from pg_class where relpages > $1 and relname <> $2")
    assert everything.sequential_scans == ["pg_class"]
    with pytest.raises(Refused):
        client.analyze_query_performance("select * from pg_class where oid = $1", run=True)
