"""What the polls say, against what was done on a real server."""

import contextlib
import math
import re
from collections.abc import Callable, Iterator

import psycopg
import pytest

from nms_workers.records import Record, Sample
from nms_workers.service import Poll
from nms_workers.services.postgresql.queries import Events, queries
from nms_workers.services.postgresql.service import Postgresql
from nms_workers.transport.secret import Secret
from tests.servers import PostgresServer
from tests.services.postgresql.conftest import Connect, busy, entities, events, polls, read, until, value, values

ROWS = {"schema": "shop", "table": "orders"}


@pytest.fixture
def orders(schema: psycopg.Connection) -> psycopg.Connection:
    schema.execute("create table orders (id bigint primary key, note text) with (autovacuum_enabled = off)")
    schema.execute("insert into orders select n, 'note' from generate_series(1, 1000) n")
    return schema


def test_rows_written_and_read_are_counted(
    server: PostgresServer, orders: psycopg.Connection, connect: Connect
) -> None:
    client = connect(server)
    before = value(read(client, "databases"), "database_rows_inserted_total", database="nms")
    orders.execute("insert into orders select n, 'more' from generate_series(1001, 1250) n")
    orders.execute("update orders set note = 'changed' where id <= 100")
    orders.execute("delete from orders where id > 1200")
    orders.execute("select count(*) from orders")

    orders.execute("select pg_stat_force_next_flush()")

    def counted() -> list[Record]:
        records = read(client, "tables")
        return records if values(records, "table_rows_deleted_total", **ROWS) == [50] else []

    records = until(counted)
    assert value(records, "table_rows_inserted_total", **ROWS) == 1250
    assert value(records, "table_rows_updated_total", **ROWS) == 100
    assert value(records, "table_rows_live", **ROWS) == 1200
    assert value(records, "table_rows_dead", **ROWS) == 150
    assert value(records, "table_rows_dead_ratio", **ROWS) == pytest.approx(150 / 1350)
    assert value(records, "table_sequential_scans_total", **ROWS) >= 1
    after = value(read(client, "databases"), "database_rows_inserted_total", database="nms")
    assert after - before >= 250


def test_sizes_are_those_the_server_tells(server: PostgresServer, orders: psycopg.Connection, connect: Connect) -> None:
    client = connect(server)
    records = read(client, "tables") + read(client, "indexes") + read(client, "sizes")
    told = orders.execute(
        "select pg_table_size('orders'), pg_indexes_size('orders'), pg_total_relation_size('orders'), "
        "pg_relation_size('orders_pkey')"
    ).fetchone()
    assert told == (
        value(records, "table_size_bytes", **ROWS),
        value(records, "table_indexes_size_bytes", **ROWS),
        value(records, "table_total_size_bytes", **ROWS),
        value(records, "index_size_bytes", index="orders_pkey", **ROWS),
    )
    (size,) = orders.execute("select pg_database_size('nms')").fetchone()
    assert value(records, "database_size_bytes", database="nms") == pytest.approx(size, rel=0.05)


def test_a_session_that_waits_is_counted_and_told_who_blocks_it(
    server: PostgresServer, orders: psycopg.Connection, connect: Connect
) -> None:
    client = connect(server, blocked_after=0.05)
    with _holding(server, "lock table shop.orders") as holder, busy(server.url, "table shop.orders"):

        def blocked() -> list[Record]:
            records = read(client, "activity")
            return records if events(records, "blocked_session") else []

        records = until(blocked)
        assert value(records, "sessions_blocked") == 1
        assert value(records, "database_locks_waiting", database="nms", mode="AccessShareLock") == 1
        assert value(records, "database_locks_held", database="nms", mode="AccessExclusiveLock") >= 1
        assert value(records, "active_sessions", wait="Lock") == 1
        (event,) = events(records, "blocked_session")
        assert event.attributes["blocked_by"] == [holder.info.backend_pid]
        assert event.state == "firing"
        (again,) = events(read(client, "activity"), "blocked_session")
        assert again.fingerprint == event.fingerprint
    assert until(lambda: value(read(client, "activity"), "sessions_blocked") == 0)
    assert events(read(client, "activity"), "blocked_session") == []


def test_an_open_transaction_shows_in_the_histogram_and_as_an_event(server: PostgresServer, connect: Connect) -> None:
    client = connect(server, long_transaction=0.05)
    with _holding(server, "select 1") as holder:

        def seen() -> list[Record]:
            records = read(client, "activity")
            pids = [one.attributes["pid"] for one in events(records, "long_transaction")]
            return records if holder.info.backend_pid in pids else []

        records = until(seen)
    buckets = {
        one.labels["le"]: one.value
        for one in records
        if isinstance(one, Sample) and one.metric == "postgresql_transactions_duration_seconds_bucket"
    }
    ordered = [buckets[le] for le in sorted(buckets, key=float)]
    assert math.inf in map(float, buckets)
    assert ordered == sorted(ordered)
    assert buckets["+Inf"] == value(records, "transactions_duration_seconds_gcount") >= 1
    assert value(records, "connections", state="idle in transaction") == 1
    assert value(records, "idle_in_transaction_longest_seconds") > 0


def test_a_table_locked_by_somebody_is_left_out_and_the_others_are_kept(
    server: PostgresServer, orders: psycopg.Connection, connect: Connect
) -> None:
    orders.execute("create table free (id int)")
    with _holding(server, "lock table shop.orders"):
        records = read(connect(server), "tables")
    assert values(records, "table_size_bytes", **ROWS) == []
    assert values(records, "table_rows_live", **ROWS) != []
    assert values(records, "table_size_bytes", schema="shop", table="free") == [0]


def test_bloat_is_estimated(server: PostgresServer, orders: psycopg.Connection, connect: Connect) -> None:
    orders.execute("insert into orders select n, repeat('x', 50) from generate_series(2000, 50000) n")
    orders.execute("vacuum full orders")
    orders.execute("analyze orders")
    client = connect(server)
    dense = read(client, "bloat")
    orders.execute("delete from orders where id % 10 <> 0")
    orders.execute("vacuum analyze orders")
    loose = read(client, "bloat")
    assert value(dense, "table_bloat_ratio", **ROWS) < 0.1
    assert value(dense, "index_bloat_ratio", **ROWS) < 0.1
    assert value(loose, "table_bloat_ratio", **ROWS) == pytest.approx(0.9, abs=0.05)
    assert value(loose, "index_bloat_ratio", **ROWS) == pytest.approx(0.9, abs=0.05)
    (size,) = orders.execute("select pg_relation_size('orders')").fetchone()
    assert value(loose, "table_bloat_bytes", **ROWS) == pytest.approx(0.9 * size, rel=0.1)


def test_a_role_without_privileges_gets_what_it_may_see(server: PostgresServer, connect: Connect) -> None:
    with _role(server, "visitor") as password:
        client = connect(server, user="visitor", password=password)
        logged = len(server.output())
        records = [record for poll in polls() for record in read(client, poll)]
        assert "permission denied" not in server.output()[logged:]
    assert value(records, "query_success", query="wal.files") == 0
    assert value(records, "query_success", query="databases.statistics") == 1
    assert value(records, "connections", state="hidden") >= 0
    (event,) = [one for one in events(records, "query_left_out") if one.attributes["query"] == "wal.files"]
    assert "pg_monitor" in event.attributes["hint"]
    assert value(records, "database_commits_total", database="nms") > 0


def test_pg_monitor_is_enough(server: PostgresServer, connect: Connect) -> None:
    with _role(server, "monitor") as password, psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("grant pg_monitor to monitor")
        client = connect(server, user="monitor", password=password)
        left_out = [
            event.attributes["query"] for poll in polls() for event in events(read(client, poll), "query_left_out")
        ]
    assert set(left_out) <= {"statements.top", "bloat.tables", "bloat.indexes"}


def test_one_connection_is_kept_and_at_most_one_more_is_opened(newest: PostgresServer, connect: Connect) -> None:
    with _databases(newest, "first", "second") as admin:
        client = connect(newest, tables_in=("*",))
        seen, most = set(), 0
        for poll in polls().values():
            for record in poll.run(client):
                if isinstance(record, Sample) and record.metric == "postgresql_relations":
                    seen.add(record.labels["database"])
                most = max(most, _ours(admin))
        assert seen == {"nms", "postgres", "first", "second"}
        assert most == 2
        assert until(lambda: _ours(admin) == 1)


def test_our_reads_are_not_counted_as_rollbacks(server: PostgresServer, connect: Connect) -> None:
    client = connect(server)
    client.get_stats()
    with psycopg.connect(server.url, autocommit=True) as admin:
        counted = "select pg_stat_get_db_xact_rollback(oid) from pg_database where datname = 'nms'"
        (before,) = admin.execute(counted).fetchone()
        for _ in range(20):
            client.rows("select 1")
        client.rows("select pg_stat_force_next_flush()")
        client.close()
        assert until(lambda: _ours(admin) == 0)
        assert admin.execute(counted).fetchone()[0] - before < 20


def test_databases_are_chosen_by_name(newest: PostgresServer, connect: Connect) -> None:
    with _databases(newest, "shop_a", "shop_b", "other"):
        chosen = read(connect(newest, databases=("shop_*", "nms"), databases_exclude=("*_b",)), "databases")
        tables = read(connect(newest, tables_in=("shop_?",)), "tables")
    assert set(entities(chosen, "database")) == {"nms", "shop_a"}
    assert {one.labels["database"] for one in tables if isinstance(one, Sample)} == {"nms", "shop_a", "shop_b"}


def test_a_database_that_cannot_be_entered_is_left_out(newest: PostgresServer, connect: Connect) -> None:
    with _databases(newest, "closed") as admin, _role(newest, "guest") as password:
        admin.execute("revoke connect on database closed from public")
        records = read(connect(newest, user="guest", password=password, tables_in=("*",)), "tables")
    (event,) = events(records, "query_left_out")
    assert event.attributes["database"] == "closed"
    assert value(records, "relations", database="postgres", kind="table") > 0


def test_limits_hold_and_what_is_beyond_is_counted(newest: PostgresServer, connect: Connect) -> None:
    with psycopg.connect(newest.url, autocommit=True) as admin:
        for number in range(4):
            admin.execute(f"create table limited_{number} (id int primary key)")
        try:
            client = connect(newest, max_tables=3, max_indexes=2)
            tables, indexes = read(client, "tables"), read(client, "indexes")
            (there,) = admin.execute("select count(*) from pg_stat_user_tables").fetchone()
        finally:
            for number in range(4):
                admin.execute(f"drop table limited_{number}")
    assert len(values(tables, "table_rows_live")) == 3
    assert value(tables, "tables_beyond_limit") == there - 3
    assert len(values(indexes, "index_scans_total")) == 2


def test_a_database_near_wraparound_is_an_event(newest: PostgresServer, connect: Connect) -> None:
    assert events(read(connect(newest), "server"), "wraparound_danger") == []
    records = read(connect(newest, wraparound_ratio=1e-9), "server")
    named = {one.attributes["database"] for one in events(records, "wraparound_danger")}
    assert named == {"nms", "postgres", "template1"}
    ages = [one.attributes["transaction_id_age"] for one in events(records, "wraparound_danger")]
    assert value(records, "transaction_id_age_transactions") == max(ages)
    assert value(records, "transaction_id_wraparound_ratio") == pytest.approx(max(ages) / 2**31)


def test_a_setting_that_waits_for_a_restart_is_an_event(newest: PostgresServer, connect: Connect) -> None:
    client = connect(newest)
    with psycopg.connect(newest.url, autocommit=True) as admin:
        admin.execute("alter system set wal_level = 'minimal'")
        admin.execute("alter system set work_mem = '5MB'")
        admin.execute("select pg_reload_conf()")
        try:
            # wal_level is not named on the server's command line, so the file counts.
            pending = until(lambda: events(read(client, "settings"), "settings_pending_restart"))
            settings = entities(read(client, "settings"), "setting")
            bytes_ = value(read(client, "server"), "setting", name="work_mem")
            admin.execute("alter system set wal_level = 'replica'")
            admin.execute("select pg_reload_conf()")
            assert until(lambda: not events(read(client, "settings"), "settings_pending_restart"))
        finally:
            admin.execute("alter system reset all")
            admin.execute("select pg_reload_conf()")
    assert pending[0].attributes["settings"] == ["wal_level"]
    assert settings["work_mem"].attributes["source"] == "configuration file"
    assert bytes_ == 5 * 1024 * 1024


def test_a_slot_that_lost_its_wal_is_an_event(start_server: Callable[..., PostgresServer], connect: Connect) -> None:
    server = start_server("postgresql-18", conf={"max_slot_wal_keep_size": "1MB"})
    client = connect(server)
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("select pg_create_physical_replication_slot('lagging', true)")
        assert events(read(client, "replication"), "slot_losing") == []
        for _ in range(4):
            admin.execute("create table if not exists filler (n int)")
            admin.execute("insert into filler values (1)")
            admin.execute("select pg_switch_wal()")
        admin.execute("checkpoint")
    records = read(client, "replication")
    (event,) = events(records, "slot_losing")
    assert (event.severity, event.attributes["wal_status"]) == ("error", "lost")
    assert value(records, "replication_slot_wal_status", status="lost") == 1


def test_top_statements_come_without_secrets(
    server: PostgresServer, schema: psycopg.Connection, connect: Connect
) -> None:
    client = connect(server, top_queries=500)
    if not server.has_statements:
        records = read(client, "statements")
        assert value(records, "query_success", query="statements.top") == 0
        assert "CREATE EXTENSION" in events(records, "query_left_out")[0].attributes["hint"]
        return
    schema.execute("create extension if not exists pg_stat_statements schema public")
    schema.execute("select pg_stat_statements_reset()")
    for number in range(3):
        schema.execute(f"select pg_sleep(0.01), {number} as counted")
    schema.execute("create role leaky password 'hunter2'")
    schema.execute("drop role leaky")
    records = read(client, "statements")
    texts = {key: one.attributes["query"] for key, one in entities(records, "statement").items()}
    (key,) = [key for key, text in texts.items() if text.endswith("as counted")]
    labels = dict(zip(("database", "user", "query_id"), key.split("/"), strict=True))
    assert value(records, "statement_calls_total", **labels) == 3
    assert 0.03 <= value(records, "statement_execution_seconds_total", **labels) < 3
    assert not any("hunter2" in text for text in texts.values())
    schema.execute("drop extension pg_stat_statements")


def test_a_database_without_an_encoding_is_read_as_text(newest: PostgresServer, connect: Connect) -> None:
    with _databases(newest, "plain encoding 'SQL_ASCII' locale 'C' template template0"):
        records = read(connect(newest, dbname="plain"), "databases")
    assert entities(records, "database")["plain"].attributes["encoding"] == "SQL_ASCII"


def test_nobody_can_slip_a_function_under_our_statements(
    server: PostgresServer, schema: psycopg.Connection, connect: Connect
) -> None:
    schema.execute("create table public.called (n int)")
    schema.execute(
        "create function public.age(xid, out integer) language sql as 'insert into public.called values (1); select 42'"
    )
    schema.execute(f"alter role {server.user} set search_path = public, pg_catalog")
    try:
        assert value(read(connect(server), "server"), "transaction_id_age_transactions") != 42
    finally:
        schema.execute(f"alter role {server.user} reset search_path")
        schema.execute("drop function public.age(xid)")
        schema.execute("drop table public.called")


def _ours(admin: psycopg.Connection) -> int:
    question = "select count(*) from pg_stat_activity where application_name = 'nms-workers'"
    return admin.execute(question).fetchone()[0]


@contextlib.contextmanager
def _holding(server: PostgresServer, statement: str) -> Iterator[psycopg.Connection]:
    """A session inside a transaction that ran this."""
    with psycopg.connect(server.url) as connection:
        connection.execute(statement)
        yield connection
        connection.rollback()


@contextlib.contextmanager
def _role(server: PostgresServer, name: str) -> Iterator[Secret]:
    path = server.folder / f"{name}-password"
    path.write_text("let me in")
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(f"create role {name} login password 'let me in'")
        try:
            yield Secret(f"file:{path}")
        finally:
            admin.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{name}'")
            admin.execute(f"drop owned by {name}")
            admin.execute(f"drop role {name}")


@contextlib.contextmanager
def _databases(server: PostgresServer, *definitions: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server.url, autocommit=True) as admin:
        for definition in definitions:
            admin.execute(f"create database {definition}")
        try:
            yield admin
        finally:
            for definition in definitions:
                admin.execute(f"drop database {definition.split()[0]} with (force)")


@pytest.mark.parametrize("poll", Postgresql.polls().values(), ids=lambda poll: str(poll.name))
def test_what_fires_is_resolved_when_it_is_named_no_more(poll: Poll) -> None:
    """The store resolves the kinds a poll enumerates: an event of another kind would fire for ever."""
    firing = {
        re.search(r"'(\w+)", query.fingerprint)[1]  # type: ignore[index]
        for query in queries(poll.name).values()
        if isinstance(query, Events)
    }
    assert firing | {"query_left_out"} <= poll.enumerates
