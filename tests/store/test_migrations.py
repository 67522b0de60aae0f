import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from nms_workers.errors import ConfigError
from nms_workers.store.engine import make_engine
from nms_workers.store.flow_columns import FLOW_COLUMN_FUNCTION, FLOWS_VIEW, LEVELS, rollup_view
from nms_workers.store.migrations import status, upgrade
from nms_workers.store.schema import SAMPLES_VIEW, metadata
from tests.servers import Server
from tests.store.conftest import Database


def ours(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or not re.fullmatch(r"(.+_p\d+|alembic_version)", name or "")


def details(database: Database) -> dict[str, list[Any]]:
    """What Alembic does not compare."""
    return {
        "partitions": database.rows(
            "SELECT relname, pg_get_partkeydef(oid) FROM pg_class "
            "WHERE relnamespace = CAST(current_schema() AS regnamespace) AND relkind = 'p' ORDER BY 1"
        ),
        "constraints": [
            (name, definition.replace(f"{database.schema}.", ""))
            for name, definition in database.rows(
                "SELECT conrelid::regclass::text || ' ' || conname, pg_get_constraintdef(oid) FROM pg_constraint "
                "WHERE connamespace = CAST(current_schema() AS regnamespace) AND contype <> 'n' "
                "AND conrelid::regclass::text !~ '_p[0-9]+$|alembic_version' ORDER BY 1"
            )
        ],
        "views": database.rows(
            "SELECT relname, pg_get_viewdef(oid) FROM pg_class "
            "WHERE relnamespace = CAST(current_schema() AS regnamespace) AND relkind = 'v' ORDER BY 1"
        ),
        "functions": database.rows(
            "SELECT proname, prosrc, provolatile, proparallel FROM pg_proc "
            "WHERE pronamespace = CAST(current_schema() AS regnamespace) AND proname = 'flow_column'"
        ),
    }


def test_the_migrated_database_is_the_metadata(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": ours, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    migrated = details(database)
    assert len(migrated["partitions"]) == 10
    schema = f"{database.schema}_metadata"
    database.run(f"CREATE SCHEMA {schema}")
    made = Database(database.url, schema)
    try:
        metadata.create_all(made.engine)
        for statement in (SAMPLES_VIEW, FLOW_COLUMN_FUNCTION, FLOWS_VIEW, *map(rollup_view, LEVELS)):
            made.run(statement.replace(":", "\\:").replace("\\:\\:", "::"))
        assert details(made) == migrated
    finally:
        made.engine.dispose()
        database.run(f"DROP SCHEMA {schema} CASCADE")


def test_blocks_are_compressed_where_they_stand(database: Database) -> None:
    methods = database.value("SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
    stored = database.rows(
        "SELECT attstorage::text, attcompression::text FROM pg_attribute a JOIN pg_inherits i ON a.attrelid = inhrelid "
        "WHERE inhparent = 'sample_blocks'::regclass AND attname = 'values'"
    )
    assert len(stored) == 3
    assert set(stored) == {("m", "l" if "lz4" in methods else "")}


def test_columns_of_flows_are_compressed(database: Database) -> None:
    methods = database.value("SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
    stored = database.rows(
        "SELECT attrelid::regclass::text, attcompression::text, count(*) FROM pg_attribute "
        "WHERE attrelid::regclass::text ~ '^flow_.*blocks[_1-9mh]*$' AND attnum > 0 AND attndims > 0 GROUP BY 1, 2"
    )
    lz4 = "l" if "lz4" in methods else ""
    levels = {f"flow_rollup_blocks_{level}": (lz4, 12) for level in LEVELS}
    assert {table: (method, number) for table, method, number in stored} == {"flow_blocks": (lz4, 45)} | levels


def test_upgrading_is_safe_to_repeat_and_to_do_at_once(session_server: Callable[[str], Server]) -> None:
    url, schema = session_server("postgresql-18").url, "test_upgrade_at_once"
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    try:
        assert status(url, schema=schema) == (None, "0005")
        with ThreadPoolExecutor(3) as pool:
            done = list(pool.map(lambda _: upgrade(url, schema=schema), range(3)))
        assert sorted(done, key=str) == [("0005", "0005"), ("0005", "0005"), (None, "0005")]
        assert status(url, schema=schema) == ("0005", "0005")
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
        engine.dispose()


@pytest.mark.parametrize(
    ("url", "reason"), [("sqlite:///x", "not in sqlite"), ("postgresql://u:s3cret@[::1", "cannot be read")]
)
def test_a_wrong_url_is_told_without_its_password(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as failure:
        make_engine(url)
    assert "s3cret" not in str(failure.value)


def test_the_connection_is_named_and_limited(newest: Database) -> None:
    assert newest.value("SHOW application_name") == "nms-workers"
    assert newest.value("SHOW statement_timeout") == "30s"
    assert newest.value("SHOW timezone") == "UTC"
